"""Writes a weights file in the other format: safetensors if the name to write ends so, else the published format.

    python -m scripts.convert_weights checkpoints/.../step_1000 checkpoints/.../step_1000.safetensors
    python -m scripts.convert_weights model.safetensors step_1000
    python -m scripts.convert_weights model.safetensors half/model.safetensors --bfloat16    # half the size

All programs load both; the all_config.yaml of the run must lie beside the file. In safetensors the weights have the
names of the model, in the published format those of the published code, which begin with `_orig_mod.`. Rounded to
bfloat16, weights keep three digits: judge the model again before you give it away.
"""

import argparse
from pathlib import Path

import torch

from utils.checkpoint import COMPILED_PREFIX, load_weights, write_weights
from utils.errors import UserError, exit_on_user_error
from utils.files import writing_to
from utils.safetensors_file import SUFFIX, save_tensors


def convert(source: Path, target: Path, dtype: torch.dtype | None = None) -> None:
    """Write the weights in `source` to `target`, in `dtype` if it is given.

    Raises:
        UserError: the weights cannot be loaded, or there is a file `target` already, or it cannot be written.
    """
    weights = load_weights(source)
    if dtype is not None:
        weights = {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()}
    if target.exists():
        raise UserError(f"{target} exists. Give the name of a new file.")
    if target.suffix == SUFFIX:
        with writing_to(target.parent, "Choose another folder."):
            save_tensors(target, weights)
    else:
        write_weights(target, {COMPILED_PREFIX + name: value for name, value in weights.items()})


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the weights to read")
    parser.add_argument("target", type=Path, help="the file to write")
    parser.add_argument("--bfloat16", action="store_true", help="round the weights to bfloat16")
    options = parser.parse_args()
    convert(options.source, options.target, torch.bfloat16 if options.bfloat16 else None)
    print(f"written: {options.target}")


if __name__ == "__main__":
    exit_on_user_error(main)
