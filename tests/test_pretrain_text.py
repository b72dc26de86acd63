"""Training on text: the configurations, what a run writes, resume, ranks, bad input."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from dataset.text.feed import kept_batches
from dataset.text.opening import plan_rows
from models.factory import check_arch, make_head
from tests.paths import SHARED
from tests.runs import different, kill_at, metrics, refused, start, tensors, tiny
from tests.text_runs import tiny_text, write_text
from utils.checkpoint import load_train_state, load_weights, train_state_path, weights_path
from utils.config import plain, read_yaml, validate
from utils.errors import UserError
from utils.hydra import CONFIG_DIR
from utils.optimizers import learning_rate
from utils.settings import TextConfig

PARAMETERS = {
    "cfg_tinystories_1m": 1_066_114,
    "cfg_tinystories_1m_noact": 1_066_114,
    "cfg_tinystories_1m_flat": 1_033_346,
    "cfg_tinystories_1m_moeut": 1_084_038,
    "cfg_tinystories_1m_moeut_act": 1_084_038,
    "cfg_tinystories_10m_moeut": 10_235_014,
}
MOE = {
    "arch": "text_moeut",
    "arch.num_heads": 1,
    "arch.num_experts": 4,
    "arch.expert_size": 16,
    "arch.halt_max_steps": 2,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("data") / "text")


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: 10 batches of 4 rows, 3 steps each."""
    folder = tmp_path_factory.mktemp("runs")
    start("pretrain_text.py", tiny_text(data, folder / "trained"), folder)
    return folder / "trained"


def composed(name: str, *overrides: str) -> TextConfig:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return validate(TextConfig, plain(compose(name, list(overrides))))


# -- the configurations ------------------------------------------------------------------------------------------------


