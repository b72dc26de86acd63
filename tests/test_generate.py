"""Generating stories: the drawing of tokens against naive loops, and generate.py from the checkpoint to the file."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from generate import read_prompts
from models.inner import Level
from models.text.causal import DampedBlock
from models.text.generation import Continuation, Sampling, continue_texts, draw
from models.text.model import TextModel
from tests.evaluators.test_language import CPU, SEQ, VOCAB, small_head
from tests.runs import outcome, refused, start, tiny, write_sudoku
from tests.text_runs import tiny_text, write_text
from utils.errors import UserError
from utils.settings import GenerateConfig

EOS = VOCAB - 1
PROMPTS = [[3, 1, 4], [2], [7, 7, 7, 1, 0, 5]]


@pytest.fixture(scope="module")
def model() -> TextModel:
    model = small_head().eval().model
    assert isinstance(model, TextModel)
    level = model.inner.L_level
    assert isinstance(level, Level)
    for block in level.layers:
        assert isinstance(block, DampedBlock)
        block.SHARE = 3.0  # else an untrained model says its last token again and again
    return model


def continued(model: TextModel, prompts: list[list[int]], samplings: list[Sampling], **more: Any) -> list[Continuation]:
    settings = {"eos_id": EOS, "seq_len": SEQ, "max_new_tokens": 20, "halting": False, "device": CPU, **more}
    return continue_texts(model, prompts, samplings, **settings)


def greedy_by_hand(model: TextModel, prompt: list[int], count: int, halting: bool) -> tuple[list[int], list[int]]:
    """(tokens, steps): one text, one token at a time."""
    text, steps = list(prompt), []
    for _ in range(count):
        window = text[-SEQ:]
        state, made = model.answers(torch.tensor([window]), None, halting=halting)
        text.append(int(model.logits(state[0, -1]).argmax()))
        steps.append(int(made[0, -1]))
    return text[len(prompt) :], steps


# -- drawing -----------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("halting", [False, True])
def test_greedy_is_a_naive_loop(model: TextModel, halting: bool):
    # 20 new tokens after up to 6 go beyond the 12 that the model sees
    found = continued(model, PROMPTS, [Sampling(0, None, 0)] * 3, halting=halting)
    by_hand = [greedy_by_hand(model, prompt, 20, halting) for prompt in PROMPTS]
    for continuation, (tokens, steps) in zip(found, by_hand, strict=True):
        end = tokens.index(EOS) if EOS in tokens else len(tokens)
        assert continuation.tokens == tokens[:end]
        assert continuation.steps == steps[: end + 1]
        assert continuation.ended == ("eos" if end < len(tokens) else "length")
    assert len({token for tokens, _ in by_hand for token in tokens}) > 1
    if halting:
        assert len({count for _, steps in by_hand for count in steps}) > 1
    else:
        assert all(count == 3 for _, steps in by_hand for count in steps)


def test_it_stops_at_the_end_token(model: TextModel):
    tokens, _ = greedy_by_hand(model, PROMPTS[0], 20, halting=False)
    end = tokens[4]
    found = continued(model, PROMPTS[:1], [Sampling(0, None, 0)], eos_id=end)[0]
    assert found.tokens == tokens[: tokens.index(end)]
    assert found.ended == "eos"
    assert len(found.steps) == len(found.tokens) + 1
    cut = continued(model, PROMPTS[:1], [Sampling(0, None, 0)], eos_id=end, max_new_tokens=tokens.index(end))[0]
    assert (cut.tokens, cut.ended) == (found.tokens, "length")


@pytest.mark.thorough
def test_a_story_depends_on_its_prompt_settings_and_seed_alone(model: TextModel):
    samplings = [Sampling(1.0, None, 1), Sampling(1.3, 5, 1), Sampling(0.7, 3, 2)]
    alone = [continued(model, [p], [s])[0] for p, s in zip(PROMPTS, samplings, strict=True)]
    assert continued(model, PROMPTS, samplings) == alone
    assert continued(model, PROMPTS[::-1], samplings[::-1]) == alone[::-1]
    assert continued(model, [*PROMPTS, [1]], [*samplings, Sampling(0, None, 0)])[:3] == alone
    seeds = [continued(model, [PROMPTS[0]], [Sampling(1.0, None, seed)])[0].tokens for seed in range(8)]
    assert len({tuple(tokens) for tokens in seeds}) > 4


def test_the_most_probable_alone_is_greedy(model: TextModel):
    greedy = continued(model, PROMPTS, [Sampling(0, None, 0)] * 3)
    assert continued(model, PROMPTS, [Sampling(2.0, 1, 9)] * 3) == greedy
    assert continued(model, PROMPTS, [Sampling(1e-9, None, 9)] * 3) == greedy


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, 3), (1.0, 99)])
def test_tokens_are_drawn_as_often_as_they_are_probable(temperature: float, top_k: int | None):
    logits = torch.tensor([1.0, 0.0, 2.0, -1.0, 1.5], dtype=torch.float64)
    scaled = [float((value / temperature).exp()) for value in logits]
    kept = sorted(range(5), key=lambda token: -scaled[token])[:top_k]
    stream, count = torch.Generator().manual_seed(0), 6000
    drawn = Counter(draw(logits, Sampling(temperature, top_k, 0), stream) for _ in range(count))
    assert set(drawn) <= set(kept)
    for token in kept:
        assert drawn[token] / count == pytest.approx(scaled[token] / sum(scaled[t] for t in kept), abs=0.02)


# -- generate.py -------------------------------------------------------------------------------------------------------


def test_prompts_are_the_lines_of_the_file_as_they_stand(tmp_path: Path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffTim\u2028saw\r\n \r\nfu\u0308r\x85Anna".encode())
    config = GenerateConfig(load_checkpoint="mine", prompts=["Once"], prompts_file=str(path))
    assert read_prompts(config) == ["Once", "Tim\u2028saw", "fu\u0308r\x85Anna"]
    for content in (b"caf\xe9", b"a\n\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"prompts_file=.*prompts.txt is not in UTF-8: byte .*one prompt a line"):
            read_prompts(config)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a tiny model that has learned something of its stories."""
    folder = tmp_path_factory.mktemp("generate")
    data = write_text(folder / "data", train=120)
    settings = {"arch.hidden_size": 32, "max_sequences": 800, "eval_interval": None}
    start("pretrain_text.py", tiny_text(data, folder / "run", **settings), folder)
    return folder / "run"


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def asked(trained: Path, output: Path, *more: str) -> list[str]:
    prompt = 'prompts=["Once upon a time, Lily"]'
    return [f"load_checkpoint={trained}", prompt, f"output={output}", "device=cpu", "max_new_tokens=60", *more]


