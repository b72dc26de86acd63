"""What the evaluators of single-answer puzzles share: shares of the examples, summed over batches and ranks."""

from typing import ClassVar

import numpy as np
import torch
import torch.distributed as dist

from dataset.shards import PuzzleDatasetMetadata


class CountingEvaluator:
    """Reports, for each of `metrics`, the share of examples that `judge` finds true, as `<class name>/<metric>`.

    A subclass declares `metrics` and writes `judge`. Rows whose inputs are padding throughout fill up the last batch
    and do not count.
    """

    required_outputs: ClassVar[set[str]] = {"inputs", "preds"}
    metrics: ClassVar[tuple[str, ...]] = ()

    def __init__(self, data_path: str, eval_metadata: PuzzleDatasetMetadata):
        self.data_path = data_path
        self.metadata = eval_metadata
        self.begin_eval()

    def begin_eval(self) -> None:
        """Forget what was counted."""
        self._counts = np.zeros(1 + len(self.metrics), np.int64)  # examples, then one count per metric

    def update_batch(self, batch: dict[str, torch.Tensor], preds: dict[str, torch.Tensor]) -> None:
        """Count one batch: `batch["inputs"]` and `preds["preds"]`, tokens [n, seq_len]."""
        inputs, predicted = batch["inputs"].cpu().numpy(), preds["preds"].cpu().numpy()
        real = (inputs != self.metadata.pad_id).any(axis=1)
        judged = self.judge(inputs[real], predicted[real])
        self._counts += [int(real.sum()), *(int(judged[metric].sum()) for metric in self.metrics)]

    def judge(self, inputs: np.ndarray, preds: np.ndarray) -> dict[str, np.ndarray]:
        """For each of `metrics`, bool [n]: whether it holds of the predictions [n, seq_len]."""
        raise NotImplementedError

    def result(
        self, save_path: str | None, rank: int, world_size: int, group: dist.ProcessGroup | None = None
    ) -> dict[str, float] | None:
        """Shares over the examples of all ranks, on rank 0 (elsewhere None); empty where there was no example.

        Args:
            save_path: not used, nothing is saved.
            rank: of this process.
            world_size: number of processes; with one, torch.distributed is not needed.
            group: processes to sum over; all if None.
        """
        counts = self._counts
        if world_size > 1:
            # NCCL sums on GPUs only.
            device = "cuda" if dist.get_backend(group) == "nccl" else "cpu"
            total = torch.from_numpy(counts).to(device, copy=True)
            dist.all_reduce(total, group=group)
            counts = total.cpu().numpy()
        if rank != 0:
            return None
        examples, *true = counts.tolist()
        name = type(self).__name__
        return {f"{name}/{metric}": n / examples for metric, n in zip(self.metrics, true, strict=True) if examples}
