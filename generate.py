"""Let a model trained by pretrain_text.py write stories.

    uv run python generate.py load_checkpoint=checkpoints/TinyStories/mine 'prompts=["Once upon a time"]'
    uv run python generate.py load_checkpoint=.../step_1000 prompts_file=prompts.txt temperature=[0,0.8] seed=[0,1,2]

Lists of temperature, top_k and seed make a sweep over all their combinations. Prints the stories and writes them to a
file, one JSON object per line. Settings: docs/configuration.md, or --help.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.text.tokenizer import TextTokenizer
from models.pretrained import load_model, open_checkpoint
from models.text.generation import Continuation, Sampling, continue_texts
from models.text.loss import TextLossHead
from utils.config import validate
from utils.errors import UserError
from utils.files import writing_to
from utils.hydra import hydra_main
from utils.machine import choose_machine
from utils.settings import GenerateConfig, TextConfig
from utils.text_files import read_text


@dataclass(frozen=True)
class Wish:
    """One story to write."""

    prompt: str
    sampling: Sampling


def generate(config: GenerateConfig) -> list[dict[str, Any]]:
    """Write all stories to the terminal and to the output file, and return their records.

    Raises:
        UserError: the checkpoint, the prompts, the output or the device cannot be used.
    """
    # -- the model
    checkpoint = open_checkpoint(config.load_checkpoint)
    tokenizer = TextTokenizer.load(checkpoint.folder)
    trained = validate(TextConfig, checkpoint.config, where=f"{checkpoint.folder / 'all_config.yaml'}: ")
    machine = choose_machine(config.device, trained.arch.own_keys["forward_dtype"])
    head = load_model(checkpoint, machine, trained.seq_len, tokenizer.vocab_size, data="text")
    assert isinstance(head, TextLossHead)
    max_steps = config.halt_max_steps or trained.eval_halt_max_steps

    # -- what to write, and where to
    combinations = itertools.product(read_prompts(config), config.temperature, config.top_k, config.seed)
    wishes = [Wish(prompt, Sampling(temperature, top_k, seed)) for prompt, temperature, top_k, seed in combinations]
    output = choose_output(config, checkpoint.path)
    print(f"checkpoint: {checkpoint.path}\n{machine}")
    print(f"stories: {len(wishes)}, at most {config.max_new_tokens} new tokens each")

    # -- write
    records = []
    with writing_to(output.parent, "Choose another output."):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.touch(exist_ok=False)
    with output.open("w", encoding="utf-8") as file:
        for start in range(0, len(wishes), config.batch_size):
            batch = wishes[start : start + config.batch_size]
            # a text begins after the end token of another, as in training
            prompts = [[tokenizer.eos_id, *tokenizer.encode(wish.prompt)] for wish in batch]
            continuations = continue_texts(
                head.model,
                prompts,
                [wish.sampling for wish in batch],
                eos_id=tokenizer.eos_id,
                seq_len=trained.seq_len,
                max_new_tokens=config.max_new_tokens,
                halting=config.halting,
                device=machine.device,
                max_steps=max_steps,
            )
            for wish, prompt, continuation in zip(batch, prompts, continuations, strict=True):
                story = tokenizer.decode([*prompt[1:], *continuation.tokens])
                record = make_record(wish, story, continuation, config, head.model.steps_limit(max_steps))
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                print(format_story(record))
                records.append(record)
            file.flush()
    print(f"\nfile: {output}")
    return records


def read_prompts(config: GenerateConfig) -> list[str]:
    """The prompts of the configuration, then those of the file, one per line.

    Raises:
        UserError: the file cannot be read, or there is no prompt.
    """
    prompts = list(config.prompts)
    if config.prompts_file is not None:
        path = Path(config.prompts_file)
        try:
            lines = read_text(path, compose=False).split("\n")
        except UserError as error:
            raise UserError(f"prompts_file={path}: {error} Give a text file, one prompt a line.") from None
        prompts += [line for line in lines if line.strip()]
    if not prompts:
        raise UserError(
            'there is no prompt: give prompts=["Once upon a time"] (in quotes for the shell) or prompts_file=FILE, one '
            'prompt a line; prompts=[""] begins freely.'
        )
    return prompts


def choose_output(config: GenerateConfig, checkpoint: Path) -> Path:
    """The file for the stories: `output`, or a new file named after the checkpoint.

    Raises:
        UserError: `output` exists already.
    """
    if config.output is not None:
        if Path(config.output).exists():
            raise UserError(f"output={config.output} exists already: choose another name, or delete it.")
        return Path(config.output)
    name = f"{checkpoint.resolve().parent.name}-{checkpoint.name}"
    names = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(path for path in (Path("stories") / f"{name}.jsonl" for name in names) if not path.exists())


def make_record(
    wish: Wish, story: str, continuation: Continuation, config: GenerateConfig, max_steps: int
) -> dict[str, Any]:
    """The record of a story, which is one line of the output file."""
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


def format_story(record: dict[str, Any]) -> str:
    """A story for the terminal, below a line with its settings, length and mean number of steps."""
    settings = record["settings"]
    made = f"temperature {settings['temperature']}, top_k {settings['top_k']}, seed {record['seed']}"
    how = "ended" if record["ended"] == "eos" else "cut"
    return (
        f"\n-- {made}; {how} after {record['tokens']} tokens, {record['mean_steps']:.2f} steps each\n{record['story']}"
    )


if __name__ == "__main__":
    hydra_main("cfg_generate", GenerateConfig, generate)
