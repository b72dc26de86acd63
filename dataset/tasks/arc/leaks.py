"""Detection of ARC test tasks that leak into the training data."""

from collections.abc import Sequence

import numpy as np

from dataset.tasks.arc.files import PARTS, ArcTask, Pair


def find_leaks(subsets: dict[str, list[ArcTask]], test_sets: Sequence[str]) -> dict[str, list[str]]:
    """Test tasks that the training split leaks: leaking subset -> sorted names of test tasks.

    A test task is leaked by another task with the same id, or by a training pair of another task that equals one of its
    test pairs (or only has the same input, if the answer is not known).
    """
    tested: dict[bytes, list[tuple[ArcTask, Pair]]] = {}
    by_name = {task.name: task for name in test_sets for task in subsets[name]}
    for task in by_name.values():
        for pair in task.parts["test"]:
            tested.setdefault(_content(pair.input), []).append((task, pair))
    leaks: dict[str, set[str]] = {}
    for subset, tasks in subsets.items():
        for task in tasks:
            leaked = leaks.setdefault(subset, set())
            if subset not in test_sets and task.name in by_name:
                leaked.add(task.name)
            for part in ("train",) if subset in test_sets else PARTS:
                for pair in task.parts[part]:
                    for test_task, test_pair in tested.get(_content(pair.input), ()):
                        if test_task is not task and _same_answer(pair, test_pair):
                            leaked.add(test_task.name)
    return {subset: sorted(names) for subset, names in leaks.items() if names}


def _content(grid: np.ndarray) -> bytes:
    return bytes(grid.shape) + grid.tobytes()


def _same_answer(trained: Pair, tested: Pair) -> bool:
    if trained.output is None:
        return False
    return tested.output is None or np.array_equal(trained.output, tested.output)
