"""The sizes of the kernels' tiles, and how a kernel is run."""

import functools
from typing import Any, NamedTuple

import torch


class Tiles(NamedTuple):
    """Sizes of one kernel.

    Attributes:
        rows, columns: of what a program computes at a time.
        depth: how much of the summed axis it reads at a time.
        warps, stages: warps of a program, and stages of its pipeline.
        resident: programs on each multiprocessor, which compute one tile after another; 0: a program for each tile.
            Only the kernels of `rows_kernels` can do so.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    resident: int = 0


class Sizes(NamedTuple):
    """Tiles of all kernels. The columns are inner channels; over positions, the rows are channels."""

    rows_forward: Tiles
    rows_backward: Tiles
    positions_forward: Tiles
    positions_backward: Tiles
    norm_backward: Tiles
    weight_gradient: Tiles


# measured on an H100 (docs/performance.md)
_HOPPER = Sizes(
    rows_forward=Tiles(128, 128, 64, 8, 4, resident=1),
    rows_backward=Tiles(64, 128, 64, 4, 3),
    positions_forward=Tiles(64, 32, 128, 4, 3),
    positions_backward=Tiles(64, 64, 128, 4, 1),
    norm_backward=Tiles(64, 0, 128, 4, 1),
    weight_gradient=Tiles(128, 128, 64, 4, 4),
)
# for tests with few rows, in Triton's interpreter
_INTERPRETED = Sizes(
    rows_forward=Tiles(64, 64, 32, 4, 3),
    rows_backward=Tiles(64, 64, 32, 4, 3),
    positions_forward=Tiles(64, 32, 128, 4, 2),
    positions_backward=Tiles(64, 32, 128, 4, 1),
    norm_backward=Tiles(64, 0, 128, 4, 1),
    weight_gradient=Tiles(64, 128, 32, 4, 3),
)


def sizes(device: torch.device) -> Sizes:
    """Tiles for `device`; on the CPU, where the kernels are interpreted, small ones."""
    return _HOPPER if device.type == "cuda" else _INTERPRETED


@functools.cache
def processors(device: torch.device) -> int:
    """How many programs `device` runs at a time, one on each multiprocessor; interpreted, a few."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 3


def run(kernel: Any, programs: tuple[int, ...], tiles: Tiles, *arguments: Any, **constants: Any) -> None:
    """Run `programs` programs of a Triton kernel, with the warps and stages of `tiles`."""
    kernel[programs](*arguments, **constants, num_warps=tiles.warps, num_stages=tiles.stages)
