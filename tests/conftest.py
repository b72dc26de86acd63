"""Settings for all tests."""

import os

import torch

# The tests' tensors are small: threads would only wait for one another, in subprocesses too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)
