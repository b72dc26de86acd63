"""ARC-AGI: find the rule behind a few pairs of grids and apply it."""

from dataset.tasks.arc.task import Arc

__all__ = ["Arc"]
