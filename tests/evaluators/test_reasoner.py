"""Loading models from wherever they lie, solving with them, and saving them."""

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from dataset.tasks.puzzle import Solutions
from dataset.tasks.sudoku.task import Sudoku
from dataset.tasks.task import Task
from evaluators.answer import Answer
from evaluators.answers import HaltRule, answer_batches
from evaluators.loading import load, shipped_names
from evaluators.reasoner import Reasoner
from evaluators.search import SearchRule
from models.pretrained import load_model, open_checkpoint
from tests.evaluators.small_reasoners import ARCH, NAMES, SIZES, write_run
from utils.errors import UserError
from utils.machine import choose_machine

EASY = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
HARD = "1....7.9..3..2...8..96..5....53..9...1..8...26....4...3......1..4......7..7...3.."
SOLVED = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"


def random_puzzles(task: Task, count: int) -> list[Any]:
    """Puzzles of a task, not all of which have a solution."""
    rng = np.random.default_rng(0)
    if task.name == "maze":
        cells = rng.choice(list("#  "), (count, task.seq_len))
        cells[:, 0], cells[:, -1] = "S", "G"
        return ["".join(row) for row in cells]
    if task.name == "arithmetic":
        return [f"{a}+{b}" for a, b in rng.integers(0, 100, (count, 2))]
    if task.name == "arc":
        return [rng.integers(0, 10, (3, 4)).tolist() for _ in range(count)]
    return ["".join(row) for row in rng.choice(list("....1234"), (count, task.seq_len))]


def same(one: list[Answer], two: list[Answer]) -> None:
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert a.step_tokens.tobytes() == b.step_tokens.tobytes()
        assert a.step_halt.tobytes() == b.step_halt.tobytes()
        assert (a.tokens.tobytes(), a.steps, a.verdict) == (b.tokens.tobytes(), b.steps, b.verdict)


