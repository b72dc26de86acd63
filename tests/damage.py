"""Damages the files of a finished run and opens it again as the programs do: nothing may be loaded as something else.

    python -m tests.damage --flips 400 --cuts 100

Each time, one bit of one file is flipped, or the end of one file is cut off. Then the run folder is opened for going on
with the run, and for evaluation. The program prints how often the outcome was

    same     what was loaded is what was loaded before the damage,
    older    the step before was loaded, and the damaged file was named,
    refused  there was an error which names the damaged file, and there is no older one to load,
    other    anything else was loaded, or there was an error of another kind.

It exits with status 1 if there is any of the last.
"""

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch

from dataset.text.byte_pairs import read_byte_pairs
from dataset.text.tokenizer import TextTokenizer
from models.pretrained import open_checkpoint
from tests.runs import outcome, tensors, tiny, write_sudoku
from tests.text_runs import write_text
from utils.checkpoint import load_weights
from utils.checkpoint_pair import load_pair
from utils.data_record import read_sizes
from utils.errors import UserError
from utils.run_folder import plan_run
from utils.safetensors_file import save_tensors

STEPS = (3, 6)
PATTERNS = ("step_*", "*.safetensors", "all_config.yaml", "train_data.json", "text_tokenizer.json")


@dataclass
class Report:
    """How often each outcome occurred, and what the bad ones were."""

    counts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)


def make_run(root: Path) -> Path:
    """A run folder below `root`, with two checkpoints, a safetensors file of the last one, and a tokenizer."""
    run = root / "run"
    data = write_sudoku(root / "data", groups=18, tests=7)
    settings = {"max_steps": STEPS[-1], "checkpoint_every_steps": STEPS[0], "compile": False, "eval_interval": None}
    with contextlib.chdir(root):
        status, output = outcome("pretrain", tiny(data, run, **settings))
    assert status == 0, output
    save_tensors(run / "model.safetensors", load_weights(run / f"step_{STEPS[-1]}"))
    write_text(root / "text", train=2, held_out=1)
    pairs = read_byte_pairs(root / "text" / "vocab.json", root / "text" / "merges.txt")
    TextTokenizer(pairs, "small", None, None).save(run)
    return run


def opened(run: Path, say: Any) -> dict[str, Any]:
    """Everything that the programs load of a run, by what it is for; an error in place of what was refused."""
    found: dict[str, Any] = {}
    for name, load in {
        "resume": lambda: _resumed(run, say),
        "evaluation": lambda: _evaluated(run, say),
        "safetensors": lambda: _evaluated(run / "model.safetensors", say),
        "sizes": lambda: read_sizes(run),
        "tokenizer": lambda: TextTokenizer.load(run).digest,
    }.items():
        try:
            # tensors are mapped into memory, and the file will be damaged
            found[name] = {key: _content(value) for key, value in tensors(load()).items()}
        except UserError as error:
            found[name] = error
    return found


def _content(value: torch.Tensor) -> tuple[str, tuple[int, ...], bytes]:
    return str(value.dtype), tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def _resumed(run: Path, say: Any) -> Any:
    plan = plan_run("latest", str(run), "project", "name", "trm", say=say)
    assert plan.resume is not None
    return dict(zip(("weights", "state"), load_pair(*plan.resume), strict=True))


def _evaluated(path: Path, say: Any) -> Any:
    checkpoint = open_checkpoint(path, say=say)
    return {"weights": checkpoint.weights, "config": checkpoint.config, "arch": checkpoint.arch.model_dump()}


def damage_all(run: Path, flips: int, cuts: int, seed: int = 0) -> Report:
    """Damage the run in a copy of its folder, again and again, and open it each time."""
    random, report, copy = Random(seed), Report(), run.parent / "damaged"
    whole = opened(run, lambda _: None)
    before = run.parent / "before"  # what is loaded when the newest checkpoint is not there
    shutil.copytree(run, before)
    newest = {path.name for path in before.glob(f"step_{STEPS[-1]}*")}
    for name in newest:
        (before / name).unlink()
    older = opened(before, lambda _: None)
    shutil.rmtree(before)
    files = sorted({path.name for pattern in PATTERNS for path in run.glob(pattern)})
    for number in range(flips + cuts):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns("code"))
        path = copy / random.choice(files)
        content = bytearray(path.read_bytes())
        if number < flips:
            bit = random.randrange(8 * len(content))
            content[bit // 8] ^= 1 << bit % 8
            how = f"{path.name}: flip of bit {bit % 8} of byte {bit // 8}"
        else:
            size = random.choice(
                (random.randrange(len(content)), len(content) - 1 - random.randrange(64) % len(content))
            )
            del content[size:]
            how = f"{path.name}: cut after {size} bytes"
        path.write_bytes(content)
        said: list[str] = []
        try:
            found = opened(copy, said.append)
        except Exception as error:
            report.counts["other"] += 1
            report.bad.append(f"{how}: {type(error).__name__}: {error}")
            continue
        outcomes = {
            name: _outcome(found[name], whole[name], older[name] if path.name in newest else None, path, said)
            for name in whole
        }
        worst = max(outcomes.values(), key=("same", "older", "refused", "other").index)
        report.counts[worst] += 1
        if worst == "other":
            report.bad.append(f"{how}: {outcomes}")
    return report


def _outcome(found: Any, whole: Any, older: Any | None, damaged: Path, said: list[str]) -> str:
    """The outcome for one thing that is loaded, of which there is perhaps an older one."""
    if isinstance(found, UserError):
        return "refused" if str(damaged) in str(found) and older is None else "other"
    if found == whole:
        return "same"
    return "older" if found == older and any(damaged.name in text for text in said) else "other"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=400, metavar="N", help="bits to flip, one at a time")
    parser.add_argument("--cuts", type=int, default=100, metavar="N", help="files to cut, one at a time")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stderr(io.StringIO()):
        report = damage_all(make_run(Path(root)), options.flips, options.cuts, options.seed)
    print(dict(report.counts))
    for text in report.bad:
        print(f"other: {text}")
    sys.exit(bool(report.bad))


if __name__ == "__main__":
    main()
