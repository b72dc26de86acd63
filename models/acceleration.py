"""Speeds up a model on its machine: fused operators, and compiled blocks."""

from collections.abc import Callable
from dataclasses import dataclass

from models.act import ACTModel
from utils.compiling import separate_compiled_by_cpu
from utils.machine import Machine, compiling_refused


@dataclass(frozen=True)
class Acceleration:
    """What `accelerate` did, and why.

    Attributes:
        compiled, compile_reason: whether the blocks are compiled, and the reason.
        fused, fuse_reason: whether the blocks use the operators of models/fused, and the reason.
        optimizer_update: the fused update for AdamATan2 (see `utils.optimizers.AdamATan2.update_in_one_pass`);
            None if the blocks are not fused, or on CUDA if there is no Triton.
    """

    compiled: bool
    compile_reason: str
    fused: bool
    fuse_reason: str
    optimizer_update: Callable[..., None] | None = None

    def __str__(self) -> str:
        return (
            f"compiled: {'yes' if self.compiled else 'no'} ({self.compile_reason})\n"
            f"fused operators: {'yes' if self.fused else 'no'} ({self.fuse_reason})"
        )


def accelerate(model: ACTModel, machine: Machine, work: float = 0) -> Acceleration:
    """Make the blocks of `model` use fused operators where possible, and compile them where that pays off.

    Parameters and their names stay the same.

    Args:
        model: on its device; changed in place.
        machine: that device, and whether the user wants anything compiled.
        work: planned floating-point operations of the whole run, so that a resumed run makes the same decision.
    """
    refusal = compiling_refused(machine.compile)
    fused, fuse_reason, update = _fuse(model) if refusal is None else (False, refusal, None)
    compiled, compile_reason = machine.choose_compile(work)
    if compiled:
        separate_compiled_by_cpu()
        model.compile_recursion()
    return Acceleration(compiled, compile_reason, fused, fuse_reason, update)


def _fuse(model: ACTModel) -> tuple[bool, str, Callable[..., None] | None]:
    # imported only here, so that everything else works without the folder
    try:
        from models.fused.convert import convert, optimizer_update
    except ModuleNotFoundError as error:
        if error.name not in ("models.fused", "models.fused.convert"):
            raise
        return False, "models/fused is not here", None
    fused, reason = convert(model)
    return fused, reason, optimizer_update(next(model.parameters()).device, fused)