def test_every_configuration_is_listed():
    assert {path.stem for path in CONFIG_DIR.glob("cfg_tinystories_*.yaml")} == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_configuration_has_the_published_size(name: str):
    config = composed(name)
    check_arch(config.arch, data="text")
    head = make_head(config.arch, 10_000, config.seq_len, data="text")
    assert sum(p.numel() for p in head.parameters()) == PARAMETERS[name]
    assert str(PARAMETERS[name])[-3:] in (CONFIG_DIR / f"{name}.yaml").read_text()
    assert f"{PARAMETERS[name]:,}" in (CONFIG_DIR / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", PARAMETERS)
def test_configuration_has_the_published_settings(name: str):
    config, published = composed(name), {
        "seq_len": 512, "max_sequences": 2_100_000, "eval_interval": 10_000, "eval_batches": 10, "seed": 42,
        "optimizer": "adamw", "lr": 1e-2, "lr_min_ratio": 0.01, "lr_warmup_ratio": 0.02, "beta1": 0.9, "beta2": 0.95,
        "weight_decay": 0.0, "grad_clip_norm": 1.0, "ema": False, "tokenizer": "gpt-neo-10k",
        "data_name": "roneneldan/TinyStories", "global_batch_size": 32 if "10m" in name else 64,
    }  # fmt: skip
    assert {key: getattr(config, key) for key in published} == published
    act = name in ("cfg_tinystories_1m", "cfg_tinystories_1m_moeut_act")
    arch = config.arch.own_keys
    assert arch["halt_max_steps"] == (4 if act else 1)
    assert arch["forward_dtype"] == "float32"
    assert arch["hidden_size"] == 64
    if act:
        assert arch["halt_exploration_prob"] == 0.05
    cycles = {"1m": 6, "1m_noact": 7, "1m_moeut": 7, "1m_moeut_act": 7, "10m_moeut": 4}
    if "flat" not in name:
        assert arch["L_cycles"] == cycles[name.removeprefix("cfg_tinystories_")]
        assert arch["H_cycles"] == 1
        assert arch["L_layers"] == 2


def test_sequences_make_steps():
    config = composed("cfg_tinystories_1m")
    total, evaluations = plan_rows(config, keep=4)
    assert total == 2_100_000 // 64 * 4 == 131_248
    assert len(evaluations) == 209  # 2,099,968 sequences reach the 209th multiple of 10,000
    assert min(evaluations) == 157 * 4  # 157 batches of 64 are the first 10,000 sequences
    assert all(step % 4 == 0 for step in evaluations)
    assert max(evaluations) <= total
    assert config.lr_warmup_ratio * total == pytest.approx(0.02 * 131_248)
    assert plan_rows(composed("cfg_tinystories_1m", "max_sequences=130", "eval_interval=1"), keep=1) == (2, {1, 2})
    assert plan_rows(composed("cfg_tinystories_1m", "max_sequences=130", "eval_interval=null"), keep=3) == (6, set())
    with pytest.raises(UserError, match="max_sequences=63 make no whole batch of global_batch_size=64"):
        plan_rows(composed("cfg_tinystories_1m", "max_sequences=63"), keep=4)


def test_a_batch_is_kept_and_a_resume_reads_it_again():
    def loader(first: int):
        return (({"inputs": torch.tensor([n])}, {"after": n}) for n in range(first, 100))

    def made(start: int, steps: range, first: int) -> list[tuple[int, int, int]]:
        batches = kept_batches(loader(first), {"after": start}, steps, 3, torch.device("cpu"))
        return [(step, int(batch["inputs"]), position["after"]) for step, batch, position in batches]

    whole = made(0, range(1, 10), 1)
    assert [batch for _, batch, _ in whole] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    for stopped in range(1, 9):
        _, _, position = whole[stopped - 1]
        assert made(position, range(stopped + 1, 10), position + 1) == whole[stopped:]


# -- a run -------------------------------------------------------------------------------------------------------------


def test_what_a_run_writes(trained: Path):
    lines = metrics(trained)
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert [line["train/sequences"] for line in lines] == [4 * (1 + step // 3) for step in range(30)]
    # evaluations: 16 and 32 sequences, and the end
    evaluated = [line for line in lines if "eval/perplexity" in line]
    assert [line["step"] for line in evaluated] == [12, 24, 30]
    for line in evaluated:
        assert line["eval/perplexity"] == pytest.approx(math.exp(line["eval/lm_loss"]))
        assert 1 <= line["eval/steps"] <= 3
        assert 0 <= line["eval/accuracy"] <= 1
    assert evaluated[-1]["eval/perplexity"] < evaluated[0]["eval/perplexity"] < 320
    for line in lines:
        ends_batch = line["step"] % 3 == 0
        assert ("train/accuracy" in line) == ("train/steps" in line) == ends_batch
        assert {"train/lm_loss", "train/q_halt_loss", "train/lr", "optim/grad_norm"} <= line.keys()
        assert not any(key.startswith("perf/") for key in line)
    assert (trained / "perf.jsonl").read_text().count("perf/tokens_per_second") == 30

    values = read_yaml(trained / "all_config.yaml")
    assert values.pop("resolved") == {"device": "cpu", "forward_dtype": "float32"}
    config = validate(TextConfig, values)
    assert config.max_sequences == 40
    rates = [learning_rate(1e-2, step, 30, round(0.02 * 30), 0.01) for step in range(1, 31)]
    assert [line["train/lr"] for line in lines] == pytest.approx(rates)
    assert rates[-1] == pytest.approx(1e-4)

    names = {path.name for path in trained.iterdir()}
    assert names >= {"text_tokenizer.json", "code", "step_12", "step_24", "step_30", "step_30_train_state.pt"}
    assert "step_12_train_state.pt" not in names  # two are kept
    position = load_train_state(train_state_path(trained, 30))["text"]
    assert position["rows"] == 40


def test_training_repeats_itself(data: Path, trained: Path, tmp_path: Path):
    start("pretrain_text.py", tiny_text(data, tmp_path / "again"), tmp_path)
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()
    assert different(load_weights(trained / "step_30"), load_weights(tmp_path / "again" / "step_30")) == []


def test_a_worker_changes_nothing(data: Path, trained: Path, tmp_path: Path):
    start("pretrain_text.py", tiny_text(data, tmp_path / "run", num_workers=1), tmp_path)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()
    states = [load_train_state(train_state_path(folder, 30)) for folder in (trained, tmp_path / "run")]
    assert states[0]["text"] == states[1]["text"]


def test_micro_batches_are_one_batch(data: Path, trained: Path, tmp_path: Path):
    start("pretrain_text.py", tiny_text(data, tmp_path / "run", grad_accum_steps=2, max_steps=6), tmp_path)
    for one, two in zip(metrics(trained)[:5], metrics(tmp_path / "run")[:5], strict=True):
        assert two == pytest.approx(one, rel=1e-5)


def test_experts_are_measured(data: Path, tmp_path: Path):
    start("pretrain_text.py", tiny_text(data, tmp_path / "run", **MOE, max_sequences=8), tmp_path)
    lines = metrics(tmp_path / "run")
    assert len(lines) == 4
    for line in lines:
        assert "train/moe_loss" in line
        loads = {key for key in line if key.startswith("moe/")}
        assert len(loads) == (6 if line["step"] % 2 == 0 else 0)
    last = lines[-1]
    assert 0 <= last["moe/ff_least_busy"] < 1 / 4 < last["moe/ff_busiest"] <= 1
    # perplexity is of the token loss alone
    assert last["eval/perplexity"] == pytest.approx(math.exp(last["eval/lm_loss"]))


def test_more_steps_in_evaluation(data: Path, trained: Path, tmp_path: Path):
    start("pretrain_text.py", tiny_text(data, tmp_path / "run", eval_halt_max_steps=1), tmp_path)
    one, three = metrics(tmp_path / "run"), metrics(trained)
    assert one[-1]["eval/steps"] == 1
    assert one[-1]["eval/lm_loss"] != three[-1]["eval/lm_loss"]
    assert [line["train/lm_loss"] for line in one] == [line["train/lm_loss"] for line in three]


# -- resume and ranks --------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_killed_and_resumed_equals_uninterrupted(data: Path, tmp_path: Path):
    # saved after every fifth step, so in the middle of batches too
    settings = {"checkpoint_every_steps": 5, "checkpoint_every_eval": False, "ema": True, "ema_rate": 0.9}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    start("pretrain_text.py", tiny_text(data, whole, **settings), tmp_path)
    args = tiny_text(data, broken, **settings, load_checkpoint="latest")
    kill_at("pretrain_text.py", 14, args, tmp_path, broken)
    assert not weights_path(broken, 30).exists()
    output = start("pretrain_text.py", args, tmp_path)
    assert "going on from step" in output
    same_runs(whole, broken)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "stopped"), [("dense", 4), ("dense", 5), ("dense", 6), ("experts", 5), ("streaming", 5)]
)
def test_resume_after_any_step_of_a_batch(data: Path, tmp_path: Path, kind: str, stopped: int):
    settings: dict[str, Any] = {"eval_interval": None, "checkpoint_every_eval": False}
    settings |= MOE if kind == "experts" else {"streaming": kind == "streaming"}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    start("pretrain_text.py", tiny_text(data, whole, **settings, max_steps=11, eval_batches=1), tmp_path)
    start("pretrain_text.py", tiny_text(data, parts, **settings, max_steps=stopped, eval_batches=1), tmp_path)
    lines = (parts / "metrics.jsonl").read_text().splitlines()
    (parts / "metrics.jsonl").write_text("\n".join([*lines[:-1], without_evaluation(lines[-1])]) + "\n")
    args = tiny_text(data, parts, **settings, max_steps=11, eval_batches=1, load_checkpoint="latest")
    start("pretrain_text.py", args, tmp_path)
    same_runs(whole, parts)


def without_evaluation(line: str) -> str:
    """A line of metrics.jsonl without what the evaluation at the end of a run adds."""
    return json.dumps({key: value for key, value in json.loads(line).items() if not key.startswith("eval/")})


def same_runs(one: Path, two: Path) -> None:
    """Equal, bit for bit: metrics, weights, and all that a resume needs."""
    assert (one / "metrics.jsonl").read_text() == (two / "metrics.jsonl").read_text()
    last = metrics(one)[-1]["step"]
    assert different(load_weights(weights_path(one, last)), load_weights(weights_path(two, last))) == []
    states = [load_train_state(train_state_path(folder, last)) for folder in (one, two)]
    for state in states:
        del state["run"], state["config"]  # names and folders differ
    assert different(*states) == []


@pytest.mark.thorough
def test_two_processes_equal_one(data: Path, tmp_path: Path):
    settings = {**MOE, "arch.halt_max_steps": 3, "max_sequences": 24, "eval_interval": 12, "lr": 1e-4}
    start("pretrain_text.py", tiny_text(data, tmp_path / "one", **settings), tmp_path)
    start("pretrain_text.py", tiny_text(data, tmp_path / "two", **settings), tmp_path, processes=2)
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert len(one) == len(two) == 18
    for left, right in zip(one, two, strict=True):
        assert right == pytest.approx(left, rel=1e-5, abs=1e-6), left["step"]
    weights = [load_weights(weights_path(tmp_path / name, 18)) for name in ("one", "two")]
    for name, value in weights[0].items():
        assert float((weights[1][name] - value).abs().max()) <= 1e-5 * max(1e-30, float(value.abs().max())), name
    # nothing in a checkpoint depends on the number of processes
    states = [load_train_state(train_state_path(tmp_path / name, 18)) for name in ("one", "two")]
    assert states[0]["text"] == states[1]["text"]
    shapes = [{path: value.shape for path, value in tensors(state["carry"]).items()} for state in states]
    assert shapes[0] == shapes[1]


# -- starting from weights ---------------------------------------------------------------------------------------------


def test_a_new_run_from_weights(data: Path, trained: Path, tmp_path: Path):
    args = tiny_text(data, tmp_path / "run", max_steps=1, lr=0.0, load_checkpoint=trained / "step_30")
    output = start("pretrain_text.py", args, tmp_path)
    assert "a new run from the weights" in output
    assert different(load_weights(trained / "step_30"), load_weights(tmp_path / "run" / "step_1")) == []
    # a rate of zero leaves the model as it was, so it is exactly as good
    before, after = metrics(trained)[-1], metrics(tmp_path / "run")[-1]
    assert after["eval/perplexity"] == before["eval/perplexity"]
    same = (trained / "text_tokenizer.json").read_bytes() == (tmp_path / "run" / "text_tokenizer.json").read_bytes()
    assert same


def test_weights_with_another_vocabulary_or_none(data: Path, trained: Path, tmp_path: Path):
    weights = f"load_checkpoint={trained / 'step_30'}"
    args = [*tiny_text(data, tmp_path / "run"), weights]
    refused("pretrain_text", [*args, "tokenizer=gpt-neo"], "another vocabulary", "tokenizer=gpt2, here")
    refused("pretrain_text", [*args, "max_vocab=300"], "another vocabulary", "max_vocab=300")
    bare = shutil.copytree(trained, tmp_path / "bare")
    (bare / "text_tokenizer.json").unlink()
    refused("pretrain_text", [*args, f"load_checkpoint={bare / 'step_30'}"], "text_tokenizer.json")
    assert not (tmp_path / "run").exists()


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("data_fils=[x]", ["data_fils: no such key", "Did you mean 'data_files'"]),
        ("epochs=3", ["epochs: no such key"]),
        ("puzzle_emb_lr=1", ["puzzle_emb_lr: no such key"]),
        ("arch.L_cycle=3", ["arch.L_cycle: no such key", "Did you mean 'L_cycles'"]),
        ("arch=trm", ["an architecture for puzzles", "pretrain.py"]),
        ("arch=text", ["arch/text", "text_moeut"]),
        ("arch.hidden_size=15", ["arch", "hidden_size 15"]),
        ("max_sequences=many", ["max_sequences='many'", "integer"]),
        ("max_sequences=3", ["max_sequences=3 make no whole batch of global_batch_size=4"]),
        ("seq_len=1", ["seq_len=1", "greater than or equal to 2"]),
        ("held_out=1.5", ["held_out=1.5", "less than 1"]),
        ("cap=alphabet", ["cap='alphabet'", "'frequency' or 'lowest_ids'"]),
        ("lr_warmup_ratio=2", ["lr_warmup_ratio=2", "less than or equal to 1"]),
        ("global_batch_size=6 grad_accum_steps=4", ["grad_accum_steps 4 does not divide global_batch_size 6"]),
        ("data_files=[nowhere/story.txt]", ["nowhere/story.txt"]),
        ("data_files=[nowhere/*.txt]", ["nowhere/*.txt"]),
        ("data_files_test=[nowhere/valid.txt]", ["nowhere/valid.txt"]),
        ("vocab_file=nowhere/vocab.json", ["nowhere/vocab.json"]),
        ("merges_file=null", ["merges_file"]),
        ("max_vocab=100", ["max_vocab", "100"]),
        ("load_checkpoint=nowhere/step_5", ["nowhere"]),
        ("optimizer=sgd", ["optimizer='sgd'", "adamw"]),
        ("wandb_mode=sometimes", ["wandb_mode='sometimes'", "offline"]),
    ],
)  # fmt: skip
def test_bad_configuration(data: Path, tmp_path: Path, change: str, parts: list[str]):
    refused("pretrain_text", [*tiny_text(data, tmp_path / "run"), *change.split()], *parts)
    assert not (tmp_path / "run").exists()


