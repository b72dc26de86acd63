"""Signs of life of all ranks: one that is frozen is noticed within minutes, and named with what it was doing."""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from torch.distributed import Store

from utils.distributed import COLLECTIVE, Ranks
from utils.exit_status import LOST

_REPOSITORY = str(Path(__file__).resolve().parents[1]) + os.sep
_OVER = "over"  # key under which a rank that ends the run says why
_DONE = "done"


class Pulse:
    """Writes a sign of life of this rank to the store every few seconds, and watches those of others.

    Rank 0 watches all ranks, and the others watch rank 0. A rank without a sign of life for `silence` seconds is named
    with its host, its process, its step and the line at which it was, and then all ranks end with status `LOST`, so
    that a launcher may start them again.

    Args:
        store: a connection for this object alone.
        ranks: the rank of this process.
        silence: see above, in seconds.
        step: gives the step that this rank has launched last.
    """

    def __init__(self, store: Store, ranks: Ranks, silence: float, step: Callable[[], int]):
        self._store, self._ranks, self._silence, self._step = store, ranks, silence, step
        self._period = min(5.0, silence / 6)
        self._watched = range(1, ranks.world_size) if ranks.is_main else range(1)
        self._over = threading.Event()
        self._main = threading.main_thread().ident
        self._beats = 0
        self._last: dict[int, dict[str, Any]] = {}  # the last sign of life of each rank
        self._heard: dict[int, float] = {}  # when it came
        self._places: tuple[dict[int, Any], float] = ({}, 0.0)  # where all ranks are, and since when
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def __enter__(self) -> "Pulse":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join(self._period)
        if kind is not None and issubclass(kind, RuntimeError) and self._last:
            print(self._report("where the ranks were"), file=sys.stderr, flush=True)

    def _run(self) -> None:
        try:
            looked = time.monotonic()
            while not self._over.wait(self._period):
                now = time.monotonic()
                if now - looked > 3 * self._period:
                    self._heard = dict.fromkeys(self._heard, now)  # this process was suspended itself
                looked = now
                self._beat(now)
            self._store.set(f"pulse/{self._ranks.rank}", json.dumps({"state": _DONE}))
        except RuntimeError:
            pass  # the store has gone with its launcher, which `StopSignals` notices

    def _beat(self, now: float) -> None:
        self._beats += 1
        mine = {
            "beat": self._beats,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "at": [self._step(), _place(sys._current_frames().get(self._main or 0))],
        }
        self._store.set(f"pulse/{self._ranks.rank}", json.dumps(mine))
        if self._store.check([_OVER]):
            _end(self._store.get(_OVER).decode())
        for rank in self._watched:
            key = f"pulse/{rank}"
            sign = json.loads(self._store.get(key)) if self._store.check([key]) else {}
            if sign != self._last.get(rank) or sign.get("state") == _DONE:
                self._last[rank], self._heard[rank] = sign, now
            elif now - self._heard[rank] > self._silence:
                message = (
                    f"rank {rank} has given no sign of life for {now - self._heard[rank]:.0f} s: {_describe(sign)}."
                )
                self._store.set(_OVER, message)
                _end(message)
        self._note_standstill(mine, now)

    def _note_standstill(self, mine: dict[str, Any], now: float) -> None:
        """Say once where all ranks are if none has moved for almost as long as a collective may take."""
        if not self._ranks.is_main:
            return
        places = {rank: sign.get("at") for rank, sign in self._last.items()} | {0: mine["at"]}
        if places != self._places[0]:
            self._places = places, now
        elif 0 < self._places[1] < now - 0.8 * COLLECTIVE.total_seconds():
            self._places = places, -1.0
            self._last[0] = mine
            print(self._report("no rank has moved for minutes"), file=sys.stderr, flush=True)

    def _report(self, title: str) -> str:
        return "\n".join(
            [f"\n{title}:", *(f"  rank {rank}: {_describe(self._last[rank])}" for rank in sorted(self._last))]
        )


def _describe(sign: dict[str, Any]) -> str:
    if sign.get("state") == _DONE:
        return "it has ended"
    if "pid" not in sign:
        return "it has never given one"
    step, place = sign["at"]
    return f"process {sign['pid']} on {sign['host']}, step {step}, in {place}"


def _place(frame: FrameType | None) -> str:
    """The innermost function of this repository in a stack, such as `launch_step (models/training.py:142)`."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_REPOSITORY) and "site-packages" not in file:
            return f"{frame.f_code.co_name} ({file.removeprefix(_REPOSITORY)}:{frame.f_lineno})"
        frame = frame.f_back
    return "code outside this repository"


def _end(message: str) -> None:
    try:
        print(
            f"\n{message} Ending this run; load_checkpoint=latest goes on from its last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
    finally:
        os._exit(LOST)
