"""A run whose training data stays on the device gives the same result as one that loads it, bit for bit."""

from pathlib import Path

import pytest

from tests.runs import start, tiny, write_sudoku


@pytest.mark.thorough
@pytest.mark.parametrize("augmentation", [None, "sudoku"])
def test_the_run_is_the_same(tmp_path: Path, augmentation: str | None):
    data = write_sudoku(tmp_path / "data", groups=12, tests=5)
    logs = []
    for resident in (True, False):
        folder = tmp_path / str(resident)
        settings = {"augmentation": augmentation, "data_on_device": resident, "max_steps": 12}
        output = start("pretrain.py", tiny(data, folder, **settings), tmp_path)
        assert f"training data: {'on the device' if resident else 'loaded step by step'} (as asked)" in output
        logs.append((folder / "metrics.jsonl").read_text())
    assert logs[0] == logs[1]
