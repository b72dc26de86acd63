"""An evaluation that is interrupted goes on where it was: what each rank has so far lies in a file of its own."""

import hashlib
import json
import time
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from utils.atomic_file import replacing
from utils.distributed import Ranks

FOLDER = "unfinished"  # in the folder of the results
_SECONDS = 60.0  # between two files; more if writing them takes long
_SHARE = 20  # writing takes at most one part of the time in this many


@runtime_checkable
class Resumable(Protocol):
    """An evaluator that can go on from a state."""

    def state(self) -> dict[str, np.ndarray]: ...

    def load_state(self, state: dict[str, np.ndarray]) -> None: ...


@dataclass(frozen=True)
class Unfinished:
    """Where an evaluation keeps what it has so far, and by what it recognises it.

    A file counts only if the same evaluation has written it: the same weights, data and settings, on as many processes.

    Attributes:
        folder: the folder of the results.
        evaluation: all that the results depend on, as JSON has it.
        ranks: the rank of this process.
        seconds: time between two files.
        goes_on: whether files that are there already count.
    """

    folder: Path
    evaluation: Any
    ranks: Ranks
    seconds: float = _SECONDS
    goes_on: bool = True

    def of_set(self, name: str) -> "UnfinishedSet":
        """Of one set of the data."""
        text = json.dumps([self.evaluation, self.ranks.world_size, name], sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()
        file = f"{name.replace('/', '-')}.{self.ranks.rank}.npz"
        return UnfinishedSet(self.folder / FOLDER / file, digest, self.seconds, self.goes_on)

    def remove(self) -> None:
        """Remove the files, since the results are there."""
        for path in (self.folder / FOLDER).glob("*.npz"):
            path.unlink()
        if (self.folder / FOLDER).is_dir():
            (self.folder / FOLDER).rmdir()


class UnfinishedSet:
    """What one rank has of the evaluation of one set: its batches are done in order, so their number says which."""

    def __init__(self, path: Path, digest: str, seconds: float, goes_on: bool):
        self._path, self._digest, self._seconds, self._goes_on = path, digest, seconds, goes_on
        self._next = time.monotonic() + seconds

    def load(self, evaluators: Sequence[Resumable], device: torch.device) -> tuple[int, dict[str, Tensor]]:
        """Give the evaluators their states: (number of batches that are done, the sums of their scores).

        A file that is damaged or of another evaluation is ignored: (0, {}).
        """
        if not self._goes_on:
            return 0, {}
        try:
            with self._path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                if str(file["digest"]) != self._digest:
                    return 0, {}
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return 0, {}
        for index, evaluator in enumerate(evaluators):
            prefix = f"evaluator/{index}/"
            evaluator.load_state({k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})
        sums = {k.removeprefix("sum/"): torch.from_numpy(v).to(device) for k, v in arrays.items() if k[:4] == "sum/"}
        return int(arrays["batches"]), sums

    def save(self, batches: int, sums: dict[str, Tensor], evaluators: Sequence[Resumable], last: bool = False) -> None:
        """Write the file if the last one is old enough, or if the evaluation is about to end here."""
        began = time.monotonic()
        if began < self._next and not last:
            return
        arrays = {"digest": np.array(self._digest), "batches": np.array(batches)}
        arrays |= {f"sum/{name}": value.cpu().numpy() for name, value in sums.items()}
        for index, evaluator in enumerate(evaluators):
            arrays |= {f"evaluator/{index}/{name}": value for name, value in evaluator.state().items()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]  # names of arrays, none is an option
        now = time.monotonic()
        self._next = now + max(self._seconds, _SHARE * (now - began))
