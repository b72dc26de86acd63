"""Adapt a model for ARC to tasks that it was not trained on, by fine-tuning it on their demonstration pairs.

A model for ARC has an embedding for each task of its training, and answers a task without one blindly. So a new task
needs a few minutes of training: its pairs are augmented, all weights are fine-tuned on them, and the rows of the new
tasks start at the mean of the trained rows. (`pretrain.py experiment=arc_adapt`.)
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coolname import generate_slug

import pretrain
from dataset.tasks.arc.build import Config, build
from dataset.tasks.arc.files import parse_task
from dataset.tasks.arc.task import Arc
from evaluators.loading import load
from evaluators.reasoner import Reasoner
from utils.errors import UserError
from utils.file_names import safe_name
from utils.files import writing_to
from utils.hydra import compose
from utils.text_files import read_json

_SUBSET = "mine"


def adapt(
    model: Reasoner | Path | str,
    tasks: Mapping[str, Any] | Path | str | Sequence[Path | str],
    *,
    epochs: int = 200,
    augmentations: int = 100,
    output: Path | str | None = None,
    overrides: Sequence[str] = (),
) -> Reasoner:
    """Fine-tune a model on the demonstration pairs of new ARC tasks, all of them together.

    Args:
        model: a model for ARC, or what `load` reads.
        tasks: JSON files of tasks, each named after its file; or name -> the task, an object with `train` and `test`.
        epochs: length of the training; an epoch takes one copy of each task.
        augmentations: augmented copies of each task.
        output: an empty folder for the tasks, their data set and the run; None: a new one in checkpoints/adapted/.
        overrides: further overrides of pretrain.py, such as lr=3e-5.

    Returns:
        A model that knows these tasks by their names, and no others.

    Raises:
        UserError: the model is for another task, a file is no ARC task, or an override does not fit.
    """
    reasoner = model if isinstance(model, Reasoner) else load(model)
    if not isinstance(reasoner.task, Arc) or reasoner.head.model.puzzle_emb is None:
        raise UserError(
            f"adapt: {reasoner!r} is no model for ARC with an embedding for each task, so there is nothing to adapt."
        )
    folder = Path(output or f"checkpoints/adapted/{generate_slug(2)}")
    read = _read(tasks)
    with writing_to(folder, "Choose another output folder."):
        (folder / "tasks" / _SUBSET).mkdir(parents=True)
        for name, task in read.items():
            (folder / "tasks" / _SUBSET / f"{name}.json").write_text(json.dumps(task), encoding="utf-8")
    build(
        Config(
            input_file_prefix=str(folder / "tasks"),
            output_dir=folder / "data",
            subsets=[_SUBSET],
            test_set_name=_SUBSET,
            num_aug=augmentations,
        )
    )
    given = ["experiment=arc_adapt", f"load_checkpoint={reasoner.origin.path}", f"data_paths=[{folder / 'data'}]"]
    given += [f"checkpoint_path={folder / 'run'}", f"epochs={epochs}", *overrides]
    config = compose("cfg_pretrain", given)
    pretrain.train(config.model_copy(update={"arch": reasoner.origin.arch}))
    return load(folder / "run", reasoner.device.type)  # type: ignore[arg-type]


def _read(tasks: Mapping[str, Any] | Path | str | Sequence[Path | str]) -> dict[str, Any]:
    """Name -> task, checked."""
    if not isinstance(tasks, Mapping):
        paths = [Path(tasks)] if isinstance(tasks, Path | str) else [Path(path) for path in tasks]
        tasks = {path.stem: read_json(path, "Give the JSON file of an ARC task.") for path in paths}
    if not tasks:
        raise UserError("adapt: there is no task. Give at least one.")
    for name, task in tasks.items():
        safe_name(name, "adapt: the name of a task becomes that of a file;")
        if not isinstance(task, Mapping):
            raise UserError(f"adapt: the task {name}: expected is an object with 'train' and 'test'. Correct it.")
        parse_task(name, dict(task), f"the task {name}")
    return dict(tasks)
