"""The page in a headless browser: its answers are those of Python, by keys and by clicks, and no request leaves it."""

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.tasks.maze.rules import GOAL, PATH, SPACE, START, WALL
from evaluators.loading import SHIPPED, load
from evaluators.reasoner import Reasoner
from exporting.checks import sample_puzzles
from exporting.models import name_of
from exporting.web import MODELS, page_of
from tests.evaluators.small_reasoners import write_run
from utils.settings import ExportConfig

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or shutil.which("npm") is None, reason="there is no Chromium, or no npm to fetch onnxruntime-web"
)
KEYS = {WALL: "#", SPACE: ".", START: "s", GOAL: "g"}
FINISHED = "#verdict" + "".join(f":not([data-state={name}])" for name in ("loading", "thinking", "ready"))
LONGEST = 120_000  # ms that a step of the browser may take on a machine with much other work


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Site:
    """A page that is served, in a browser.

    Attributes:
        page: playwright's page.
        requests: the addresses of all requests.
        reasoners: the models of the page, by the names that it has for them.
    """

    def __init__(self, page: Any, address: str, reasoners: dict[str, Reasoner]):
        self.page, self.address, self.reasoners = page, address, reasoners
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.set_default_timeout(LONGEST)
        page.context.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)

    def open(self) -> float:
        """Load the page and wait for the first answer, which it gives by itself: its time in seconds."""
        self.page.goto(self.address)
        self.page.locator("html[data-first-answer]").wait_for()
        return float(self.page.evaluate("Number(document.documentElement.dataset.firstAnswer)")) / 1000

    def choose(self, name: str) -> None:
        """Choose a model."""
        value = name_of(self.reasoners[name])
        self.page.locator(f"input[name='model'][value='{value}']").check(force=True)

    @property
    def state(self) -> str:
        """The state of the verdict."""
        return self.page.locator("#verdict").get_attribute("data-state")

    def finished(self) -> str:
        """Wait for the end of the run: the state of the verdict."""
        self.page.locator(FINISHED).wait_for()
        return self.state

    def type(self, rows: list[str]) -> None:
        """Clear the board, and type rows of keys into its cells; a dot is passed over."""
        self.page.locator("#clear").click()
        for row in rows:
            for key in row:
                if key != ".":
                    self.page.keyboard.press(key)
                self.page.keyboard.press("ArrowRight")
            self.page.keyboard.press("Home")
            self.page.keyboard.press("ArrowDown")

    def click(self, rows: list[str]) -> None:
        """Clear the board, and enter the same with clicks on cells and on the buttons below the board."""
        self.page.locator("#clear").click()
        is_maze = self.page.locator("#board.maze").count() > 0
        width = len(rows[0])
        tokens = {key: token for token, key in KEYS.items()}
        for key in sorted(set("".join(rows)) - {"."}):
            if is_maze:
                self.page.locator(f"#pad input[value='{tokens[key]}']").check(force=True)
            for place in re.finditer(re.escape(key), "".join(rows)):
                self.cell(place.start() // width, place.start() % width, width).click()
                if not is_maze:
                    self.page.locator(f"#pad [data-value='{key}']").click()

    def cell(self, row: int, column: int, width: int) -> Any:
        """A cell of the board."""
        return self.page.locator(f"[data-cell='{row * width + column}']")

    def think(self) -> str:
        """Let the model think: the state of the verdict at the end."""
        self.page.locator("#solve").click()
        return self.finished()

    def cells(self) -> list[str]:
        """The texts of the cells; of a maze `o` for the path."""
        read = "cells => cells.map(cell => cell.classList.contains('path') ? 'o' : cell.textContent)"
        return self.page.locator("#board [data-cell]").evaluate_all(read)


def rows_of(reasoner: Reasoner, tokens: np.ndarray) -> list[str]:
    """The keys that enter a question."""
    look = reasoner.task.look()
    if reasoner.task.name == "maze":
        keys = [KEYS[int(token)] for token in tokens]
    else:
        keys = [reasoner.task.look().character(int(token)) for token in tokens]
    return ["".join(keys[start : start + look.width]) for start in range(0, len(keys), look.width)]


def expected(reasoner: Reasoner, tokens: np.ndarray) -> tuple[list[str], str]:
    """What Python answers: the texts of the cells, and the verdict."""
    (answer,) = reasoner.solve([rows_for_python(reasoner, tokens)], attempts=None)
    if reasoner.task.name == "maze":
        marked = (answer.tokens == PATH) & (tokens != START) & (tokens != GOAL)
        texts = {START: "S", GOAL: "G"}
        cells = ["o" if path else texts.get(int(token), "") for path, token in zip(marked, tokens, strict=True)]
    else:
        given = np.where(tokens > 1, tokens, answer.tokens)  # the page shows the clues as they are
        cells = [str(token - 1) if 1 < token < reasoner.task.vocab_size else "" for token in given.astype(int)]
    return cells, answer.verdict.status


def rows_for_python(reasoner: Reasoner, tokens: np.ndarray) -> str:
    """A question as a text that `Reasoner.solve` reads."""
    return "\n".join(reasoner.task.rows(tokens)).replace(" ", ".")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Callable[..., Site]]:
    """Opens the page with some models: names in weights/, and `maze`, a small untrained model of mazes."""
    sync_api = pytest.importorskip("playwright.sync_api")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("site")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def serve(names: tuple[str, ...]) -> Site:
            root = folder / "-".join(names)
            if not root.exists():
                paths = [SHIPPED / name if name != "maze" else write_run(folder / "maze", "maze") for name in names]
                reasoners = [load(path, "cpu", dtype="float32") for path in paths]
                page_of(ExportConfig(format="web", check_puzzles=2, halt_max_steps=3), reasoners, root)
            reasoners = {
                name: load(SHIPPED / name if name != "maze" else folder / "maze", "cpu", dtype="float32")
                for name in names
            }
            server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(root)))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            request.addfinalizer(server.server_close)
            request.addfinalizer(server.shutdown)
            context = browser.new_context(reduced_motion="reduce", viewport={"width": 380, "height": 800})
            return Site(context.new_page(), f"http://127.0.0.1:{server.server_port}/", reasoners)

        yield serve
        browser.close()


