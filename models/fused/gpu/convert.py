"""Makes the blocks of a model on CUDA use the kernels of this folder."""

import functools
from collections.abc import Callable

import torch

from models.act import ACTModel
from models.fused.gpu.layers import GPUSwiGLU
from models.layers import Block, SwiGLU

# a block, the name of a layer in it, the layer, and why the kernels cannot compute it, or None
Layers = list[tuple[Block, str, SwiGLU, str | None]]


def convert(model: ACTModel) -> tuple[bool, str]:
    """Replace the SwiGLU in the blocks of `model` with fused versions. A second call changes nothing.

    Returns (whether the model has fused modules now, reason).
    """
    if model.inner.dtype != torch.bfloat16:
        return False, "on CUDA they are for bfloat16"
    layers = swiglu_layers(model)
    if not layers:
        return False, "the blocks of this architecture are of another kind"
    reasons = [unfit for *_, unfit in layers if unfit is not None]
    if len(reasons) == len(layers):
        return False, reasons[0]
    reason = cannot_compute(next(model.parameters()).device)
    if reason is not None:
        return False, reason
    replace(layers, GPUSwiGLU)
    return True, f"SwiGLU in bfloat16 on CUDA{f'; but not everywhere: {reasons[0]}' if reasons else ''}"


def swiglu_layers(model: ACTModel) -> Layers:
    """All SwiGLU in the blocks of `model`."""
    hidden = model.config.hidden_size
    return [
        (block, name, layer, GPUSwiGLU.unfit(layer, hidden))
        for block in model.blocks
        if isinstance(block, Block)
        for name, layer in block.named_children()
        # not other subclasses, which compute something else
        if isinstance(layer, SwiGLU) and type(layer) in (SwiGLU, GPUSwiGLU)
    ]


def replace(layers: Layers, make: Callable[[SwiGLU], GPUSwiGLU]) -> None:
    """Replace the plain ones among `layers` that the kernels can compute."""
    for block, name, layer, unfit in layers:
        if not isinstance(layer, GPUSwiGLU) and unfit is None:
            block.set_submodule(name, make(layer))


@functools.cache
def cannot_compute(device: torch.device) -> str | None:
    """Try the kernels on a small SwiGLU of each kind on `device`. Returns why they cannot be used, or None."""
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) != (9, 0):
        return f"they are for compute capability 9.0 (Hopper), and this GPU has {major}.{minor}"
    for over_positions in (False, True):
        try:
            deviation = _deviation(device, over_positions)
        except Exception as error:  # Triton's compiler, assembler and launcher raise errors of many types
            return f"the kernels do not run here: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
        if not deviation < 0.02:
            return f"the kernels compute wrongly here: off by {deviation:.3g} of 1"
    return None


def _deviation(device: torch.device, over_positions: bool) -> float:
    """The relative deviation of outputs and gradients from the plain layer, the largest of them, in bf16."""
    with torch.random.fork_rng(devices=[device]), torch.enable_grad():
        torch.manual_seed(0)
        plain = SwiGLU(64, 4, inner=256, over_positions=over_positions).to(device)
        x, dy = torch.randn(2, 2, 64, 64, device=device).bfloat16()
    found, expected = (_results(layer, x, dy) for layer in (GPUSwiGLU(plain), plain))
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))


def _results(layer: SwiGLU, x: torch.Tensor, dy: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    weights = (layer.gate_up_proj.weight, layer.down_proj.weight)
    y = layer.sublayer(x, 1e-5)
    return [t.float() for t in (y.detach(), *torch.autograd.grad(y, (x, *weights), dy))]
