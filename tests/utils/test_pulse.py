"""A rank without signs of life is named with what it was doing, by the ranks that watch it."""

import sys
import time
from contextlib import ExitStack

import pytest
from torch.distributed import HashStore

from utils import pulse
from utils.distributed import Ranks
from utils.pulse import Pulse

SILENCE = 1.0


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The messages with which a rank would have ended its process."""
    messages: list[str] = []
    monkeypatch.setattr(pulse, "_end", messages.append)
    return messages


def wait_for(messages: list[str]) -> None:
    for _ in range(200):
        if messages:
            break
        time.sleep(0.05)


@pytest.mark.parametrize("frozen", [0, 2])
def test_a_silent_rank_is_named(ended: list[str], frozen: int):
    store = HashStore()
    began = time.monotonic()
    with ExitStack() as living:
        for rank in {0, 1, 2} - {frozen}:
            living.enter_context(Pulse(store, Ranks(rank, 3), SILENCE, lambda: 17))
        store.set(
            f"pulse/{frozen}", '{"beat": 9, "host": "node", "pid": 5, "at": [16, "forward (models/layers.py:3)"]}'
        )
        wait_for(ended)
    assert time.monotonic() - began >= SILENCE
    assert f"rank {frozen} has given no sign of life" in ended[0]
    assert ended[0].endswith("s: process 5 on node, step 16, in forward (models/layers.py:3).")
    assert all(f"rank {frozen} " in message for message in ended)  # the others end with the same message


@pytest.mark.thorough
def test_ranks_that_live_or_have_ended_are_left_alone(ended: list[str]):
    store = HashStore()
    with Pulse(store, Ranks(0, 2), SILENCE, lambda: 1):
        with Pulse(store, Ranks(1, 2), SILENCE, lambda: 1):
            time.sleep(1.5 * SILENCE)
        time.sleep(1.5 * SILENCE)
    assert ended == []
    assert store.get("pulse/1") == b'{"state": "done"}'


def test_the_place_is_the_innermost_line_of_this_repository():
    assert pulse._place(sys._getframe()).startswith(
        "test_the_place_is_the_innermost_line_of_this_repository (tests/utils/test_pulse.py:"
    )
    assert pulse._place(None) == "code outside this repository"
