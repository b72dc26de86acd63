"""Listens to a recursion while it runs: every new value of every latent, without a second implementation.

The formula of an architecture passes each new value of a latent through `InnerModel.updates[name]`, an identity. The
recorder hooks these modules; without one, nothing is recorded and nothing is computed.
"""

from types import TracebackType
from typing import NamedTuple, Self

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from models.act import ACTModel
from utils.errors import UserError


class Update(NamedTuple):
    """One inner update."""

    latent: str  # name of the latent
    value: Tensor  # its new value, [batch, positions, hidden]


class UpdateRecorder:
    """Within its context, collects the inner updates of a model.

    Raises:
        UserError: the formula of the architecture does not report its updates.
    """

    def __init__(self, model: ACTModel):
        updates = getattr(model.inner, "updates", None)
        if not isinstance(updates, nn.ModuleDict):
            raise UserError(
                f"{type(model).__name__} does not report its inner updates, so only whole steps can be traced. "
                "Leave trace_inner=false."
            )
        self._modules: dict[str, nn.Module] = dict(updates.items())
        self._handles: list[RemovableHandle] = []
        self._found: list[Update] = []

    def __enter__(self) -> Self:
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, name: str):
        def hook(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            self._found.append(Update(name, output.detach()))

        return hook

    def take(self) -> list[Update]:
        """The updates since the last call, in order."""
        found, self._found = self._found, []
        return found
