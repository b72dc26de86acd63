"""Signals end a run after its step, a second one at once, and the end of the launcher as a signal does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.structure import ROOT
from utils import stop_signals
from utils.exit_status import LOST, STOPPED
from utils.stop_signals import SIGNALS, StopSignals

# the main thread waits outside Python, as in a collective, so Python does not come to run a handler (on Linux)
WAIT = """
import ctypes, time
from utils import stop_signals
from utils.stop_signals import StopSignals
stop_signals._SAME = 0.0
with StopSignals(False, lambda what: print(what, flush=True)) as signals:
    signals.enter_loop()
    print("ready", flush=True)
    mutex = ctypes.create_string_buffer(64)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
    time.sleep(60)
"""


def received(signals: StopSignals) -> str | None:
    for _ in range(200):
        if signals.received:
            break
        time.sleep(0.01)
    return signals.received


@pytest.mark.parametrize("number", SIGNALS)
def test_in_the_loop_a_signal_is_noted_and_its_echo_belongs_to_it(number: int):
    before, told = signal.getsignal(number), list[str]()
    with StopSignals(launched=True, on_stop=told.append) as signals:
        signals.enter_loop()
        assert signals.received is None
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert received(signals) in (signal.Signals(number).name, "SIGTERM")
    assert told == [signals.received]
    assert signal.getsignal(number) is before


def test_before_the_loop_a_signal_ends_the_program():
    def wait() -> None:
        with StopSignals(launched=False, on_stop=lambda _: None):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(SystemExit) as ended:
        wait()
    assert ended.value.code == STOPPED


@contextmanager
def waiting() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", WAIT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_signal_ends_the_process_at_once():
    with waiting() as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "SIGTERM\n"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == STOPPED


def test_the_end_of_the_launcher_ends_the_run(monkeypatch: pytest.MonkeyPatch):
    ended: list[int] = []

    def end(message: str, status: int) -> None:
        ended.append(status)

    monkeypatch.setattr(stop_signals, "_end", end)
    monkeypatch.setattr(stop_signals, "_PERIOD", 0.01)
    monkeypatch.setattr(stop_signals.os, "getppid", iter([1, *[2] * 10_000]).__next__)
    with StopSignals(launched=True, on_stop=lambda _: None) as signals:
        signals.enter_loop()
        assert received(signals) == "the end of the launcher"
        assert ended == []  # it has time for a checkpoint
        monkeypatch.setattr(stop_signals, "_ORPHANED", 0.0)
        for _ in range(100):
            if ended:
                break
            time.sleep(0.01)
    assert ended[0] == LOST


def test_a_run_whose_launcher_ended_before_it_began_ends_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    ended: list[int] = []
    monkeypatch.setattr(stop_signals, "_end", lambda message, status: ended.append(status))
    monkeypatch.setattr(stop_signals.os, "getppid", lambda: 1)
    # in a container the launcher itself may be the first process
    for number, (first, launched) in enumerate((("systemd\n", True), ("torchrun\n", True), ("systemd\n", False))):
        (tmp_path / "comm").write_text(first)
        monkeypatch.setattr(stop_signals, "_FIRST", tmp_path / "comm")
        StopSignals(launched, on_stop=lambda _: None)
        assert len(ended) == 1, number
    monkeypatch.setattr(stop_signals, "_FIRST", tmp_path / "missing")
    StopSignals(launched=True, on_stop=lambda _: None)
    assert ended == [LOST, LOST]