@pytest.mark.thorough
def test_a_trained_model_ends_its_stories(trained: Path, tmp_path: Path):
    output = start("generate.py", asked(trained, tmp_path / "out.jsonl", "temperature=0.5", "seed=[0,1,2,3]"), tmp_path)
    found = records(tmp_path / "out.jsonl")
    assert len(found) == 4
    ended = [record for record in found if record["ended"] == "eos"]
    assert ended
    for record in found:
        assert record["story"].startswith("Once upon a time, Lily")
        assert record["story"] in output
        assert "<|endoftext|>" not in record["story"]
    assert any(record["story"].endswith("The end.") for record in ended)
    assert all(0 < record["tokens"] < 60 for record in ended)
    assert str(tmp_path / "out.jsonl") in output


@pytest.mark.thorough
def test_a_line_of_the_file(trained: Path, tmp_path: Path):
    more = ["temperature=0.7", "top_k=5", "seed=3", "max_new_tokens=4", "halting=true", "halt_max_steps=5"]
    start("generate.py", asked(trained, tmp_path / "out.jsonl", *more), tmp_path)
    (record,) = records(tmp_path / "out.jsonl")
    assert 1 <= record.pop("mean_steps") <= 5
    assert record.pop("story").startswith("Once upon a time, Lily")
    settings = {"temperature": 0.7, "top_k": 5, "max_new_tokens": 4, "halting": True, "halt_max_steps": 5}
    expected = {"prompt": "Once upon a time, Lily", "settings": settings, "seed": 3, "ended": "length", "tokens": 4}
    assert record == expected


