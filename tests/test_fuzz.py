"""A short run of `tests.fuzz`, which can be run for longer."""

import random

import pytest

from tests.fuzz import KINDS, damage, fuzz


@pytest.mark.thorough
@pytest.mark.parametrize("name", KINDS)
def test_damaged_inputs_are_refused_or_right(name: str):
    report = fuzz(KINDS[name], 40, seed=0)
    print(f"{name}: {dict(report.counts)}", *report.examples[:3], sep="\n")
    assert sum(report.counts.values()) == 40
    assert not report.examples, report.examples[0]


def test_damage_is_a_function_of_the_seed_and_changes_nearly_everything():
    content = b'{"a": [1, 2, "three"], "b": null}\n' * 3
    one, other = ([damage(content, random.Random(seed))[0] for seed in range(100)] for _ in range(2))
    assert one == other
    assert sum(new != content for new in one) > 80
    assert len(set(one)) > 70
