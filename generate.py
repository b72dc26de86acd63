"""Let a model trained by pretrain_text.py write stories.

    uv run python generate.py load_checkpoint=checkpoints/TinyStories/mine 'prompts=["Once upon a time"]'
    uv run python generate.py load_checkpoint=.../step_1000 prompts_file=prompts.txt temperature=[0,0.8] seed=[0,1,2]

Configuration: config/cfg_generate.yaml. Lists of temperature, top_k and seed make a sweep over all their combinations.
Prints the stories and writes them to a file, one JSON object a line.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dataset.text.tokenizer import TextTokenizer
from models.factory import make_head
from models.text.generation import Continuation, Sampling, continue_texts
from models.text.loss import TextLossHead
from utils.checkpoint import check_fits, latest_weights, load_weights
from utils.config import GenerateConfig, TextConfig, plain, read_yaml, validate
from utils.device import choose_device, choose_dtype
from utils.errors import UserError
from utils.hydra import hydra_main


@dataclass(frozen=True)
class Wish:
    """One story to be written."""

    prompt: str
    sampling: Sampling


def generate(config: GenerateConfig) -> list[dict[str, Any]]:
    """All stories, from the checkpoint to the file.

    Raises:
        UserError: the checkpoint, the prompts, the output or the device does not fit.
    """
    # -- the model
    checkpoint = Path(config.load_checkpoint)
    if checkpoint.is_dir():
        checkpoint = latest_weights(checkpoint)
    weights = load_weights(checkpoint)
    tokenizer = TextTokenizer.load(checkpoint.parent)
    trained = read_trained_config(checkpoint)
    device, device_reason = choose_device(config.device)
    dtype, dtype_reason = choose_dtype(trained.arch.own_keys["forward_dtype"], device)
    trained.arch.forward_dtype = dtype  # pyright: ignore[reportAttributeAccessIssue]
    head = make_head(trained.arch, tokenizer.vocab_size, trained.seq_len, data="text")
    assert isinstance(head, TextLossHead)
    check_fits(weights, head, checkpoint)
    head.load_state_dict(weights)
    head.to(device).requires_grad_(False).eval()
    head.model.eval_max_steps = config.halt_max_steps or trained.eval_halt_max_steps

    # -- what to write, and where to
    combinations = itertools.product(read_prompts(config), config.temperature, config.top_k, config.seed)
    wishes = [Wish(prompt, Sampling(temperature, top_k, seed)) for prompt, temperature, top_k, seed in combinations]
    output = choose_output(config, checkpoint)
    print(f"checkpoint: {checkpoint}")
    print(f"device: {device} ({device_reason}); dtype: {dtype} ({dtype_reason})")
    print(f"stories: {len(wishes)}, at most {config.max_new_tokens} new tokens each")

    # -- write
    records = []
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("x", encoding="utf-8") as file:
        for start in range(0, len(wishes), config.batch_size):
            batch = wishes[start : start + config.batch_size]
            # a text begins after the end of another, as in training
            prompts = [[tokenizer.eos_id, *tokenizer.encode(wish.prompt)] for wish in batch]
            continuations = continue_texts(
                head.model,
                prompts,
                [wish.sampling for wish in batch],
                eos_id=tokenizer.eos_id,
                seq_len=trained.seq_len,
                max_new_tokens=config.max_new_tokens,
                halting=config.halting,
                device=device,
            )
            for wish, prompt, continuation in zip(batch, prompts, continuations, strict=True):
                story = tokenizer.decode([*prompt[1:], *continuation.tokens])
                record = record_of(wish, story, continuation, config, head.model.max_steps)
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                print(as_text(record))
                records.append(record)
            file.flush()
    print(f"\nfile: {output}")
    return records


def read_trained_config(checkpoint: Path) -> TextConfig:
    """The configuration of the training run."""
    path = checkpoint.parent / "all_config.yaml"
    if not path.exists():
        raise UserError(
            f"{path} is missing: it says what the checkpoint's architecture is. Put the run's all_config.yaml beside "
            "the checkpoint."
        )
    return validate(TextConfig, read_yaml(path), where=f"{path}: ")


def read_prompts(config: GenerateConfig) -> list[str]:
    """The prompts of the configuration, then those of the file, one a line."""
    prompts = list(config.prompts)
    if config.prompts_file is not None:
        path = Path(config.prompts_file)
        try:
            prompts += [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"prompts_file={path} cannot be read: {error}. Give a text file, one prompt a line."
            ) from None
    if not prompts:
        raise UserError(
            'there is no prompt: give prompts=["Once upon a time"] (in quotes for the shell) or prompts_file=FILE, one '
            'prompt a line; prompts=[""] begins freely.'
        )
    return prompts


def choose_output(config: GenerateConfig, checkpoint: Path) -> Path:
    """Where the stories go: output, or a file named after the checkpoint; never one that exists."""
    if config.output is not None:
        if Path(config.output).exists():
            raise UserError(f"output={config.output} exists already: choose another name, or delete it.")
        return Path(config.output)
    name = f"{checkpoint.resolve().parent.name}-{checkpoint.name}"
    names = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(path for path in (Path("stories") / f"{name}.jsonl" for name in names) if not path.exists())


def record_of(
    wish: Wish, story: str, continuation: Continuation, config: GenerateConfig, max_steps: int
) -> dict[str, Any]:
    """One line of the output."""
    return {
        "prompt": wish.prompt,
        "story": story,
        "settings": {
            "temperature": wish.sampling.temperature,
            "top_k": wish.sampling.top_k,
            "max_new_tokens": config.max_new_tokens,
            "halting": config.halting,
            "halt_max_steps": max_steps,
        },
        "seed": wish.sampling.seed,
        "ended": continuation.ended,
        "tokens": len(continuation.tokens),
        "mean_steps": sum(continuation.steps) / len(continuation.steps),
    }


def as_text(record: dict[str, Any]) -> str:
    """A story for the terminal, below a line that says how it came about."""
    settings = record["settings"]
    made = f"temperature {settings['temperature']}, top_k {settings['top_k']}, seed {record['seed']}"
    how = "ended" if record["ended"] == "eos" else "cut"
    return (
        f"\n-- {made}; {how} after {record['tokens']} tokens, {record['mean_steps']:.2f} steps each\n{record['story']}"
    )


def run(composed: DictConfig) -> None:
    """One Hydra job."""
    generate(validate(GenerateConfig, plain(composed)))


if __name__ == "__main__":
    hydra_main("cfg_generate", run)
