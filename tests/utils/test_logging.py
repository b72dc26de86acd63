"""The log of a run: what a resumed run cuts off, what the files hold, and whether W&B is used."""

import errno
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from utils.errors import UserError
from utils.logging import METRICS_FILE, PERF_FILE, RunLog, choose_wandb_mode, new_wandb_id


def open_log(folder: Path, first_step: int = 1) -> RunLog:
    return RunLog(folder, first_step, 10, {}, "project", "name", "id", "disabled", {"loss": "train/lm_loss"})


def write(folder: Path, first: int, last: int, slow: bool = False) -> None:
    log = open_log(folder, first)
    for step in range(first, last + 1):
        metrics = {"train/lm_loss": 1 / step} | ({"train/exact_accuracy": 0.5} if step % 2 else {})
        log.step(step, metrics, {"perf/examples_per_second": 1000.0 / (1 + slow), "perf/step_ms": step + slow})
    log.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_line_a_step(tmp_path: Path):
    write(tmp_path, 1, 3)
    assert lines(tmp_path / METRICS_FILE) == [
        {"step": 1, "train/lm_loss": 1.0, "train/exact_accuracy": 0.5},
        {"step": 2, "train/lm_loss": 0.5},
        {"step": 3, "train/lm_loss": 1 / 3, "train/exact_accuracy": 0.5},
    ]
    assert lines(tmp_path / PERF_FILE)[2] == {"step": 3, "perf/examples_per_second": 1000.0, "perf/step_ms": 3}


def test_metrics_do_not_depend_on_the_time_it_took(tmp_path: Path):
    for name, slow in (("fast", False), ("slow", True)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, 1, 5, slow)
    assert (tmp_path / "fast" / METRICS_FILE).read_bytes() == (tmp_path / "slow" / METRICS_FILE).read_bytes()
    assert (tmp_path / "fast" / PERF_FILE).read_bytes() != (tmp_path / "slow" / PERF_FILE).read_bytes()


@pytest.mark.parametrize("reached", [4, 6, 9])
@pytest.mark.parametrize("half", ["", '{"step": 3, "tr', '{"step": 3}', '{"step": 99}\n', "\x00\x00\n", "[3]\n", "3\n"])
def test_an_interrupted_log_goes_on_as_if_it_had_not_been(tmp_path: Path, reached: int, half: str):
    write(tmp_path, 1, 8)
    whole = {name: (tmp_path / name).read_bytes() for name in (METRICS_FILE, PERF_FILE)}
    write(tmp_path, 1, reached)
    for name in whole:
        with (tmp_path / name).open("a") as file:
            file.write(half)
    write(tmp_path, 5, 8)
    assert {name: (tmp_path / name).read_bytes() for name in whole} == whole
    assert {path.name for path in tmp_path.iterdir()} == {METRICS_FILE, PERF_FILE}


def test_lines_are_there_at_once(tmp_path: Path):
    log = open_log(tmp_path)
    log.step(1, {"train/lm_loss": 2.0}, {})
    assert lines(tmp_path / METRICS_FILE) == [{"step": 1, "train/lm_loss": 2.0}]
    log.close()


def test_the_bar_starts_where_the_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    write(tmp_path, 8, 10)
    text = screen.getvalue()
    assert "7/10" in text
    assert "10/10" in text


def test_the_log_speaks_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = open_log(tmp_path)
    log.say("a picture of it")
    log.picture("example", tmp_path / "nowhere.png", 1)  # without W&B nothing is read
    log.close()
    assert "a picture of it" in capsys.readouterr().out


# -- W&B ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_DIR", "NETRC"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_without_a_login_it_is_disabled(tmp_path: Path):
    assert choose_wandb_mode(None)[0] == "disabled"
    (tmp_path / ".netrc").write_text("machine github.com\n  login x\n  password y\n")
    assert choose_wandb_mode(None)[0] == "disabled"
    (tmp_path / ".netrc").unlink()
    (tmp_path / ".netrc").mkdir()
    assert choose_wandb_mode(None)[0] == "disabled"


def test_a_key_is_a_login(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert choose_wandb_mode(None) == ("online", "logged in")
    monkeypatch.setenv("WANDB_API_KEY", "")
    assert choose_wandb_mode(None)[0] == "disabled"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_entry_in_netrc_is_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool):
    netrc = tmp_path / ("logins" if elsewhere else ".netrc")
    netrc.write_bytes(b"# \xff\nmachine api.wandb.ai\n  login user\n  password x\n")
    if elsewhere:
        assert choose_wandb_mode(None)[0] == "disabled"
        monkeypatch.setenv("NETRC", str(netrc))
    assert choose_wandb_mode(None) == ("online", "logged in")


