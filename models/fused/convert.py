"""Entry point of this folder: makes the blocks of a model use its operators."""

import torch

from models.act import ACTModel
from models.fused.layers import fused_layer
from models.fused.operators import load
from models.fused.packing import PANEL
from models.layers import Attention, Block, SwiGLU
from utils.machine import keep_freed_memory


def convert(model: ACTModel) -> tuple[bool, str]:
    """Replace attention and SwiGLU in the blocks of `model` with fused versions, wherever their widths allow it.

    Parameters and their names stay the same, so this may be called before or after the optimizer and the averages are
    created or a checkpoint is loaded. A second call changes nothing.

    Returns (whether the model has fused modules now, reason).
    """
    if next(model.parameters()).device.type != "cpu" or model.inner.dtype != torch.bfloat16:
        return False, "they are for bfloat16 on CPUs"
    blocks = [block for level in model.levels for block in level.layers if isinstance(block, Block)]
    layers = [
        (block, name, fused_layer(layer))
        for block in blocks
        for name, layer in block.named_children()
        if isinstance(layer, Attention | SwiGLU)
    ]
    if not layers:
        return False, "the blocks of this architecture are of another kind"
    fitting = [(block, name, layer) for block, name, layer in layers if layer is not None]
    if model.config.hidden_size % PANEL or not fitting:
        return False, f"hidden_size {model.config.hidden_size} is no multiple of {PANEL}"
    reason = load()
    if reason is not None:
        return False, reason
    for block, name, layer in fitting:
        block.set_submodule(name, layer)
    keep_freed_memory()
    if len(fitting) < len(layers):
        return True, f"bfloat16 on this CPU; but not attention, whose heads are no multiple of {PANEL} wide"
    return True, "bfloat16 on this CPU"
