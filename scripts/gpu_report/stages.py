"""The stages of a report, in order of worth: one entry adds one.

Each has its arguments on a GPU and, for a rehearsal on a CPU, further ones that make it tiny.
"""

from dataclasses import dataclass
from pathlib import Path

from scripts.gpu_report.programs import Program
from scripts.gpu_report.stage import (
    Stage,
    read_comparison,
    read_json,
    read_pytest,
    read_run,
    read_sets,
)

# experiment -> batch size on one GPU: the published one, or what fits on 80 GB
TRAINING_STEPS = {"sudoku_extreme_mlp": 768, "sudoku_extreme_att": 768, "maze_hard": 128, "arc1": 192}

CUDA_TESTS = (
    "tests/models/test_fused_gpu.py",
    "tests/dataset/tasks/test_augmentation.py",
    "tests/dataset/test_device_feed.py",
    "tests/evaluators/test_batch_size.py",
)
# of pytest: nothing that a bare machine may lack, or that writes into the repository
PYTEST = ("-q", "-o", "addopts=", "-p", "no:benchmark", "-p", "no:cacheprovider", "-m", "not thorough and not slow")

TINY_MODEL = (
    "arch.hidden_size=32", "arch.num_heads=2", "arch.H_cycles=1", "arch.L_cycles=1", "arch.L_layers=1",
    "arch.halt_max_steps=2", "arch.forward_dtype=float32", "compile=false",
)  # fmt: skip
TINY_RUN = (*TINY_MODEL, "eval_halt_max_steps=2", "global_batch_size=8", "eval_interval=null", "lr_warmup_steps=2")
TINY_LDT = (
    "arch.hidden_size=16", "arch.num_heads=2", "arch.L_layers=1", "arch.n_loops=2", "arch.forward_dtype=float32",
    "compile=false", "eval_halt_max_steps=2", "global_batch_size=8", "eval_interval=null", "lr_warmup_steps=2",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a report runs.

    Attributes:
        work: folder for data, checkpoints and logs.
        shared: folder with recorded runs (oracles/) and data (data/).
        device: cuda or cpu.
        tiny: whether everything is tiny.
    """

    work: Path
    shared: Path
    device: str
    tiny: bool = False

    def program(self, name: str, arguments: tuple[str, ...], tiny: tuple[str, ...] = (), **more: bool) -> Program:
        """A program, with the arguments that make it tiny if everything is."""
        return Program(name, arguments + (tiny if self.tiny else ()), **more)

    def log(self, stage: str) -> Path:
        """The file with what the program of a stage prints."""
        return self.work / "logs" / f"{stage}.log"

    def run(self, stage: str) -> Path:
        """The run folder of a training run."""
        return self.work / "runs" / stage

    def found(self, stage: str) -> Path:
        """The folder for what a stage finds."""
        return self.work / "found" / stage

    def data(self, name: str) -> Path:
        """The folder of a data set."""
        return self.work / "data" / name


def stages(place: Place) -> list[Stage]:
    """All stages."""
    like, augmented = place.data("sudoku-like-1k"), place.data("sudoku-like-1k-aug-1000")
    return [
        _probe(place, "environment", "GPU, driver, torch", essential=True),
        _tests(
            place, "recorded_runs", "recorded runs of the published code, fp32, within 1e-4",
            ("tests/models/test_recorded_runs.py",), ("-k", "trm_mlp_t"), inputs=(place.shared / "oracles",),
        ),
        _tests(place, "cuda_tests", "kernels, augmentation, feed and batch size on the device", CUDA_TESTS,
               ("-k", "batch_size")),
        _training(
            place, "quickstart", "quickstart",
            ("experiment=quickstart", f"data_paths=[{place.data('quickstart')}]",
             f"data_builder.options.output_dir={place.data('quickstart')}", "checkpoint_every_steps=200"),
            (*TINY_RUN, "data_builder.options.generate=60", "data_builder.options.test_size=30", "epochs=6"),
        ),
        _short(place, "one_process", "a plain process, 200 steps"),
        _short(place, "one_nccl_process", "one process of torchrun equals one plain process", like="one_process"),
        _probe(place, "matmul", "matrix products, TFLOP/s", ("4096", "8192", "16384"), tiny=("128",)),
        *(_step(place, experiment, batch) for experiment, batch in TRAINING_STEPS.items()),
        *(_step(place, experiment, batch, compiled=False) for experiment, batch in TRAINING_STEPS.items()),
        _data(place, "evaluation_data", "20,000 other puzzles", place.data("quickstart-20k"),
              ("--generate", "10", "--test-size", "40" if place.tiny else "20000", "--box", "2x3", "--min-clues", "11"),
             ),
        *_evaluations(place, "evaluation", "quickstart", place.data("quickstart-20k"), after="evaluation_data"),
        _sudoku_like(place, "sudoku_data", like),
        _training(
            place, "sudoku_search", "LDT on 1,000 hard Sudokus",
            ("experiment=sudoku_search", f"data_paths=[{like}]", "epochs=956", "lr_warmup_steps=186",
             "eval_interval=null", "checkpoint_every_steps=100"),
            (*TINY_LDT, "epochs=2"), after=("sudoku_data",),
        ),
        Stage(
            "sudoku_search_solved", "search with the LDT",
            place.program(
                "search.py",
                (f"load_checkpoint={place.run('sudoku_search')}", f"save_path={place.found('sudoku_search')}",
                 f"device={place.device}", "chains=64", "rows=2048", "eval_max_examples=10000", "seconds=110"),
                ("chains=4", "rows=8", "eval_max_examples=8", "rounds=3"),
            ),
            read_sets(place.found("sudoku_search") / "results.json"),
            needs=150, after=("sudoku_search",),
        ),
        _sudoku_like(place, "sudoku_data_augmented", augmented, copies=1 if place.tiny else 1000),
        _training(
            place, "sudoku_extreme_mlp", "TRM-MLP with the published settings on 1,000 hard Sudokus",
            ("experiment=sudoku_extreme_mlp", f"data_paths=[{augmented}]", "eval_interval=500",
             "eval_max_examples=2048", "eval_early_halting=true", "checkpoint_every_steps=200"),
            (*TINY_RUN, "epochs=4"), after=("sudoku_data_augmented",), budget=900,
        ),
        *_evaluations(place, "evaluation_mlp", "sudoku_extreme_mlp", augmented, after="sudoku_data_augmented"),
    ]  # fmt: skip


# -- kinds of stages ---------------------------------------------------------------------------------------------------


def _probe(
    place: Place,
    what: str,
    title: str,
    sizes: tuple[str, ...] = (),
    tiny: tuple[str, ...] = (),
    essential: bool = False,
) -> Stage:
    output = place.found(what) / "figures.json"
    arguments = (what, place.device, str(output), *(tiny if place.tiny else sizes))
    program = place.program("-m scripts.gpu_report.probes", arguments)
    return Stage(what, title, program, read_json(output), essential=essential)


def _tests(
    place: Place, name: str, title: str, files: tuple[str, ...], tiny: tuple[str, ...], inputs: tuple[Path, ...] = ()
) -> Stage:
    program = place.program("-m pytest", (*PYTEST, *files), (*tiny, "--assert=plain"))
    return Stage(name, title, program, read_pytest(place.log(name)), inputs=inputs)


def _training(
    place: Place,
    name: str,
    title: str,
    arguments: tuple[str, ...],
    tiny: tuple[str, ...],
    after: tuple[str, ...] = (),
    budget: float = float("inf"),
) -> Stage:
    """A training run that goes on from its latest checkpoint in every invocation."""
    run = place.run(name)
    common = (f"checkpoint_path={run}", "load_checkpoint=latest", f"device={place.device}", "show_example=false")
    program = place.program("pretrain.py", (*arguments, *common), (*tiny, "checkpoint_every_steps=5"))
    every = 1 if place.tiny else 25
    return Stage(name, title, program, read_run(run), after=after, run=run, budget=budget, every=every)


def _short(place: Place, name: str, title: str, like: str | None = None) -> Stage:
    """A short run of the quickstart; if `like` is given, under torchrun, and compared with that run."""
    run = place.run(name)
    arguments = (
        "experiment=quickstart", f"data_paths=[{place.data('quickstart')}]", f"checkpoint_path={run}", "max_steps=200",
        "eval_interval=null", "load_checkpoint=latest", f"device={place.device}", "show_example=false",
    )  # fmt: skip
    program = place.program("pretrain.py", arguments, (*TINY_RUN, "max_steps=3"), one_rank=like is not None)
    read = read_run(run) if like is None else read_comparison(run, place.run(like))
    return Stage(name, title, program, read, after=("quickstart", *([like] if like else [])))


def _step(place: Place, experiment: str, batch: int, compiled: bool = True) -> Stage:
    """The training step of an experiment, timed by bench/train_step.py."""
    name = f"step_{experiment}" if compiled else f"step_{experiment}_plain"
    output = place.found(name) / "figures.jsonl"
    arguments = (
        f"experiment={experiment}", f"global_batch_size={batch}", "data_paths=[none]", f"device={place.device}",
        f"compile={str(compiled).lower()}", "repeats=10", "parts=[train,evaluation,optimizer,data]",
        f"output={output}",
    )  # fmt: skip
    if not compiled:
        arguments += ("repeats=5", "parts=[train,evaluation]")
    tiny = (*TINY_MODEL, "global_batch_size=2", "repeats=1", "parts=[train]", "seq_len=9", "vocab_size=5",
            "matmul_size=64")  # fmt: skip
    title = f"{experiment}, batch {batch}, {'compiled' if compiled else 'compile=false'}"
    return Stage(name, title, place.program("bench/train_step.py", arguments, tiny), read_json(output), output="bench")


def _data(place: Place, name: str, title: str, folder: Path, arguments: tuple[str, ...]) -> Stage:
    """A data set of Sudokus. What an interrupted build has left is replaced."""
    program = place.program("dataset/build_sudoku_dataset.py", ("--output-dir", str(folder), "--overwrite", *arguments))
    return Stage(name, title, program, needs=90)


def _sudoku_like(place: Place, name: str, folder: Path, copies: int = 0) -> Stage:
    """1,000 hard Sudokus, with stored augmentations: from shared/, else generated."""
    source = place.shared / "data" / "sudoku-extreme-like"
    title = f"1,000 Sudokus with {copies:,} augmentations each"
    if place.tiny:
        chosen = ("--generate", "16", "--test-size", "8", "--box", "2x2", "--min-clues", "6")
    elif source.exists():
        chosen = ("--source", str(source), "--subsample-size", "1000")
    else:
        title += ", generated, because there is no " + str(source)
        chosen = ("--generate", "1000", "--test-size", "2000")
    return _data(place, name, title, folder, (*chosen, "--num-aug", str(copies)))


def _evaluations(place: Place, name: str, run: str, data: Path, after: str) -> list[Stage]:
    """Evaluations of the newest checkpoint of a training run on 20,000 puzzles, without and with early halting."""
    found = []
    for kind, early, title in (("fixed", "false", "all steps for each"), ("halting", "true", "early halting")):
        stage = f"{name}_{kind}"
        arguments = (
            f"load_checkpoint={place.run(run)}", f"data_paths=[{data}]", f"save_path={place.found(stage)}",
            "eval_max_examples=20000", f"early_halting={early}", f"device={place.device}",
        )  # fmt: skip
        program = place.program("evaluate.py", arguments, ("compile=false", "global_batch_size=8"))
        read = read_sets(place.found(stage) / "results.json")
        found.append(Stage(stage, f"{run} on 20,000 puzzles, {title}", program, read, after=(run, after)))
    return found
