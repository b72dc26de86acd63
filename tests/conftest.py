"""Settings for all tests, and a fixture for those that give tasks to the process."""

import os
from collections.abc import Iterator

import pytest
import torch

from dataset.tasks.given import given_tasks

# The tests' tensors are small: threads would only wait for one another, in subprocesses too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


@pytest.fixture
def nothing_is_given() -> Iterator[None]:
    """No task but those of dataset/tasks is known before the test, nor after it."""
    before = dict(given_tasks())
    given_tasks().clear()
    yield
    given_tasks().clear()
    given_tasks().update(before)
