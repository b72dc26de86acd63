"""Jobs in a thread: one at a time, waited for at the end, and their errors reach the thread that trains."""

import threading

import pytest

from utils.background_writer import BackgroundWriter
from utils.errors import UserError


def fail() -> None:
    raise UserError("the disk is full")


def test_the_work_goes_on_and_the_end_waits_for_the_job():
    may_end, done = threading.Event(), []

    def job() -> None:
        may_end.wait(10)
        done.append(threading.current_thread())

    with BackgroundWriter() as writer:
        writer.start(job)
        writer.check()
        assert done == []
        may_end.set()
    assert done
    assert done != [threading.current_thread()]


def test_one_job_at_a_time():
    running, most, finished = [], [], []

    def job() -> None:
        running.append(1)
        most.append(len(running))
        running.pop()
        finished.append(1)

    with BackgroundWriter() as writer:
        for _ in range(20):
            writer.start(job)
    assert (max(most), len(finished)) == (1, 20)


def ended(writer: BackgroundWriter) -> BackgroundWriter:
    """The writer, whose only job has ended with an error."""
    writer.start(fail)
    for thread in threading.enumerate():
        if thread.name == "checkpoint writer":
            thread.join()
    return writer


@pytest.mark.parametrize("call", [BackgroundWriter.check, BackgroundWriter.wait, lambda writer: writer.start(fail)])
def test_the_error_of_a_job_is_raised_once(call):
    writer = ended(BackgroundWriter())
    with pytest.raises(UserError, match="the disk is full"):
        call(writer)
    writer.check()
    writer.wait()


def test_the_error_of_the_last_job_is_raised_at_the_end():
    with pytest.raises(UserError, match="the disk is full"), BackgroundWriter() as writer:
        writer.start(fail)


def test_another_error_is_not_hidden_by_that_of_the_job(capsys: pytest.CaptureFixture[str]):
    def train() -> None:
        with BackgroundWriter() as writer:
            writer.start(fail)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert "also, a checkpoint was not written: the disk is full" in capsys.readouterr().err
