"""The evaluations of a text run, against a walk through all its batches."""

import pytest

from dataset.text.opening import plan_rows
from utils.hydra import compose
from utils.settings import TextConfig


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("interval", [1, 7, 16, 40, 130, 1000])
@pytest.mark.parametrize("size", [1, 7, 16])
def test_an_evaluation_follows_each_batch_that_reaches_or_passes_a_multiple(size: int, interval: int, keep: int):
    config: TextConfig = compose(
        "cfg_text", ["max_sequences=130", f"eval_interval={interval}", f"global_batch_size={size}"]
    )
    batches = range(1, 130 // size + 1)
    expected = {n * keep for n in batches if n * size // interval > (n - 1) * size // interval}
    assert plan_rows(config, keep) == (130 // size * keep, expected)
