"""Entry point of this folder: makes the blocks of a model, and its optimizer, use the operators for its device."""

import importlib.util
from collections.abc import Callable

import torch

from models.act import ACTModel
from models.fused import operators
from models.fused.layers import FusedAttention, FusedSwiGLU, fused_layer
from models.fused.packing import PANEL
from models.layers import Attention, Block, SwiGLU
from utils.machine import keep_freed_memory

# not their subclasses, which compute something else
_REPLACED = (Attention, SwiGLU, FusedAttention, FusedSwiGLU)


def convert(model: ACTModel) -> tuple[bool, str]:
    """Replace attention and SwiGLU in the blocks of `model` with fused versions, wherever their widths allow it.

    On CUDA only SwiGLU is replaced.

    Parameters and their names stay the same, so this may be called before or after the optimizer and the averages are
    created or a checkpoint is loaded. A second call changes nothing.

    Returns (whether the model has fused modules now, reason).
    """
    device = next(model.parameters()).device
    if device.type == "cuda":
        if not has_triton():
            return False, "there is no Triton"
        from models.fused.gpu import convert as gpu  # needs Triton

        return gpu.convert(model)
    if device.type != "cpu" or model.inner.dtype != torch.bfloat16:
        return False, "they are for bfloat16 on CPUs"
    blocks = [block for block in model.blocks if isinstance(block, Block)]
    found = [
        (block, name, layer)
        for block in blocks
        for name, layer in block.named_children()
        if isinstance(layer, Attention | SwiGLU) and type(layer) in _REPLACED
    ]
    layers = [(block, name, fused_layer(layer)) for block, name, layer in found if not _has_other_unit(layer)]
    other_unit = "the MLPs, whose gated unit is no SwiGLU"
    if not layers:
        return False, f"not for {other_unit}" if found else "the blocks of this architecture are of another kind"
    fitting = [(block, name, layer) for block, name, layer in layers if layer is not None]
    if model.config.hidden_size % PANEL or not fitting:
        return False, f"hidden_size {model.config.hidden_size} is no multiple of {PANEL}"
    reason = operators.load()
    if reason is not None:
        return False, reason
    for block, name, layer in fitting:
        block.set_submodule(name, layer)
    keep_freed_memory()
    if len(fitting) < len(layers):
        return True, f"bfloat16 on this CPU; but not attention, whose heads are no multiple of {PANEL} wide"
    return True, "bfloat16 on this CPU" + (f"; but not {other_unit}" if len(layers) < len(found) else "")


def _has_other_unit(layer: Attention | SwiGLU) -> bool:
    return isinstance(layer, SwiGLU) and layer.unit != "swiglu"


def optimizer_update(device: torch.device, fused: bool) -> Callable[..., None] | None:
    """The function that `utils.optimizers.AdamATan2.update_in_one_pass` takes as `update`, or None.

    `fused`: whether `convert` replaced anything. On CUDA the update does not depend on it.
    """
    if device.type == "cuda":
        if not has_triton() or torch.cuda.get_device_capability(device) < (8, 0):
            return None
        from models.fused.gpu.adam_atan2 import adam_atan2  # needs Triton

        return adam_atan2
    return operators.optimizer_update() if fused else None


def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None
