"""Training batches of text on the device, each used for a fixed number of optimizer steps."""

import os
from collections.abc import Iterable, Iterator
from itertools import count

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from dataset.text.batches import Position, TextBatches
from utils.stop_signals import outlive_stop_signals


def text_feed(
    batches: TextBatches, steps: range, keep: int, device: torch.device, workers: int
) -> Iterator[tuple[int, dict[str, Tensor], Position]]:
    """(step, batch, position) for every step, as from `kept_batches`, with batches loaded ahead.

    Args:
        batches: the training batches, positioned at the first step.
        steps, keep, device: see `kept_batches`.
        workers: number of processes that load ahead. The batches are the same for any number. Each process packs all
            documents, because where a batch begins depends on those before it, and fetches the tokens of its own
            batches only. With streaming it must also tokenise all documents, so more than one does not pay.
    """
    start = batches.state_dict()
    loader = DataLoader(
        _Endless(batches),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_start_worker,
        pin_memory=device.type == "cuda",
    )
    return kept_batches(loader, start, steps, keep, device)


def kept_batches(
    loader: Iterable[tuple[dict[str, Tensor], Position]],
    start: Position,
    steps: range,
    keep: int,
    device: torch.device,
) -> Iterator[tuple[int, dict[str, Tensor], Position]]:
    """(step, batch, position) for every step; each batch is used for `keep` steps.

    The position is the one from which to resume after this step: before the batch if more steps on it follow, else
    after it.

    Args:
        loader: pairs of a batch and the position after it.
        start: the position before the first batch.
        steps: optimizer steps, counted from 1; the first may be in the middle of a batch.
        keep: number of steps on each batch.
        device: device for the batches.
    """
    batches = iter(loader)
    batch: dict[str, Tensor] = {}
    position = after = start
    for step in steps:
        if not batch or (step - 1) % keep == 0:
            tensors, after = next(batches)
            batch = {name: value.to(device, non_blocking=True) for name, value in tensors.items()}
        if step % keep == 0:
            position = after
        yield step, batch, position


class _Endless(IterableDataset):
    """`TextBatches` as an iterable data set for a DataLoader.

    A DataLoader takes from its workers in turn, so worker i of n yields batches i, i + n, i + 2 n, ...
    """

    def __init__(self, batches: TextBatches):
        self.batches = batches

    def __iter__(self) -> Iterator[tuple[dict[str, np.ndarray], Position]]:
        worker = get_worker_info()
        mine, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number in count():
            if number % workers == mine:
                yield next(self.batches)
            else:
                self.batches.skip()


def _start_worker(worker: int) -> None:
    """Prepare a process that loads data: the tokenizers library warns about threads after a fork, so it gets one."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    outlive_stop_signals(worker)
