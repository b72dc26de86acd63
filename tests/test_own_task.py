"""A task in a file from the command line to an answer: trained, evaluated, and used only where its file is named."""

import json
from pathlib import Path

import numpy as np
import pytest

import evaluate
import pretrain
from dataset.task_choice import choose_task, task_overrides
from dataset.tasks.given import given_tasks
from evaluators.loading import load
from tests.runs import ROOT
from tiny_recursive_model.predict import main as predict
from tiny_recursive_model.training import train
from utils.errors import UserError
from utils.hydra import compose

FILE = ROOT / "examples" / "futoshiki.py"
SMALL = [
    "experiment=own_task", "data_builder.options.train_size=8", "data_builder.options.test_size=4", "max_steps=1",
    "arch.hidden_size=32", "arch.num_heads=1", "eval_halt_max_steps=2", "compile=false", "wandb_mode=disabled",
    "global_batch_size=4", "checkpoint_path=run", "arch.forward_dtype=float32",
]  # fmt: skip


@pytest.mark.usefixtures("nothing_is_given")
@pytest.mark.thorough
def test_the_short_form_trains_a_task_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    kept = [one for one in SMALL if not one.startswith(("experiment", "data_builder.options.train", "checkpoint"))]
    reasoner = train(str(FILE), n_train=8, output="run", overrides=kept)
    assert reasoner.task.name == "futoshiki"
    question, _ = reasoner.task.random_example(np.random.default_rng(3))
    assert reasoner.solve(reasoner.task.decode(question), steps=2).verdict.status in ("solved", "wrong", "undecided")


@pytest.mark.usefixtures("nothing_is_given")
@pytest.mark.thorough
def test_a_task_in_a_file_is_trained_evaluated_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    pretrain.train(compose("cfg_pretrain", task_overrides([f"task={FILE}", *SMALL])))
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert {"Futoshiki/solved", "Futoshiki/exact", "all/exact_accuracy"} <= set(last)
    assert Path("run/example.png").exists()
    assert str(FILE) not in Path("run/all_config.yaml").read_text() + Path("run/train_data.json").read_text()

    given_tasks().clear()  # as in another process
    with pytest.raises(UserError, match=r"task 'futoshiki': the tasks are .* give the file on the command line"):
        load("run", "cpu")
    settings = ["load_checkpoint=run", "device=cpu", "compile=false", "save_path=scores", "blank_puzzle_id=true"]
    with pytest.raises(UserError, match=r"task 'futoshiki': the tasks are .* give the file on the command line"):
        evaluate.evaluate(compose("cfg_evaluate", settings))

    reasoner = load("run", "cpu", task=str(FILE))
    task = choose_task(str(FILE)).of(49, 11)
    question, _ = task.random_example(np.random.default_rng(3))
    answer = reasoner.solve(task.decode(question), steps=2)
    assert answer.verdict == task.verify(question, answer.tokens)
    results = evaluate.evaluate(compose("cfg_evaluate", settings))
    assert set(results) == {"all", "all, blank puzzle id"}
    assert results["all"] == results["all, blank puzzle id"]
    capsys.readouterr()
    status = predict([str(task.decode(question)), "--task", str(FILE), "--model", "run", "--json", "--device", "cpu"])
    line = json.loads(capsys.readouterr().out)
    assert (status, line["verdict"]) == (int(not answer.solved), answer.verdict.status)
    assert line["question"] == task.decode(question)
