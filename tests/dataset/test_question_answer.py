"""Reading questions and answers from CSV files that are none."""

import os
from pathlib import Path

import pytest

from dataset.question_answer import read_csv
from utils.errors import UserError


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path):
    os.mkfifo(tmp_path / "train.csv")
    kinds = {tmp_path / "train.csv": "is a pipe", tmp_path: "is a folder"}
    for path, kind in kinds.items():
        with pytest.raises(UserError, match=f"{path} {kind}.*Give a CSV file"):
            read_csv(path, 4, "")
    with pytest.raises(UserError, match=r"none\.csv does not exist .*Correct the path"):
        read_csv(tmp_path / "none.csv", 4, "")