@needs_browser
@pytest.mark.parametrize(
    ("names", "sudokus", "mazes", "seconds"),
    [
        pytest.param(("sudoku_6x6", "maze"), 4, 2, 60, marks=pytest.mark.thorough),
        pytest.param(
            ("sudoku_6x6", "sudoku_newspaper", "sudoku_search", "maze_10x10"), 20, 10, 2, marks=pytest.mark.slow
        ),
    ],
)
def test_the_page(served: Callable[..., Site], names: tuple[str, ...], sudokus: int, mazes: int, seconds: float):
    """`seconds` is the longest time to the first answer; on a machine with much other work it says little."""
    site = served(names)
    first = site.open()
    print(f"first answer after {first:.2f} s")
    assert first < seconds
    site.finished()

    for name, reasoner in site.reasoners.items():
        site.choose(name)
        count = mazes if reasoner.task.name == "maze" else sudokus
        inputs, _ = sample_puzzles(reasoner, count)
        for number, tokens in enumerate(inputs):
            enter = site.type if number % 2 else site.click
            enter(rows_of(reasoner, tokens))
            state = site.think()
            if reasoner.searches:  # its choices are random; the solution is not
                assert state == "solved"
            else:
                cells, status = expected(reasoner, tokens)
                assert site.cells() == cells
                assert state == status

    check_wrong_entries(site)
    check_keyboard_alone(site)
    assert site.page.evaluate("document.documentElement.scrollWidth") <= 380
    assert all(url.startswith(site.address) for url in site.requests), site.requests
    assert any(url.endswith(".onnx") for url in site.requests)  # those of the worker are among them
    assert not site.errors


def check_wrong_entries(site: Site) -> None:
    """What breaks a rule is shown at its cell, and a puzzle without a solution never shows as solved."""
    site.choose("sudoku_6x6")
    site.type(["3....3", *["......"] * 5])
    assert site.cell(0, 0, 6).get_attribute("aria-invalid") is not None
    assert site.cell(0, 5, 6).get_attribute("aria-invalid") is not None
    assert site.cell(0, 1, 6).get_attribute("aria-invalid") is None
    assert "digit 3 is in row 1 more than once" in site.page.locator("#hint").inner_text()
    assert site.think() == "undecided"
    # no two clues contradict each other, and yet no digit is left for the last cell of the first row
    site.type(["12345.", ".....6", *["......"] * 4])
    assert site.page.locator("[aria-invalid]").count() == 0
    assert site.think() == "undecided"
    assert "no solution" in site.page.locator("#verdict").inner_text().lower()

    name, maze = next(item for item in site.reasoners.items() if item[1].task.name == "maze")
    side = maze.task.look().height
    site.choose(name)
    site.type(["." * side] * side)
    assert site.think() == "undecided"
    assert "There is no S" in site.page.locator("#hint").inner_text()
    walled = ["s#" + "." * (side - 2), "##" + "." * (side - 2), *["." * side] * (side - 3), "." * (side - 1) + "g"]
    site.type(walled)
    assert site.think() == "undecided"
    assert "no path leads from S to G" in site.page.locator("#verdict").inner_text()


def check_keyboard_alone(site: Site) -> None:
    """A puzzle is chosen, entered, solved and looked at without a pointer."""
    press = site.page.keyboard.press
    site.page.goto(site.address)
    site.finished()
    for _ in range(10):
        press("Tab")
        if site.page.evaluate("document.activeElement.dataset.cell") is not None:
            break
    reasoner = site.reasoners["sudoku_6x6"]
    tokens = sample_puzzles(reasoner, 3)[0][2]
    press("Control+Home")
    for row in rows_of(reasoner, tokens):
        for key in row:
            press("Delete" if key == "." else key)
            press("ArrowRight")
        press("ArrowDown")
    press("Enter")
    site.finished()
    assert site.cells() == expected(reasoner, tokens)[0]
    for _ in range(20):
        press("Tab")
        if site.page.evaluate("document.activeElement.id") == "step":
            break
    press("Home")
    assert site.page.locator("#step-number").inner_text().startswith("1 of")


def test_a_page_is_not_written_over_other_files(tmp_path: Path):
    from tests.runs import refused

    (tmp_path / "mine.txt").write_text("mine")
    refused("export", ["format=web", f"output={tmp_path}"], "is there and is no page")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert not (tmp_path / MODELS).exists()
