"""What the layers know about the positions of a batch, made once per step and passed to every block."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rotation:
    """Rotary angles.

    Attributes:
        cos, sin: cosines and sines of the angles, fp32 [positions, head_dim].
        sections: number of equal parts of a head that are rotated each by itself.
    """

    cos: Tensor
    sin: Tensor
    sections: int = 1


@dataclass(frozen=True)
class View:
    """The positions of a batch, as blocks see them. Text adds which positions see which (`models.text.causal`).

    Attributes:
        rotation: the angles by which attention rotates queries and keys; None: no rotary embedding.
    """

    rotation: Rotation | None = None