def test_batch_not_divisible_by_ranks(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    refused("pretrain_text", tiny_text(data, tmp_path / "run"), "global_batch_size 4 is not divisible by 3")


def test_resume_with_other_settings_or_other_text(data: Path, trained: Path, tmp_path: Path):
    copy = shutil.copytree(trained, tmp_path / "copy")
    args = [*tiny_text(data, copy), "load_checkpoint=latest"]
    refused("pretrain_text", [*args, "arch.L_cycles=3"], "made with other settings", "arch")
    refused("pretrain_text", [*args, "max_sequences=80"], "made with other settings", "max_sequences: 40 before, 80")
    refused("pretrain_text", [*args, "seq_len=32"], "seq_len")
    refused("pretrain_text", [*args, "tokenizer=gpt-neo"], "another vocabulary")
    other = write_text(tmp_path / "other", train=61)
    refused("pretrain_text", [*args, f"data_files=[{other / 'train.txt'}]"], "data")
    refused("pretrain_text", tiny_text(data, copy), "already holds checkpoints", "load_checkpoint=latest")


def test_puzzle_and_text_architectures_do_not_mix(tmp_path: Path):
    refused("pretrain", [*tiny(tmp_path, tmp_path / "run"), "arch=text_trm"], "an architecture for text")


def test_diverged(data: Path, tmp_path: Path):
    args = tiny_text(data, tmp_path / "run", lr=1000, weight_decay=100, grad_clip_norm=None, lr_warmup_ratio=0)
    refused("pretrain_text", args, "training has diverged", "lr")


# -- W&B ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def wandb_settings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What wandb.init is called with, in place of calling it."""
    import wandb

    class Run:
        def log(self, values: dict[str, Any], step: int | None = None) -> None:
            pass

        def finish(self, exit_code: int | None = None) -> None:
            pass

    calls: list[dict[str, Any]] = []

    def init(**settings: Any) -> Run:
        calls.append(settings)
        return Run()

    monkeypatch.setattr(wandb, "init", init)
    return calls


def test_wandb_variables_count(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb_settings: list[dict[str, Any]]
):
    variables = {
        "MODE": "offline",
        "PROJECT": "mine",
        "NAME": "third",
        "RUN_ID": "abc",
        "RESUME": "never",
        "DIR": "logs",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    args = tiny_text(data, None, wandb_mode=None, max_steps=1)
    start("pretrain_text.py", args, tmp_path)
    (settings,) = wandb_settings
    assert settings.pop("config")["max_steps"] == 1
    assert settings.pop("settings").keys() == {"init_timeout"}
    expected = {"mode": "offline", "project": "mine", "name": "third", "id": "abc", "resume": "never", "dir": "logs"}
    assert settings == expected
    assert (tmp_path / "checkpoints" / "mine" / "third" / "step_1").exists()

    # a name that is given goes before the variable; the run goes on under the id of the variable
    start("pretrain_text.py", [*args, "project_name=theirs", "run_name=fourth", "wandb_mode=online"], tmp_path)
    assert {key: wandb_settings[1][key] for key in ("mode", "project", "name")} == {
        "mode": "online", "project": "theirs", "name": "fourth",
    }  # fmt: skip
    monkeypatch.setenv("WANDB_RUN_ID", "def")
    start("pretrain_text.py", [*args, "load_checkpoint=latest", "max_steps=2"], tmp_path)
    assert {key: wandb_settings[2][key] for key in ("project", "name", "id")} == {
        "project": "mine", "name": "third", "id": "def",
    }  # fmt: skip


@pytest.mark.thorough
def test_the_jobs_of_a_sweep_are_runs_of_their_own(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    args = ["-m", *tiny_text(data, None, max_steps=1, eval_batches=1), "seed=1,2"]
    monkeypatch.setenv("WANDB_NAME", "sweep")
    start("pretrain_text.py", args, tmp_path)
    for job in (0, 1):
        assert f"seed: {job + 1}\n" in (tmp_path / f"checkpoints/text/sweep-{job}/all_config.yaml").read_text()
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    monkeypatch.chdir(tmp_path)
    refused("pretrain_text", args, "WANDB_RUN_ID names one run")


# -- the command lines -------------------------------------------------------------------------------------------------


def test_the_program_takes_a_configuration_by_name(data: Path, tmp_path: Path):
    args = [arg for arg in tiny_text(data, tmp_path / "run", max_steps=1) if not arg.startswith("arch.halt")]
    start("pretrain_text.py", ["--config-name", "cfg_tinystories_1m_noact", *args], tmp_path)
    assert read_yaml(tmp_path / "run" / "all_config.yaml")["arch"]["halt_max_steps"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


@pytest.mark.thorough
@pytest.mark.skipif(not (SHARED / "data" / "tinystories-sample").exists(), reason="the sample of stories is not here")
def test_on_real_stories(tmp_path: Path):
    shared = SHARED / "data"
    args = [
        *("max_sequences=8", "global_batch_size=4", "streaming=true", "wandb_mode=disabled", "eval_batches=1"),
        *("seq_len=128", "arch.L_cycles=1", "arch.halt_max_steps=2", "device=cpu", "cap_sample=500"),
        f"data_files=[{shared / 'tinystories-sample' / 'tinystories_train_first2316.txt'}]",
        f"vocab_file={shared / 'gpt2-bpe' / 'vocab.json'}",
        f"merges_file={shared / 'gpt2-bpe' / 'merges.txt'}",
    ]
    output = start("pretrain_text.py", [*args, "run_name=real"], tmp_path)
    assert "1,066,114 parameters" in output
    assert len(metrics(tmp_path / "checkpoints" / "text" / "real")) == 4
