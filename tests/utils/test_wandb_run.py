"""W&B that cannot be reached, fails or hangs: at the start, in the middle and at the end."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb

from utils import wandb_run
from utils.wandb_run import WandbRun

SETTINGS = {"project": "p", "dir": "runs/mine"}


class Service:
    """W&B as far as it is called here: each function of `broken` is called in the place of what it is named after."""

    def __init__(self, **broken: Callable[..., Any]):
        self.broken, self.calls = broken, list[Any]()
        self.settings = wandb.Settings()

    def init(self, mode: str, **settings: Any) -> "Service":
        if mode == "online" and "init" in self.broken:
            self.broken["init"]()
        self.calls.append((mode, settings["project"]))
        return self

    def log(self, values: dict[str, Any], step: int) -> None:
        self.calls.append((step, values))
        self.broken.get("log", lambda: None)()

    def finish(self, exit_code: int) -> None:
        self.broken.get("finish", lambda: None)()
        self.calls.append(exit_code)


def fail() -> None:
    raise ConnectionResetError("Connection lost")


def leave() -> None:
    raise SystemExit(1)


def hang() -> None:
    threading.Event().wait(5)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[WandbRun, Service, list[str]]]:
    for name in ("START_SECONDS", "FINISH_SECONDS", "FULL_SECONDS"):
        monkeypatch.setattr(wandb_run, name, 0.1)
    monkeypatch.setattr(wandb_run, "_stop_service", lambda: None)

    def start(mode: Any = "online", **broken: Callable[..., Any]) -> tuple[WandbRun, Service, list[str]]:
        service, said = Service(**broken), list[str]()
        monkeypatch.setattr(wandb, "init", service.init)
        return WandbRun(mode, SETTINGS, said.append), service, said

    return start


def test_calls_are_made_in_order(run: Any):
    log, service, said = run()
    for step in range(3):
        log.log({"x": step}, step)
    log.finish(failed=True)
    assert service.calls == [("online", "p"), *((step, {"x": step}) for step in range(3)), 1]
    assert said == []


@pytest.mark.parametrize(
    ("broken", "reason"),
    [(fail, "Connection lost"), (leave, "1"), (hang, "no answer within 0 seconds")],
    ids=["error", "exit", "no answer"],
)
def test_at_the_start_the_run_is_recorded_offline(run: Any, broken: Callable[..., Any], reason: str):
    log, service, said = run(init=broken)
    log.log({"x": 1}, 1)
    log.finish(failed=False)
    assert service.calls == [("offline", "p"), (1, {"x": 1}), 0]
    assert said[0] == f"W&B cannot be used now ({reason}): the run is recorded offline."
    assert said[1].startswith("Upload it later with: wandb sync ")
    assert len(said) == 2


@pytest.mark.parametrize("broken", [fail, leave, hang])
def test_in_the_middle_it_is_said_once_with_the_command_that_uploads_later(run: Any, broken: Callable[..., Any]):
    log, service, said = run(log=broken)
    for step in range(50):
        log.log({"x": step}, step)
    log.finish(failed=False)
    log.finish(failed=False)
    assert service.calls == [("online", "p"), (0, {"x": 0})]
    (line,) = said
    assert line.startswith("W&B has failed (")
    assert "training goes on, and metrics.jsonl holds every step. Upload what W&B has recorded with: wandb sync" in line


def test_a_process_that_takes_nothing_is_not_waited_for_more_than_once(run: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wandb_run, "_WAITING", 3)
    log, _, said = run(log=hang)
    for step in range(1000):
        log.log({"x": step}, step)
    assert len(said) == 1
    assert "W&B has failed (it has taken nothing for 0 seconds)" in said[0]


@pytest.mark.parametrize("broken", [fail, hang])
def test_at_the_end_the_run_ends_all_the_same(run: Any, broken: Callable[..., Any]):
    log, _, said = run(finish=broken)
    log.log({"x": 1}, 1)
    log.finish(failed=False)
    assert len(said) == 1
    assert "Upload what W&B has recorded with: wandb sync" in said[0]


def test_without_w_and_b_nothing_is_called(run: Any):
    log, service, said = run("disabled")
    log.log({"x": 1}, 1)
    log.picture("example", Path("nowhere.png"), 1)
    log.finish(failed=False)
    assert service.calls == said == []


def test_an_empty_mode_in_the_environment_is_none(run: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "")
    run("offline")
    assert "WANDB_MODE" not in os.environ