@pytest.mark.parametrize(
    ("task", "count"),
    [(task, 20 if task != "arc" else 2) for task in SIZES]
    + [pytest.param(task, 200, marks=pytest.mark.slow if task == "arc" else pytest.mark.thorough) for task in SIZES],
)
def test_a_saved_model_is_the_checkpoint_bit_for_bit(task: str, count: int, tmp_path: Path):
    for seed in range(20):
        run = write_run(tmp_path / f"run_{seed}", task, seed=seed)
        of_run = load(run, "cpu")
        puzzles = random_puzzles(of_run.task, count)
        answers = of_run.solve(puzzles, steps=4, attempts=None)
        if len({answer.tokens.tobytes() for answer in answers}) > 1:
            break  # an untrained model may answer everything alike
    else:
        raise AssertionError("all models answer everything alike")
    of_file = load(run / "step_3", "cpu")
    saved = of_run.save(tmp_path / "saved")
    assert sorted(path.name for path in saved.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    again = load(saved, "cpu")
    for name, value in of_run.head.state_dict().items():
        assert torch.equal(value, again.head.state_dict()[name])
    same(answers, of_file.solve(puzzles, steps=4, attempts=None))
    same(answers, again.solve(puzzles, steps=4, attempts=None))
    # without early halting it is what the checkpoint's own model computes
    checkpoint = open_checkpoint(run / "step_3")
    head = load_model(checkpoint, choose_machine("cpu", "float32"), *SIZES[task])
    inputs = torch.stack([torch.from_numpy(answer.question.tokens.astype(np.int32)) for answer in answers])
    data = {"inputs": inputs[:128], "puzzle_identifiers": torch.zeros(len(inputs[:128]), dtype=torch.int32)}
    *_, (_, outputs) = head.model.answer_steps(data, 4)
    full = of_run.solve(puzzles, steps=4, halting=None, attempts=None)[:128]
    assert np.stack([answer.tokens for answer in full]).tolist() == outputs["logits"].argmax(-1).tolist()
    assert all(answer.steps == 4 for answer in full)


def test_early_halting_is_that_of_evaluations(tmp_path: Path):
    reasoner = load(write_run(tmp_path / "run", "sudoku"), "cpu")
    puzzles = random_puzzles(reasoner.task, 40)
    answers = reasoner.solve(puzzles)
    inputs = torch.from_numpy(np.stack([answer.question.tokens for answer in answers]).astype(np.int32))
    batch = {"inputs": inputs, "labels": torch.zeros_like(inputs), "puzzle_identifiers": inputs[:, 0] * 0}
    ((_, expected),) = answer_batches(reasoner.head, [batch], slots=40, halting=HaltRule())
    assert [answer.steps for answer in answers] == expected.predictions["steps"].tolist()
    assert np.stack([answer.tokens for answer in answers]).tolist() == expected.predictions["preds"].tolist()
    assert len({answer.steps for answer in answers}) > 1
    assert all(len(answer.step_tokens) == len(answer.step_halt) == answer.steps for answer in answers)
    assert all(answer.halt_probability == answer.step_halt[-1] for answer in answers)


def test_what_an_answer_shows(tmp_path: Path):
    reasoner = load(write_run(tmp_path / "run", "sudoku"), "cpu")
    answer = reasoner.solve("1..4.41.2..3.32.", steps=3, halting=None)
    assert isinstance(answer, Answer)
    assert answer.grid.shape == (4, 4)
    assert len(answer.text.splitlines()) == 4
    assert answer.text.replace("\n", "") == answer.written == answer.step_answers[-1]
    assert answer.verdict.status == "wrong"
    assert not answer.solved
    assert "question" in str(answer)
    assert str(answer).endswith(answer.summary())
    assert repr(answer) == f"<Answer {answer.summary()}>"
    image = answer._repr_html_()
    assert image.startswith('<figure><img src="data:image/png;base64,iVBOR')
    assert "3 steps" in image
    best = answer.best(9)
    assert best[0][0] == answer.written
    assert len({str(written) for written, _ in best}) == len(best) <= 3
    assert [halt for _, halt in best[1:]] == sorted((halt for _, halt in best[1:]), reverse=True)
    assert answer.best(1) == best[:1]
    assert isinstance(reasoner.solve(["1..4.41.2..3.32."]), list)


def test_a_search_returns_verified_boards_only():
    reasoner = load("sudoku_search", "cpu")
    assert reasoner.searches
    answer = reasoner.solve(EASY)
    assert answer.solved
    assert answer.written == SOLVED
    assert answer.halt_probability is None
    assert answer.step_tokens[-1].tolist() == answer.tokens.tolist()
    twice, hard = reasoner.solve(["55" + "." * 79, "." * 81], rule=SearchRule(chains=1, rounds=2))
    assert (twice.verdict.status, twice.steps) == ("undecided", 0)
    assert "the digit 5 is in row 1 more than once" in twice.verdict.reason
    assert twice.written == "55" + "." * 79
    assert hard.verdict.status == "undecided"
    assert hard.verdict.reason == "the search gave up after 2 rounds of 1 chains"
    assert hard.written == "." * 81
    assert len(hard.step_tokens) == 2
    assert "open" in hard.picture() or hard.step_tokens[-1].tolist() == hard.tokens.tolist()


def test_a_search_by_the_rules_as_well_is_the_default():
    reasoner = load("sudoku_search", "cpu")
    easy, hard, empty = reasoner.solve([EASY, HARD, "." * 81], steps=60)
    assert (easy.steps, easy.verdict.reason.endswith("; the rules alone led to it")) == (0, True)
    assert hard.solved
    assert hard.steps > 0
    assert "rules alone" not in hard.verdict.reason
    assert hard.step_tokens[-1].tolist() == hard.tokens.tolist()
    assert empty.solved
    gave_up = reasoner.solve(HARD, rule=SearchRule(rounds=1, propagate=True))
    assert gave_up.verdict.reason == "the search gave up after trying 1 candidate"


def test_a_search_may_prove_what_the_exact_solver_cannot(monkeypatch: pytest.MonkeyPatch):
    """The exact solver is allowed a number of guesses; where it gives up, the search goes on."""
    reasoner = load("sudoku_search", "cpu")
    monkeypatch.setattr(Sudoku, "solutions", lambda self, question: Solutions("unknown"))
    answer = reasoner.solve(EASY.replace(".", "1", 1))
    assert (answer.verdict.status, answer.solved) == ("undecided", False)
    assert answer.verdict.reason == "it has no solution, because every branch of the search breaks the rules"


def test_a_puzzle_with_several_solutions_is_called_so():
    several = SOLVED.replace("1", ".").replace("2", ".")
    answer = load("sudoku_search", "cpu").solve(several)
    assert answer.solved
    assert "one of several solutions" in answer.verdict.reason


def test_puzzles_known_by_name(tmp_path: Path):
    reasoner = load(write_run(tmp_path / "run", "arc", rows=3, puzzle_emb_ndim=16, puzzle_emb_len=1), "cpu")
    assert reasoner.origin.puzzles == NAMES
    pair = {"input": [[1, 2]], "output": [[2, 1]]}
    task = {"train": [pair], "test": [{"input": [[3, 4]]}, pair]}
    first = reasoner.solve(task, steps=1, name="first")
    second = reasoner.solve(task, steps=1, name="second")
    assert [answer.verdict.checked for answer in first] == [False, True]
    assert first[0].step_halt.tolist() != second[0].step_halt.tolist()
    saved = load(reasoner.save(tmp_path / "saved"), "cpu")
    same(saved.solve(task, steps=1, name="second"), second)
    file = tmp_path / "second.json"
    file.write_text(json.dumps(task))
    same(saved.solve(file, steps=1), second)
    for name in (None, "third"):
        with pytest.raises(UserError, match="experiment=arc_adapt") as error:
            reasoner.solve(task, name=name)
        assert ("without a name" if name is None else "'third'") in str(error.value)


def test_published_checkpoints_do_not_say_their_task(tmp_path: Path):
    """Then the vocabulary and the sizes of published data sets tell, or the user."""
    run = write_run(tmp_path / "run", "arc", rows=1)
    (run / "train_data.json").unlink()
    assert load(run, "cpu").task.name == "arc"
    other = write_run(tmp_path / "other", "arithmetic")
    (other / "train_data.json").unlink()
    with pytest.raises(UserError, match=r"nothing says which task .*\n?.*load\(path, task=..., seq_len=...\)"):
        load(other, "cpu")
    assert load(other, "cpu", task="arithmetic", seq_len=9).task.seq_len == 9
    named = write_run(tmp_path / "named", "maze", mlp_t=True)
    config = yaml.safe_load((named / "all_config.yaml").read_text())
    config["evaluators"] = [{"name": "maze@Maze"}]
    (named / "all_config.yaml").write_text(yaml.safe_dump(config))
    (named / "train_data.json").unlink()
    assert load(named, "cpu", seq_len=49).task.name == "maze"


class Evil:
    """Pickled, it is a call that leaves a file behind."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def malicious(folder: Path, trace: Path) -> list[Path]:
    """Files that would leave `trace` behind if they were unpickled."""
    folder.mkdir()
    (folder / "all_config.yaml").write_text(yaml.safe_dump({"arch": ARCH}))
    (folder / "step_1").write_bytes(pickle.dumps({"a": Evil(trace)}))
    torch.save({"model.weight": torch.ones(2), "evil": Evil(trace)}, folder / "step_2")
    saved = folder / "saved"
    saved.mkdir()
    (saved / "config.json").write_text("{}")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Evil(trace)))
    (saved / "model.safetensors").write_bytes(content.getvalue())
    return [folder / "step_1", folder / "step_2", saved]


def test_a_malicious_pickle_runs_nothing(tmp_path: Path):
    trace = tmp_path / "trace"
    pickle.loads(pickle.dumps(Evil(trace)))
    assert trace.exists()  # so it would be left
    trace.unlink()
    for path in malicious(tmp_path / "evil", trace):
        with pytest.raises(UserError):
            load(path, "cpu")
        assert not trace.exists()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"task": {"name": "sudoko"}}, "Did you mean 'sudoku'"),
        ({"seq_len": 17}, "fit no Sudoku"),
        ({"seq_len": "many"}, "seq_len='many'"),
        ({"arch": {**ARCH, "name": "os@system"}}, "there is no module models.os"),
        ({"arch": {**ARCH, "hidden_size": 32}}, "holds another architecture"),
        ({"format_version": 2}, "format_version=2"),
    ],
)
def test_a_damaged_configuration_is_refused(tmp_path: Path, change: dict[str, Any], part: str):
    saved = load(write_run(tmp_path / "run", "sudoku"), "cpu").save(tmp_path / "saved")
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UserError, match=part.replace("(", r"\(")):
        load(saved, "cpu")


def test_damaged_weights_and_wrong_paths_are_refused(tmp_path: Path):
    run = write_run(tmp_path / "run", "sudoku")
    saved = load(run, "cpu").save(tmp_path / "saved")
    content = bytearray((saved / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="does not have the checksum"):
        load(saved, "cpu")
    with pytest.raises(UserError, match=r"'sudoku_serch'.*weights/: .*sudoku_search.*Did you mean 'sudoku_search'"):
        load("sudoku_serch")
    with pytest.raises(UserError, match="holds no model: neither model.safetensors"):
        load(run / "data")
    with pytest.raises(UserError, match="steps 0: at least 1"):
        load(run, "cpu").solve("1..4.41.2..3.32.", steps=0)
    assert "sudoku_search" in shipped_names()


def test_the_hub_reads_and_writes_the_same_folder(tmp_path: Path):
    reasoner = load(write_run(tmp_path / "run", "sudoku"), "cpu")
    reasoner.save_pretrained(tmp_path / "hub")
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    card = (tmp_path / "hub" / "README.md").read_text()
    assert card.startswith("---\n")
    assert "library_name: tiny-recursive-reasoning" in card
    again = Reasoner.from_pretrained(tmp_path / "hub", device="cpu")
    puzzles = random_puzzles(reasoner.task, 20)
    same(again.solve(puzzles), reasoner.solve(puzzles))
    (tmp_path / "hub" / "README.md").write_text("mine")
    again.save_pretrained(tmp_path / "hub")
    assert (tmp_path / "hub" / "README.md").read_text() == "mine"
    (tmp_path / "hub" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="is no saved model"):
        Reasoner.from_pretrained(tmp_path / "hub", device="cpu")
