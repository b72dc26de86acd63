"""A tiny setup for text: stories from templates, a BPE trained on them, and a model that trains in milliseconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from tests.runs import arguments

END = "<|endoftext|>"

TINY_ARCH = {
    "arch.hidden_size": 16,
    "arch.num_heads": 2,
    "arch.inner_size": 32,
    "arch.L_layers": 1,
    "arch.L_cycles": 2,
    "arch.halt_max_steps": 3,
    "arch.halt_exploration_prob": 0.3,
}


def stories(count: int, seed: int = 0) -> list[str]:
    """Short stories of one or several sentences."""
    rng = np.random.default_rng(seed)
    names, animals = ["Lily", "Tim", "Ben", "Anna"], ["cat", "dog", "bird", "frog"]
    verbs, places = ["saw", "liked", "found", "fed"], ["park", "house", "pond", "big red barn"]
    found = []
    for _ in range(count):
        lines = [
            f"{rng.choice(names)} {rng.choice(verbs)} a {rng.choice(animals)} in the {rng.choice(places)}."
            for _ in range(rng.integers(1, 6))
        ]
        found.append("Once upon a time, " + " ".join(lines) + " The end.")
    return found


def write_text(folder: Path, train: int = 60, held_out: int = 12) -> Path:
    """`folder` with train.txt, valid.txt, and the vocab.json and merges.txt of a small byte-level BPE."""
    folder.mkdir(parents=True)
    texts = stories(train + held_out)
    for name, part in (("train", texts[:train]), ("valid", texts[train:])):
        (folder / f"{name}.txt").write_text(f"\n{END}\n".join(part) + f"\n{END}\n")
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=320, special_tokens=[END], initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.model.save(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text())
    assert END in vocab
    return folder


def tiny_text(data: Path, folder: Path | None, **more: Any) -> list[str]:
    """Arguments of a tiny training run on `write_text`'s files."""
    settings: dict[str, Any] = {
        **TINY_ARCH,
        "data_files": [data / "train.txt"],
        "data_files_test": [data / "valid.txt"],
        "tokenizer": "gpt2",
        "vocab_file": data / "vocab.json",
        "merges_file": data / "merges.txt",
        "token_cache": data / "tokens",
        "seq_len": 48,
        "global_batch_size": 4,
        "max_sequences": 40,
        "eval_interval": 16,
        "eval_batches": 2,
        "device": "cpu",
        "wandb_mode": "disabled",
        "checkpoint_path": folder,
        **more,
    }
    if more.get("arch") == "text_moeut":
        del settings["arch.inner_size"]  # experts have an expert_size
    return arguments(**settings)
