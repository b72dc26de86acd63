"""The pages in a browser: what they show is what the files hold, and no request leaves them."""

import base64
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.tasks.given import given_tasks
from dataset.tasks.task import Task
from evaluators.answers import HaltRule
from evaluators.report.page import page as report_page
from evaluators.report.runs import read_run
from evaluators.trace.page import page, write_page
from evaluators.trace.trace import Trace, load_trace
from tests.evaluators.report.test_report import RESULT, write_run
from tests.evaluators.small_reasoners import small_head
from tests.evaluators.trace.traces import made_trace, small_trace
from utils.errors import UserError

CHROMIUM = shutil.which("chromium")
USABLE_SECONDS, LARGEST_PAGE = 1.0, 5_000_000


@pytest.fixture
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as running:
        launched = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


def opened(browser: Any, path: Path, width: int = 1300) -> tuple[Any, list[str]]:
    """A page that is ready, and what went wrong or left it: messages of its console, and requests."""
    view = browser.new_page(viewport={"width": width, "height": 900})
    problems: list[str] = []
    view.on("console", lambda message: problems.append(message.text))
    view.on("pageerror", lambda error: problems.append(str(error)))
    view.on("request", lambda request: problems.append(request.url) if request.url != path.as_uri() else None)
    view.goto(path.as_uri())
    view.wait_for_selector("html[data-ready]")
    return view, problems


def shown(view: Any, pane: str = "A") -> list[int]:
    """The tokens of the cells of a board."""
    return view.eval_on_selector_all(f'[data-pane="{pane}"] .cell', "cells => cells.map(c => Number(c.dataset.token))")


def marked(view: Any, kind: str, pane: str = "A") -> list[bool]:
    script = f"cells => cells.map(c => c.classList.contains('{kind}'))"
    return view.eval_on_selector_all(f'[data-pane="{pane}"] .cell', script)


def processor_seconds(browser: Any, path: Path) -> float:
    """Time of the processor that a page takes until it is ready, which does not depend on what else runs."""
    view = browser.new_page(viewport={"width": 1300, "height": 900})
    session = view.context.new_cdp_session(view)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    view.goto(path.as_uri())
    view.wait_for_selector("html[data-ready]")
    values = {item["name"]: item["value"] for item in session.send("Performance.getMetrics")["metrics"]}
    assert values["TaskDuration"] > 0
    return values["TaskDuration"]


def nine_by_nine(count: int, steps: int) -> Trace:
    """A trace of 9x9 boards of random tokens, which compress badly."""
    rng = np.random.default_rng(0)
    made = made_trace([[False] * steps] * count, [0] * count)
    arrays = {name: np.repeat(np.zeros_like(value[:1]), count, 0) for name, value in made.arrays.items()}
    arrays["inputs"], arrays["labels"] = rng.integers(1, 11, (count, 81), np.uint8), np.full((count, 81), 3, np.int16)
    for name, values in (("answers", rng.integers(1, 11, (count, steps, 81), np.uint8)), ("entropy", None)):
        arrays[name] = values if values is not None else rng.random((count, steps, 81)).astype(np.float16)
    arrays["probability"] = rng.random((count, steps, 81)).astype(np.float16)
    arrays["index"] = np.arange(count)
    return Trace(made.about | {"seq_len": 81, "vocab_size": 11}, arrays, [])


