"""Training batches on the device: gathered from resident tokens if they fit, else loaded ahead of the step."""

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dataset.puzzle_dataset import TrainBatches
from utils.constants import IGNORE_LABEL_ID
from utils.errors import UserError
from utils.machine import to_device
from utils.stop_signals import outlive_stop_signals

_SHARE = 4  # `auto` uses at most 1 / _SHARE of the free memory
_BYTES_AT_ONCE = 1 << 26  # size of the parts that are copied to the device


def device_batches(
    batches: TrainBatches, steps: Iterable[int], device: torch.device, resident: bool, workers: int
) -> Iterator[dict[str, Tensor]]:
    """The batches of `steps` as tensors on `device`, with the same bits whether `resident` or not.

    Args:
        batches: the training batches.
        steps: steps to yield batches for, in this order.
        device: device of the result.
        resident: keep all tokens on the device, and gather and augment each batch there; otherwise load and augment
            it on the host.
        workers: number of processes that load ahead if not resident.
    """
    if resident:
        tokens = ResidentTokens(batches, device)
        for step in steps:
            yield tokens.batch(step)
        return
    loader = DataLoader(
        batches,  # pyright: ignore[reportArgumentType]  # a map-style data set whose keys are steps
        sampler=steps,
        batch_size=None,
        num_workers=workers,
        worker_init_fn=outlive_stop_signals,
        pin_memory=device.type == "cuda",
    )
    for batch in loader:
        yield {key: value.to(device, non_blocking=True) for key, value in batch.items()}


class ResidentTokens:
    """Holds all examples of a `TrainBatches` on a device and gathers its batches there."""

    def __init__(self, batches: TrainBatches, device: torch.device):
        """Copy the examples to `device`, in parts."""
        self.batches, self.device = batches, device
        total, dtype = sum(len(shard.inputs) for shard, _ in batches.shards), _token_dtype(batches)
        self._columns: dict[str, Tensor] = {}
        first = 0
        for shard, source in batches.shards:
            rows = max(1, _BYTES_AT_ONCE // (batches.split.metadata.seq_len * shard.inputs.itemsize))
            puzzles = np.repeat(np.arange(len(shard.puzzle_identifiers)), np.diff(shard.puzzle_indices))
            ids = source.table_ids[shard.puzzle_identifiers[puzzles]]
            ignored = source.metadata.ignore_label_id
            for start in range(0, len(shard.inputs), rows):
                part = slice(start, start + rows)
                inputs, labels = (tokens[part].astype(dtype) for tokens in (shard.inputs, shard.labels))
                moved = {"inputs": inputs, "labels": labels, "puzzle_identifiers": ids[part]}
                moved["ignored"] = np.full(len(inputs), IGNORE_LABEL_ID if ignored is None else ignored, np.int32)
                if batches.augmentation is not None:
                    prepared = batches.augmentation.prepare(inputs, labels)
                    if prepared is not None:
                        moved["prepared"] = prepared
                for name, values in moved.items():
                    new = torch.from_numpy(values)
                    if name not in self._columns:
                        self._columns[name] = torch.empty(total, *new.shape[1:], dtype=new.dtype, device=device)
                    self._columns[name][first : first + len(new)] = new
                first += len(inputs)

    def batch(self, step: int) -> dict[str, Tensor]:
        """The batch of `step`, bit for bit the same as that of the `TrainBatches`."""
        examples = to_device(torch.from_numpy(self.batches.examples(step)), self.device)
        rows = {name: values[examples] for name, values in self._columns.items()}
        labels = rows["labels"].int()
        labels = labels.masked_fill(labels == rows["ignored"][:, None], IGNORE_LABEL_ID)
        inputs, labels = self.batches.augmented(step, rows["inputs"].int(), labels, rows.get("prepared"))
        return {"inputs": inputs, "labels": labels, "puzzle_identifiers": rows["puzzle_identifiers"]}


def stays_on_device(setting: bool | Literal["auto"], batches: TrainBatches, device: torch.device) -> tuple[bool, str]:
    """(whether to keep the tokens on the device, reason). `auto`: on CUDA, if a quarter of the free memory is enough.

    Raises:
        UserError: the setting is True, but the tokens do not fit.
    """
    if setting is False:
        return False, "as asked"
    if device.type != "cuda":
        return setting is True, "as asked" if setting is True else f"the host's memory serves {device.type} as well"
    need, free = bytes_of(batches), torch.cuda.mem_get_info(device)[0]
    sizes = f"{need / 2**30:.2f} of {free / 2**30:.2f} GiB free"
    if setting is True and need > free:
        raise UserError(f"data_on_device=true: the training data takes {sizes} there. Use data_on_device=false.")
    return setting is True or need * _SHARE <= free, sizes


def bytes_of(batches: TrainBatches) -> int:
    """Device memory that the tokens of `batches` need, in bytes."""
    examples = sum(len(shard.inputs) for shard, _ in batches.shards)
    width = np.dtype(_token_dtype(batches)).itemsize
    prepared = batches.augmentation is not None and batches.augmentation.prepares
    return examples * (batches.split.metadata.seq_len * (2 * width + prepared) + 8)


def _token_dtype(batches: TrainBatches) -> type[np.integer]:
    """uint8, as the builders write it, or int32 if any shard has another dtype."""
    return np.uint8 if all(t.dtype == np.uint8 for s, _ in batches.shards for t in (s.inputs, s.labels)) else np.int32
