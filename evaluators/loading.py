"""Loading a model for use, from wherever it lies."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dataset.task_choice import choose_task
from dataset.tasks import check_task_name, load_task, task_names
from dataset.tasks.task import Task
from evaluators.reasoner import Origin, Reasoner
from evaluators.saved_model import CONFIG, PUZZLES, WEIGHTS, is_saved_model, read_model, read_puzzles
from models.losses import ACTLossHead
from models.pretrained import TOKEN_TABLE, Checkpoint, load_model, open_checkpoint
from utils.checkpoint import TRAIN_STATE_SUFFIX
from utils.data_record import identifiers_digest, read_sizes
from utils.errors import UserError, did_you_mean
from utils.machine import DeviceName, Machine, choose_machine
from utils.text_files import visible

SHIPPED = Path(__file__).resolve().parents[1] / "weights"


def shipped_names() -> list[str]:
    """The names of the models that come with the program."""
    return [path.name for path in visible(SHIPPED.glob("*")) if path.is_dir()]


def load(
    path_or_name: Path | str,
    device: DeviceName = "auto",
    *,
    task: str | None = None,
    seq_len: int | None = None,
    dtype: str | None = None,
) -> Reasoner:
    """Load a model, ready for use.

    Nothing in the files is executed, whoever they come from.

    Args:
        path_or_name: a run folder, a checkpoint step_<N> in one, a published checkpoint, a folder that
            `Reasoner.save` has written, or the name of a model in weights/, such as sudoku_search.
        device: where to compute; `auto` takes the first of cuda, mps and cpu that this machine has.
        task, seq_len: the task and the tokens of a puzzle, for a checkpoint that does not say them. The task of a model
            for a task of your own is its file, which is run: no checkpoint can have that done.
        dtype: what to compute in; None: as the model was trained, where that is fast.

    Raises:
        UserError: there is no such model, a file is damaged, or the task is not known.
    """
    if task is not None:
        task = choose_task(task).name
    path = Path(path_or_name)
    if not path.exists() and (SHIPPED / str(path_or_name)).is_dir() and len(path.parts) == 1:
        path = SHIPPED / path
    if not path.exists():
        names = shipped_names()
        raise UserError(
            f"there is no model {str(path_or_name)!r}: it is neither a folder or file (from {Path.cwd()}) nor one of "
            f"those in weights/: {', '.join(names)}.{did_you_mean(str(path_or_name), names)} For one on the Hugging "
            "Face Hub, use Reasoner.from_pretrained."
        )
    if path.name == WEIGHTS:
        path = path.parent
    if path.is_dir() and is_saved_model(path):
        return _load_saved(path, device, dtype)
    if path.name.endswith(TRAIN_STATE_SUFFIX):
        raise UserError(f"{path} holds no weights. Give {str(path).removesuffix(TRAIN_STATE_SUFFIX)}, which does.")
    if path.is_dir() and not any(path.glob("step_*")):
        raise UserError(
            f"{path} holds no model: neither {WEIGHTS} and {CONFIG}, nor step_<N>. Give a run folder, or a folder that "
            "was saved with Reasoner.save."
        )
    return _load_checkpoint(open_checkpoint(path, say=lambda _: None), device, task, seq_len, dtype)


def load_from_hub(repo: str, revision: str | None, device: DeviceName, options: dict[str, Any]) -> Reasoner:
    """Load a model from a folder, or from a repository of the Hugging Face Hub.

    Args:
        repo: the folder, or owner/name.
        revision: branch, tag or commit; None: the newest.
        device: see `load`.
        options: further options of `PyTorchModelHubMixin.from_pretrained`: cache_dir, force_download, token,
            local_files_only.

    Raises:
        UserError: it cannot be downloaded, or is no saved model.
    """
    if not Path(repo).is_dir():
        from huggingface_hub import snapshot_download

        from dataset.hub import reaching_hub

        known = ("cache_dir", "force_download", "token", "local_files_only")
        passed = {key: options[key] for key in known if key in options}
        files = [WEIGHTS, CONFIG, PUZZLES]  # whatever else there is, is not needed
        with reaching_hub(f"the model {repo}", "or give a local folder"):
            repo = snapshot_download(repo, revision=revision, allow_patterns=files, **passed)
    if not is_saved_model(Path(repo)):
        raise UserError(f"{repo} is no saved model: {WEIGHTS} or {CONFIG} is missing. Take another copy of it.")
    return _load_saved(Path(repo), device)


def _load_saved(folder: Path, device: DeviceName, dtype: str | None = None) -> Reasoner:
    checkpoint, config, puzzles = read_model(folder)
    check_task_name(config.task.name, f"{folder / CONFIG}: task")
    task = load_task(config.task.name).of(config.seq_len, config.vocab_size, **config.task.options)
    head = load_model(checkpoint, _machine(checkpoint, device, dtype), config.seq_len, config.vocab_size)
    return Reasoner(head, task, Origin(config.arch, config.task.options, puzzles, config.max_steps, checkpoint.path))


def _load_checkpoint(
    checkpoint: Checkpoint, device: DeviceName, name: str | None, seq_len: int | None, dtype: str | None
) -> Reasoner:
    machine = _machine(checkpoint, device, dtype)
    options: dict[str, Any] = {}
    head, task = None, None
    problems: list[str] = []
    for kind, length, vocab_size, options in _candidates(checkpoint, name, seq_len):
        try:
            task = kind.of(length, vocab_size, **options)
            head = load_model(checkpoint, machine, length, vocab_size)
            break
        except UserError as error:
            problems.append(str(error))
    if head is None or task is None:
        why = problems[0] if problems else "nothing says which task it was trained on"
        raise UserError(
            f"{checkpoint.path}: {why}\nGive its task, one of {', '.join(task_names())}, and the number of tokens of a "
            "puzzle: load(path, task=..., seq_len=...)."
        )
    max_steps = checkpoint.config.get("eval_halt_max_steps")
    steps = max_steps if isinstance(max_steps, int) and not isinstance(max_steps, bool) else None
    puzzles = _puzzle_names(checkpoint, head)
    return Reasoner(head, task, Origin(checkpoint.arch, options, puzzles, steps, checkpoint.path))


def _candidates(
    checkpoint: Checkpoint, name: str | None, seq_len: int | None
) -> Iterable[tuple[type[Task], int, int, dict[str, Any]]]:
    """What the model may be for, the most probable first: (task, seq_len, vocab_size, options of the task).

    A run records the task and the sizes of its data. Published runs do not; then the evaluators and the augmentation
    may name the task, and the sizes are among those of published data sets.
    """
    recorded = read_sizes(checkpoint.folder)
    vocab_size = checkpoint.vocab_size if TOKEN_TABLE in checkpoint.weights else recorded.get("vocab_size")
    named = name or recorded.get("task")
    if named is not None:
        check_task_name(named)
    likely = [named] if named is not None else list(dict.fromkeys(_named_in(checkpoint.config)))
    for kind in map(load_task, likely or task_names()):
        sizes = [(recorded.get("seq_len"), recorded.get("vocab_size")), *kind.published]
        if seq_len is not None:
            sizes = [(seq_len, vocab_size or own) for _, own in sizes]
        for length, own in sizes:
            if length is not None and own is not None and own == (vocab_size or own):
                yield kind, length, own, _options(checkpoint.config, kind)


def _named_in(config: dict[str, Any]) -> Iterable[str]:
    """The tasks that the configuration of a run names."""
    evaluators = config.get("evaluators")
    names = [str(entry.get("name")).split("@")[0] for entry in _entries(evaluators)]
    return [name for name in [*names, config.get("augmentation")] if name in task_names()]


def _options(config: dict[str, Any], kind: type[Task]) -> dict[str, Any]:
    """The options of the task that the evaluators of a run have, such as the height of boards."""
    for entry in _entries(config.get("evaluators")):
        if str(entry.get("name")).split("@")[0] == kind.name:
            return {key: value for key, value in entry.items() if key != "name"}
    return {}


def _entries(evaluators: Any) -> list[dict[str, Any]]:
    return [entry for entry in evaluators or [] if isinstance(entry, dict)] if isinstance(evaluators, list) else []


def _machine(checkpoint: Checkpoint, device: DeviceName, dtype: str | None = None) -> Machine:
    """The machine. What was trained in bfloat16 computes in float32 where bfloat16 is slow. Nothing is compiled."""
    trained = checkpoint.arch.own_keys.get("forward_dtype", "bfloat16")
    return choose_machine(device, dtype or ("auto" if trained == "bfloat16" else trained), compile=False)


def _puzzle_names(checkpoint: Checkpoint, head: ACTLossHead) -> list[str] | None:
    """The names of the puzzles by id, from the data that the run was trained on, if they are still there."""
    table = head.model.puzzle_emb
    if table is None or len(table.weights) == 1:
        return None
    for root in checkpoint.config.get("data_paths") or []:
        path = Path(str(root)) / "identifiers.json"
        names = read_puzzles(path) if identifiers_digest(path.parent) is not None else None
        if names is not None and len(names) == len(table.weights):
            return names
    return None
