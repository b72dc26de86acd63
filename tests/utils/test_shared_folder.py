"""Ranks on nodes that do not share the run folder: a new run says so, and a resume is refused."""

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from tests.ranks import on_two_ranks
from utils.distributed import Ranks, barrier
from utils.errors import UserError
from utils.run_folder import RunPlan
from utils.run_lock import FILE
from utils.shared_folder import check_shared


def check(rank: int, folder: str) -> None:
    """Each rank has a folder of its own, as on two nodes; what it printed or was refused with goes to a file."""
    ranks, said = Ranks(rank, 2), []
    for shared in (True, False):
        run = Path(folder) / ("0" if shared else str(rank))
        if rank == 0:
            run.mkdir(exist_ok=True)
            for name in (FILE, "step_3", "step_3_train_state.pt"):
                (run / name).touch()
        barrier()
        for plan in (RunPlan(run, "p", "n", "id"), RunPlan(run, "p", "n", "id", resume=(run, 3))):
            printed = StringIO()
            try:
                with redirect_stdout(printed):
                    check_shared(plan, ranks, patience=0.0)
                said.append(printed.getvalue())
            except UserError as error:
                said.append(f"refused: {error}")
    (Path(folder) / f"said-{rank}").write_text(json.dumps(said))


@pytest.mark.thorough
def test_a_folder_that_is_not_shared_is_told_and_a_resume_from_it_refused(tmp_path: Path):
    on_two_ranks(check, tmp_path)
    first, second = (json.loads((tmp_path / f"said-{rank}").read_text()) for rank in (0, 1))
    assert first[:2] == second[:2] == ["", ""]
    assert "note: rank 1 on" in first[2]
    assert "does not see the run folder" in first[2]
    assert second[2] == ""  # rank 0 has said it
    for refusal in (first[3], second[3]):
        assert refusal.startswith("refused: rank 1 on ")
        assert "step_3 does not exist there" in refusal


def test_a_single_process_sees_what_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    check_shared(RunPlan(tmp_path, "p", "n", "id", resume=(tmp_path, 3)), Ranks())
    assert capsys.readouterr().out == ""
