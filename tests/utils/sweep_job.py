"""What each job of a test's sweep does; imported by the processes of the jobs, and therefore small."""

import os
import sys
from pathlib import Path

from utils.errors import UserError
from utils.exit_status import STOPPED
from utils.settings import PretrainConfig
from utils.sweep import submitted


def job(config: PretrainConfig) -> None:
    """Say where it ran; seed 3 fails, and seed 4 ends as if it had been stopped by a signal."""
    assert submitted()
    if config.seed == 3:
        raise UserError("seed 3 is wrong")
    if config.seed == 4:
        sys.exit(STOPPED)
    assert config.run_name is not None
    Path(config.run_name).joinpath(f"seed-{config.seed}").write_text(str(os.getpid()))
