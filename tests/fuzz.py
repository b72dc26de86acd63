"""Damages valid inputs at random and reads them as the programs do.

Each must be refused with a `UserError`, or be right.

    python -m tests.fuzz --configs 200 --shards 500 --checkpoints 500 --arc 500 --csv 500 --text 500 --seed 1

For each kind of input it prints how many damaged inputs

    same        were read as before,
    changed     were read as something else that is valid,
    refused     were refused with a `UserError`,
    silent      were read as something invalid, or as something else although the file has a checksum,
    traceback   ended in another exception,
    hang        took more than 60 s,

and examples of the last three. It exits with status 1 if there are any of them.
"""

import argparse
import contextlib
import io
import json
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import yaml

from dataset.checksums import write_checksums
from dataset.puzzle_dataset import PuzzleSplit, TrainBatches
from dataset.shards import load_metadata, load_shard
from dataset.tasks.arc.files import parse_task, read_subset
from dataset.tasks.maze import build as maze
from dataset.tasks.maze.generate import generate_mazes
from dataset.tasks.maze.paths import label_mazes
from dataset.tasks.maze.rules import CHARACTERS
from dataset.tasks.maze.task import Maze
from dataset.tasks.sudoku import build as sudoku
from dataset.tasks.sudoku.generate import generate_puzzles
from dataset.tasks.sudoku.rules import parse_box
from dataset.tasks.sudoku.task import Sudoku
from dataset.text.byte_pairs import read_byte_pairs
from dataset.text.documents import open_documents
from dataset.text.tokenizer import TextTokenizer
from models.losses import ACTLossHead
from models.pretrained import open_checkpoint
from tests.models.small import small_model
from tests.runs import tensors, write_sudoku
from tests.text_runs import write_text
from utils.checkpoint import load_train_state, load_weights, save_train_state, save_weights
from utils.errors import UserError
from utils.hydra import compose

SECONDS = 60  # for one input
MEMORY = 4 << 30  # bytes of address space that reading may take
OUTCOMES = ("same", "changed", "refused", "silent", "traceback", "hang")
BAD = ("silent", "traceback", "hang")
EXTREMES = (
    *("", "0", "-1", "1", "255", "256", "2147483648", "-9223372036854775809", "1e999", "0.5", "NaN", "null", "true"),
    *("[]", "{}", '""', '"x"', "[[1]]", "''", "9" * 5000, "x" * 1000, "\x00", "\u2028", "\ud7ff", '"\\ud800"', "../x"),
    *(" ", "\n", "\r", ",", ";", '"', "[" * 2000),
)
_VALUE = re.compile(rb"-?\d+(?:\.\d+)?|\"[^\"\n]{0,200}\"|\w+|[\[\]{},;:]")


class _TooLongError(BaseException):
    """Raised by the alarm; no `except Exception` catches it."""


class _SilentError(AssertionError):
    """What was read is invalid."""


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        write: writes valid inputs into an empty folder.
        damaged: patterns of the files to damage.
        read: reads the folder as the programs do, and returns what it found; raises `_SilentError` if that is invalid.
        checked: whether a file has a checksum, so that no change of its content may be accepted.
    """

    write: Callable[[Path], None]
    damaged: tuple[str, ...]
    read: Callable[[Path], Any]
    checked: Callable[[Path], bool] = lambda path: False


@dataclass
class Report:
    """The outcomes for one kind, and examples of bad ones."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "".join(f"{self.counts[name]:>12}" for name in OUTCOMES)


