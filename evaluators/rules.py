"""Checks answers by the rules of their task: means over the examples, over all batches and ranks."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.distributed as dist

from dataset.tasks.task import Task


class Rules:
    """Reports, as `<title>/<column>`, the mean of each of `task.columns()` over the examples (see `task.judge`).

    Rows whose inputs are all padding fill up the last batch and do not count.

    Args:
        task: the task at the size of the data set.
        pad_id: the padding token.
    """

    required_outputs: ClassVar[set[str]] = {"inputs", "labels", "preds"}

    def __init__(self, task: Task, pad_id: int):
        self.task, self.pad_id = task, pad_id
        self.begin_eval()

    def begin_eval(self) -> None:
        """Reset the counts."""
        self._sums = np.zeros(1 + len(self.task.columns()))  # examples, then one sum per column; fp64 counts exactly

    def update_batch(self, batch: dict[str, torch.Tensor], preds: dict[str, torch.Tensor]) -> None:
        """Count one batch: `batch["inputs"]`, `batch["labels"]` and `preds["preds"]`, tokens [n, seq_len]."""
        inputs, predicted = batch["inputs"].cpu().numpy(), preds["preds"].cpu().numpy()
        real = (inputs != self.pad_id).any(axis=1)
        labels = batch["labels"].cpu().numpy().clip(0) if "labels" in batch else np.zeros_like(inputs)
        judged = self.task.judge(inputs[real], predicted[real], labels[real])
        self._sums += [real.sum(), *(judged[name].sum() for name in self.task.columns())]

    def state(self) -> dict[str, np.ndarray]:
        """The counts of this evaluation so far, as arrays for a file."""
        return {"counts": self._sums.copy()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from the counts that `state` has returned."""
        self._sums = state["counts"].copy()

    def result(
        self, save_path: str | None, rank: int, world_size: int, group: dist.ProcessGroup | None = None
    ) -> dict[str, float] | None:
        """Shares over the examples of all ranks, on rank 0 (elsewhere None); empty if there was no example.

        Args:
            save_path: not used; nothing is saved.
            rank: rank of this process.
            world_size: number of processes; with one, torch.distributed is not needed.
            group: processes to sum over; all if None.
        """
        sums = self._sums
        if world_size > 1:
            # NCCL sums on GPUs only.
            device = "cuda" if dist.get_backend(group) == "nccl" else "cpu"
            total = torch.from_numpy(sums).to(device, copy=True)
            dist.all_reduce(total, group=group)
            sums = total.cpu().numpy()
        if rank != 0:
            return None
        examples, *passed = sums.tolist()
        title = self.task.title
        return {
            f"{title}/{name}": n / examples for name, n in zip(self.task.columns(), passed, strict=True) if examples
        }
