"""The exit statuses of a training run besides 0 (done), 1 (a bug) and 2 (a `UserError`)."""

STOPPED = 75  # a signal asked the run to end: it has saved, and load_checkpoint=latest goes on (EX_TEMPFAIL)
LOST = 76  # another rank or the launcher is gone: load_checkpoint=latest goes on from the last checkpoint