@pytest.mark.parametrize("mode", ["online", "offline", "disabled"])
def test_the_environment_goes_before_the_login(monkeypatch: pytest.MonkeyPatch, mode: str):
    monkeypatch.setenv("WANDB_API_KEY", "x")
    monkeypatch.setenv("WANDB_MODE", mode)
    assert choose_wandb_mode(None) == (mode, "WANDB_MODE")


def test_the_configuration_goes_before_all(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_API_KEY", "x")
    monkeypatch.setenv("WANDB_MODE", "online")
    assert choose_wandb_mode("offline") == ("offline", "as configured")


def test_other_modes_in_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert choose_wandb_mode(None) == ("offline", "WANDB_MODE")
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(UserError, match="WANDB_MODE='sometimes': allowed are dryrun, online, offline, disabled"):
        choose_wandb_mode(None)


def test_what_is_handed_to_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import wandb

    calls: list[Any] = []

    class Run:
        def log(self, values: dict[str, Any], step: int | None = None) -> None:
            calls.append((step, values))

        def finish(self, exit_code: int) -> None:
            calls.append(f"finished with {exit_code}")

    def init(**settings: Any) -> Run:
        calls.append(settings)
        return Run()

    monkeypatch.setattr(wandb, "init", init)
    log = RunLog(tmp_path, 4, 10, {"lr": 1}, "project", "name", "12ab", "offline", {})
    log.step(4, {"train/lm_loss": 2.0}, {"perf/step_ms": 3.0})
    log.close()
    settings, line, end = calls
    run = {"project": "project", "name": "name", "id": "12ab", "resume": "allow", "settings": {"init_timeout": 30.0}}
    assert settings == {**run, "mode": "offline", "config": {"lr": 1}, "dir": str(tmp_path)}
    assert line == (4, {"train/lm_loss": 2.0, "perf/step_ms": 3.0})
    assert end == "finished with 0"
    with pytest.raises(UserError), RunLog(tmp_path, 5, 10, {}, "project", "name", "12ab", "offline", {}):
        raise UserError("the loss is not a number")
    assert calls[-1] == "finished with 1"


def test_wandb_ids_differ(monkeypatch: pytest.MonkeyPatch):
    assert len({new_wandb_id() for _ in range(100)}) == 100
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    assert new_wandb_id() == "mine"


# -- damaged files, full disks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: [*lines[:2], b"\xff\x00garbage\n", *lines[3:]], "(3)"),
        (lambda lines: lines[2:5], "(1 to 2, 6)"),
        (lambda lines: [*lines, *lines[2:4]], None),  # written a second time
        (lambda lines: [], "(1 to 6)"),
        (lambda lines: [*lines[:5], lines[5][:-1]], "(6)"),
        (lambda lines: [b'{"step": "1"}\n', b'{"step": 1.0}\n', b"[" * 100_000 + b"\n", *lines], None),
    ],
)
def test_missing_steps_are_told_and_damaged_lines_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[list[bytes]], list[bytes]], said: str | None
):
    write(tmp_path, 1, 6)
    path = tmp_path / METRICS_FILE
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(damage(whole)))
    kept = [line for line in damage(whole)[:6] if line in whole] if said else whole
    write(tmp_path, 7, 8)
    assert path.read_bytes().splitlines(keepends=True)[:-2] == kept
    out = capsys.readouterr().out
    assert (f"metrics.jsonl lacks steps that have been made {said}" in out) if said else ("lacks" not in out)


def test_a_log_that_is_missing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path, 7, 8)
    assert "metrics.jsonl is missing, so it begins with step 7 now" in capsys.readouterr().out


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_line_that_cannot_be_written_ends_in_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int):
    log = open_log(tmp_path)
    log.step(1, {"train/lm_loss": 2.0}, {})

    def full(file: object, values: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("utils.logging._write_line", full)
    with pytest.raises(UserError, match=rf"cannot be written \(.*{os.strerror(number)}\). Free some space"), log:
        log.step(2, {"train/lm_loss": 2.0}, {})
    assert lines(tmp_path / METRICS_FILE) == [{"step": 1, "train/lm_loss": 2.0}]