def damage(content: bytes, random: Random) -> tuple[bytes, str]:
    """A damaged copy of a file, and how it was damaged."""
    size = len(content)
    # headers are at the start, directories of archives at the end
    near = random.choice((128, 1024, size))
    at = random.randrange(max(1, min(size, near)))
    if random.random() < 0.15:
        at = max(0, size - 1 - at)
    match random.choice(("flip", "flip", "cut", "drop", "repeat", "value", "value", "value", "swap", "lines", "byte")):
        case "flip" if size:
            bit = 1 << random.randrange(8)
            return content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :], f"flip of bit {bit} at {at}"
        case "byte" if size:
            byte = random.choice((0, 10, 13, 34, 44, 127, 128, 255))
            return content[:at] + bytes([byte]) + content[at + 1 :], f"byte {byte} at {at}"
        case "cut":
            return content[:at], f"cut at {at}"
        case "drop":
            length = random.choice((1, 2, 8, 64))
            return content[:at] + content[at + length :], f"{length} bytes dropped at {at}"
        case "repeat":
            length = random.choice((1, 8, 64, size))
            return content[: at + length] + content[at:], f"{length} bytes repeated at {at}"
        case "lines":
            lines = content.split(b"\n")
            one, two = random.randrange(len(lines)), random.randrange(len(lines))
            lines[one], lines[two] = lines[two], lines[one]
            return b"\n".join(lines), f"lines {one} and {two} exchanged"
        case how:
            values = list(islice(_VALUE.finditer(content, max(0, at - 20)), 50)) or list(_VALUE.finditer(content))[:50]
            if not values:
                return content + b"\0", "a byte appended"
            one, two = sorted(random.choices(values, k=2), key=lambda value: value.start())
            if how == "swap":
                new = content[: one.start()] + two[0] + content[one.end() : two.start()] + one[0] + content[two.end() :]
                return new, f"{one[0]!r} and {two[0]!r} exchanged at {one.start()} and {two.start()}"
            value = random.choice(EXTREMES)
            new = content[: one.start()] + value.encode() + content[one.end() :]
            return new, f"{one[0][:40]!r} replaced by {value[:40]!r} at {one.start()}"


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Limit the time and the memory of what is read."""

    def stop(*_: object) -> None:
        raise _TooLongError

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, handler)


def _attempt(read: Callable[[], Any]) -> tuple[str, Any]:
    """(outcome, what was read or the text of the error)."""
    try:
        with _limits(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return "read", read()
    except UserError as error:
        return "refused", str(error)
    except _SilentError as error:
        return "silent", str(error)
    except _TooLongError:
        return "hang", f"more than {SECONDS} s"
    except (Exception, SystemExit):
        return "traceback", traceback.format_exc(limit=-4)


def fuzz(kind: Kind, cases: int, seed: int) -> Report:
    """Damage and read `cases` inputs."""
    random, report = Random(seed), Report()
    with tempfile.TemporaryDirectory() as temporary:
        good, bad = Path(temporary) / "good", Path(temporary) / "bad"
        good.mkdir()
        kind.write(good)
        shutil.copytree(good, bad)
        outcome, expected = _attempt(lambda: kind.read(bad))
        if outcome != "read":
            raise AssertionError(f"the undamaged input is not read: {expected}")
        files = [path.relative_to(good) for pattern in kind.damaged for path in sorted(good.glob(pattern))]
        for _ in range(cases):
            shutil.rmtree(bad)
            shutil.copytree(good, bad)
            name = random.choice(files)
            content, how = damage((good / name).read_bytes(), random)
            # a new file, because the old one may still be mapped into memory
            (bad / name).unlink()
            (bad / name).write_bytes(content)
            outcome, found = _attempt(lambda: kind.read(bad))
            if outcome == "read":
                outcome = "same" if found == expected else "changed"
                if outcome == "changed" and kind.checked(name):
                    outcome = "silent"
            report.counts[outcome] += 1
            if outcome in BAD:
                what = found if isinstance(found, str) else "it was read with other content, although it has a checksum"
                report.examples.append(f"{outcome}: {name}, {how}\n{what}")
    return report


# -- configurations ----------------------------------------------------------------------------------------------------


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _write_configs(folder: Path) -> None:
    for name in ("cfg_pretrain", "cfg_tinystories_1m", "cfg_evaluate", "cfg_generate"):
        needed = [f"load_checkpoint={name}"] if name in ("cfg_evaluate", "cfg_generate") else []
        lines = [f"{key}={json.dumps(value)}" for key, value in _leaves(compose(name, needed).model_dump())]
        chosen = [line for line in lines if "{" not in line and '"' not in line][::3]
        (folder / f"{name}.txt").write_text("\n".join([*needed, *chosen]))


def _read_configs(folder: Path) -> Any:
    found = []
    for path in sorted(folder.iterdir()):
        lines = path.read_bytes().decode(errors="replace").split("\n")
        found.append(compose(path.stem, [line for line in lines if line.strip()]).model_dump())
    return found


# -- shards ------------------------------------------------------------------------------------------------------------


def _write_shards(folder: Path) -> None:
    write_sudoku(folder, groups=6, tests=3)
    write_checksums(folder)


def _read_shards(folder: Path) -> Any:
    found = []
    for name in ("train", "test"):
        split = PuzzleSplit([folder], name)
        metadata = split.metadata
        batches = TrainBatches(split, 4, seed=0) if name == "train" else None
        drawn = [batches[step] for step in (1, 2, 7)] if batches is not None else []
        for source in split.sources:
            for shard in source.shards:
                tokens = np.concatenate([shard.inputs, shard.labels]).astype(np.int64)
                if len(tokens) and not -100 <= tokens.min() <= tokens.max() < metadata.vocab_size:
                    raise _SilentError(f"tokens {tokens.min()}..{tokens.max()}")
        for batch in drawn:
            ids = batch["puzzle_identifiers"]
            if not 0 <= ids.min() <= ids.max() < split.num_puzzle_identifiers:
                raise _SilentError(f"ids {ids.min()}..{ids.max()}")
        found.append([metadata.model_dump(), [[values.tolist() for values in batch.values()] for batch in drawn]])
        found += [shard.labels.tolist() for source in split.sources for shard in source.shards]
    return found


# -- checkpoints -------------------------------------------------------------------------------------------------------


def _write_checkpoints(folder: Path) -> None:
    torch.manual_seed(0)
    head = ACTLossHead(small_model())
    save_weights(folder, 1, head)
    state = {"step": 1, "parameters": dict(head.named_parameters()), "config": {"seed": 0}, "names": ["a", None, 1.5]}
    save_train_state(folder, 1, state, keep=1)
    (folder / "all_config.yaml").write_text(yaml.safe_dump(compose("cfg_pretrain").model_dump()))


def _exact(value: object) -> dict[str, Any]:
    """The type, shape and bytes of all tensors in `value`, by name."""
    return {
        name: (str(tensor.dtype), tuple(tensor.shape), tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
        for name, tensor in tensors(value).items()
    }


def _read_checkpoints(folder: Path) -> Any:
    opened = open_checkpoint(folder, say=lambda _: None)
    state = load_train_state(folder / "step_1_train_state.pt")
    rest = {name: value for name, value in state.items() if name != "parameters"}
    weights = load_weights(folder / "step_1")
    return [opened.config, opened.arch.model_dump(), _exact(weights), _exact(state.get("parameters")), repr(rest)]


# -- ARC ---------------------------------------------------------------------------------------------------------------


def _write_arc(folder: Path) -> None:
    random = Random(0)

    def grid() -> list[list[int]]:
        height, width = random.randrange(1, 4), random.randrange(1, 4)
        return [[random.randrange(10) for _ in range(width)] for _ in range(height)]

    tasks = {
        f"task{number}": {part: [{"input": grid(), "output": grid()} for _ in range(2)] for part in ("train", "test")}
        for number in range(3)
    }
    (folder / "folder").mkdir()
    for name, task in tasks.items():
        (folder / "folder" / f"{name}.json").write_text(json.dumps(task))
    solutions = {name: [pair["output"] for pair in task["test"]] for name, task in tasks.items()}
    (folder / "arc_kaggle_challenges.json").write_text(json.dumps(tasks))
    (folder / "arc_kaggle_solutions.json").write_text(json.dumps(solutions))


def _read_arc(folder: Path) -> Any:
    tasks = [*read_subset(str(folder), "folder"), *read_subset(str(folder / "arc"), "kaggle")]
    found = [(task.name, task.to_json()) for task in tasks]
    for name, task in json.loads(json.dumps(found)):
        if parse_task(name, task, "").to_json() != task:
            raise _SilentError(f"task {name!r} does not survive being written and read")
    return found


# -- CSV ---------------------------------------------------------------------------------------------------------------


def _write_csv(folder: Path) -> None:
    boards = list(generate_puzzles(10, parse_box("2x2"), np.random.default_rng(0)))
    mazes = np.array(list(generate_mazes(10, 5, 5, np.random.default_rng(0))))
    paths = label_mazes(mazes)
    rows = {
        "sudoku": [["".join(map(str, board)).replace("0", ".") for board in pair] for pair in boards],
        "maze": [
            ["".join(CHARACTERS[token - 1] for token in grid.ravel()) for grid in pair]
            for pair in zip(mazes, paths, strict=True)
        ],
    }
    for task, pairs in rows.items():
        (folder / task).mkdir()
        for split, part in (("train", pairs[4:]), ("test", pairs[:4])):
            lines = [f"made,{question},{answer},{rating}" for rating, (question, answer) in enumerate(part)]
            (folder / task / f"{split}.csv").write_text("\n".join(["source,question,answer,rating", *lines, ""]))


def _read_csv(folder: Path) -> Any:
    out = folder / "built"
    sudoku.build(sudoku.Config(source=str(folder / "sudoku"), output_dir=str(out / "s"), box="2x2", min_difficulty=0))
    maze.build(maze.Config(source=str(folder / "maze"), output_dir=str(out / "m"), height=5, width=5))
    found = []
    for name, task, check in (("s", Sudoku(16, 6), "solved"), ("m", Maze(25, 6), "shortest_path")):
        for split in ("train", "test"):
            shard = load_shard(out / name, split, "all", load_metadata(out / name, split))
            right = task.check(shard.inputs, shard.labels)[check]
            if not (right | ((split == "test") & ~shard.labels.any(axis=1))).all():
                raise _SilentError(f"{name} {split}: a label that the rules refuse")
            found.append([shard.inputs.tolist(), shard.labels.tolist()])
    return found


# -- text --------------------------------------------------------------------------------------------------------------


def _write_text(folder: Path) -> None:
    write_text(folder / "text", train=8, held_out=3)
    pairs = read_byte_pairs(folder / "text" / "vocab.json", folder / "text" / "merges.txt")
    TextTokenizer(pairs, "small", None, None).save(folder)


def _read_text(folder: Path) -> Any:
    read_byte_pairs(folder / "text" / "vocab.json", folder / "text" / "merges.txt")
    tokenizer = TextTokenizer.load(folder)
    train, held_out = open_documents(folder / "text")
    found = []
    for text in (*train, *held_out):
        ids = tokenizer.encode(text)
        if not all(0 <= id < tokenizer.vocab_size for id in ids):
            raise _SilentError("ids out of the vocabulary")
        if tokenizer.decode(ids) != text:
            raise _SilentError(f"{text[:60]!r} is decoded as {tokenizer.decode(ids)[:60]!r}")
        found.append((text, ids))
    return found


KINDS = {
    "configs": Kind(_write_configs, ("*.txt",), _read_configs),
    "shards": Kind(
        _write_shards, ("*/*.npy", "*/dataset.json", "*/dataset.json", "*.json"), _read_shards, lambda _: True
    ),
    "checkpoints": Kind(
        _write_checkpoints, ("step_*", "all_config.yaml"), _read_checkpoints, lambda path: path.suffix != ".yaml"
    ),
    "arc": Kind(_write_arc, ("*.json", "*/*.json"), _read_arc),
    "csv": Kind(_write_csv, ("*/*.csv",), _read_csv),
    "text": Kind(_write_text, ("text/*", "text_tokenizer.json"), _read_text),
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in KINDS:
        parser.add_argument(f"--{name}", type=int, default=0, metavar="N", help=f"damaged {name} to read")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=3, metavar="N", help="bad outcomes of each kind to show")
    options = vars(parser.parse_args())
    print(f"{'':<12}" + "".join(f"{name:>12}" for name in OUTCOMES))
    reports = {}
    for name, kind in KINDS.items():
        if options[name]:
            reports[name] = fuzz(kind, options[name], options["seed"])
            print(f"{name:<12}{reports[name]}", flush=True)
    for name, report in reports.items():
        for example in report.examples[: options["examples"]]:
            print(f"\n{name}: {example}")
    sys.exit(any(report.counts[bad] for report in reports.values() for bad in BAD))


if __name__ == "__main__":
    main()