@pytest.mark.thorough
def test_the_viewer_in_a_browser(tmp_path: Path, browser: Any):
    head = small_head("sudoku")
    one = small_trace(6, head=head, inner=True)
    other = replace(small_trace(6, head=head, max_steps=3), about={**one.about, "name": "three steps", "updates": []})
    one.save(tmp_path / "trace.npz")
    file = load_trace(tmp_path / "trace.npz")
    path = tmp_path / "trace.html"
    write_page(path, [file, other])
    view, problems = opened(browser, path)

    # three known traces at several steps, and at an inner update
    assert view.locator(".thumb").count() == 6
    for row, step in ((0, 1), (2, 4), (5, 6)):
        view.locator(f'.thumb[data-row="{row}"]').click()
        view.locator("#step").fill(str(step))
        assert shown(view) == file["answers"][row, step - 1].tolist()
        wrong = file["answers"][row, step - 1] != file["labels"][row]
        assert marked(view, "wrong") == wrong.tolist()
        if step > 1:
            changed = file["answers"][row, step - 1] != file["answers"][row, step - 2]
            assert marked(view, "changed") == changed.tolist()
    view.locator("#inner").fill("2")
    assert shown(view) == file["inner_answers"][5, 5, 1].tolist()

    # keyboard: steps, puzzles, and the shade
    view.keyboard.press("Home")
    view.keyboard.press("End")
    view.keyboard.press("ArrowLeft")
    assert view.locator("#step").input_value() == "5"
    view.keyboard.press("ArrowUp")
    assert view.locator('.thumb[aria-selected="true"]').get_attribute("data-row") == "4"
    view.keyboard.press("s")
    assert view.locator("#shade").input_value() == "entropy"

    # the other run beside it, at the same step as far as it got, and at a step of its own
    view.locator("#beside").select_option("run1")
    assert shown(view, "B") == other["answers"][4, 2].tolist()
    view.locator("#lock").uncheck()
    view.locator("#other").fill("1")
    assert shown(view, "B") == other["answers"][4, 0].tolist()
    view.locator("#beside").select_option("solution")
    assert shown(view, "B") == file["labels"][4].tolist()

    # filters: none of the untrained answers is right
    view.get_by_role("button", name="Solved 0").click()
    assert view.locator(".thumb").count() == 0
    view.get_by_role("button", name="Failed 6").click()
    assert view.locator(".thumb").count() == 6

    # play goes on to the end by itself
    view.keyboard.press("End")
    view.locator("#first").click()
    view.locator("#play").click()
    view.wait_for_selector("#play:has-text('Pause')")
    view.wait_for_selector("#play:has-text('Play')", timeout=60_000)
    assert view.locator("#step").input_value() == "6"
    assert shown(view) == file["answers"][4, 5].tolist()
    assert problems == []

    # a phone: nothing is wider than the screen
    small, more = opened(browser, path, width=390)
    assert small.evaluate("document.documentElement.scrollWidth") <= 390
    assert more == []

    # 200 boards of 9x9
    large = tmp_path / "large.html"
    write_page(large, [nine_by_nine(200, 16)])
    assert large.stat().st_size < LARGEST_PAGE
    assert processor_seconds(browser, large) < USABLE_SECONDS

    # the report
    runs = [read_run(write_run(tmp_path / f"seed{seed}", seed=seed, result=RESULT)) for seed in (0, 1)]
    (tmp_path / "report.html").write_text(report_page(runs))
    report, wrong_here = opened(browser, tmp_path / "report.html")
    for value in ("examples", "flops", "time", "steps"):
        report.locator("#axis").select_option(value)
        assert report.locator("#curves .chart path.series").count() >= 3
    assert report.locator("#details .chart").count() == 4
    assert "70.0%" in report.locator("#findings").inner_text()
    assert "2 seeds" in report.locator("#overview").inner_text()
    assert wrong_here == []


def test_a_page_refuses_other_boards():
    with pytest.raises(UserError, match="traces of other tasks"):
        page([made_trace([[True]], [0]), nine_by_nine(1, 1)])
    wide = made_trace([[True]], [0])
    with pytest.raises(UserError, match="at most 254 tokens"):
        page([replace(wide, about={**wide.about, "vocab_size": 300})])


def test_names_in_a_page_are_text():
    trace = made_trace([[True, False]], [1])
    text = page([replace(trace, about={**trace.about, "name": "</script><b>"})])
    assert "</script><b>" not in text
    assert small_trace(1, rule=HaltRule(0.0, False))["halted_at"].tolist() == [1]


class Walls(Task):
    """Walls are given, and nothing is asked of them."""

    name, title, symbols, shape, blank = "walls", "Walls", "#.ab", (4, 4), "."


@pytest.mark.usefixtures("nothing_is_given")
def test_given_cells_for_which_nothing_is_asked_are_right_in_a_page(monkeypatch: pytest.MonkeyPatch):
    given_tasks()["walls"] = Walls
    inputs = np.array([[1, 2] * 8], np.uint8)
    label = np.where(inputs == 1, -100, 3).astype(np.int16)
    noise = np.where(inputs == 1, 4, 3).astype(np.uint8)
    made = made_trace([[True]], [0])
    arrays = {**made.arrays, "inputs": inputs, "labels": label, "answers": noise[:, None]}
    kept: list[Any] = []
    monkeypatch.setattr("evaluators.trace.page.render", lambda *given: kept.extend(given) or "")
    for solved in (0, 1):  # by the rules
        verdict = np.array([[solved]], np.int8)
        about = {**made.about, "task": "walls", "vocab_size": 5}
        page([replace(made, about=about, arrays={**arrays, "verdict": verdict})])
        data, packed = kept[-2], zlib.decompress(base64.b64decode(kept[-1].packed()))
        places = data["runs"][0]["arrays"]
        shown = {
            name: list(packed[places[name]["at"] : places[name]["at"] + 16])
            for name in ("answers", "expected", "given")
        }
        assert shown == {"answers": [1, 3] * 8, "expected": [1, 3] * 8, "given": [1, 0] * 8}