@pytest.mark.thorough
def test_a_sweep_is_every_combination_in_any_batches(trained: Path, tmp_path: Path):
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbfTim saw\r\n\r\nThe end\r\n")  # as editors on Windows do
    sweep = ["temperature=[0,1.0]", "top_k=[3,null]", "seed=[0,1]", "prompts_file=prompts.txt", "max_new_tokens=6"]
    for size in (1, 5):
        start("generate.py", asked(trained, tmp_path / f"{size}.jsonl", *sweep, f"batch_size={size}"), tmp_path)
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "5.jsonl").read_bytes()
    found = records(tmp_path / "1.jsonl")
    keys = [(r["prompt"], r["settings"]["temperature"], r["settings"]["top_k"], r["seed"]) for r in found]
    prompts = ("Once upon a time, Lily", "Tim saw", "The end")
    assert keys == [(p, t, k, s) for p in prompts for t in (0, 1) for k in (3, None) for s in (0, 1)]
    greedy = {r["story"] for r in found if r["prompt"] == "Tim saw" and r["settings"]["temperature"] == 0}
    assert len(greedy) == 1


def test_without_a_name_the_file_is_numbered(trained: Path, tmp_path: Path):
    args = [f"load_checkpoint={trained / 'step_600'}", 'prompts=[""]', "max_new_tokens=2", "device=cpu", "output=null"]
    for _ in range(2):
        start("generate.py", args, tmp_path)
    assert {path.name for path in (tmp_path / "stories").iterdir()} == {"run-step_600.jsonl", "run-step_600-2.jsonl"}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("prompts=[]", ["there is no prompt", "prompts_file=FILE"]),
        ("prompts_file=nowhere.txt", ["prompts_file=nowhere.txt", "one prompt a line"]),
        ("prompts_file=/dev/null", ["/dev/null is a device, expected a regular file", "one prompt a line"]),
        ("temperature=-1", ["temperature.0=-1", "greater than or equal to 0"]),
        ("top_k=0", ["top_k.0=0", "greater than or equal to 1"]),
        ("seed=[]", ["seed=[]", "at least 1 item"]),
        ("temprature=1", ["temprature: no such key", "Did you mean 'temperature'"]),
        ("load_checkpoint=nowhere/step_3", ["there is no file nowhere/step_3"]),
        ("load_checkpoint=.", ["there is no step_<N>"]),
        ("device=gpu", ["device='gpu'", "'cuda'"]),
    ],
)
def test_bad_input(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, parts: list[str]):
    monkeypatch.chdir(tmp_path)
    refused("generate", [*asked(trained, tmp_path / "out.jsonl"), change], *parts)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(trained: Path, tmp_path: Path):
    (tmp_path / "out.jsonl").write_text("mine")
    refused("generate", asked(trained, tmp_path / "out.jsonl"), "exists already")
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_incomplete_run_folders(trained: Path, tmp_path: Path):
    copy = shutil.copytree(trained, tmp_path / "copy")
    (copy / "all_config.yaml").rename(copy / "config.yaml")
    refused("generate", asked(copy, tmp_path / "out.jsonl"), "all_config.yaml is missing")
    (copy / "config.yaml").rename(copy / "all_config.yaml")
    (copy / "text_tokenizer.json").unlink()
    refused("generate", asked(copy, tmp_path / "out.jsonl"), "text_tokenizer.json")


def test_a_checkpoint_of_puzzles(tmp_path: Path):
    data = write_sudoku(tmp_path / "data", groups=12, tests=5)
    assert outcome("pretrain", tiny(data, tmp_path / "run", max_steps=1))[0] == 0
    refused("generate", asked(tmp_path / "run", tmp_path / "out.jsonl"), "text_tokenizer.json")
