"""What the layers know about the positions of a batch, made once per step and passed to every block."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines of the rotary angles, fp32 [positions, head_dim]."""

    cos: Tensor
    sin: Tensor


@dataclass(frozen=True)
class View:
    """The positions of a batch, as blocks see them. Text adds which positions see which (`models.text.causal`).

    Attributes:
        rotation: the angles by which attention rotates queries and keys; None: no rotary embedding.
    """

    rotation: Rotation | None = None
