"""The files of a trace: the arrays, the page and the pictures."""

from collections.abc import Sequence
from pathlib import Path

from evaluators.trace.page import write_page
from evaluators.trace.pictures import save_trace_gif, save_trace_png
from evaluators.trace.trace import Trace

NAME = "trace.npz"


def write_trace(trace: Trace, folder: Path, beside: Sequence[Trace] = ()) -> str:
    """Write trace.npz, trace.html, trace.png and trace.gif.

    Args:
        trace: what to write.
        folder: where to.
        beside: other traces for the page, to be compared on the same puzzles.

    Returns:
        What was written, as a line.

    Raises:
        UserError: traces of other tasks cannot stand beside this one.
    """
    trace.save(folder / NAME)
    write_page(folder / "trace.html", [trace, *beside])
    save_trace_png(trace, folder / "trace.png")
    save_trace_gif(trace, folder / "trace.gif")
    solved = int(trace.solved.sum())
    return f"\ntrace of {len(trace)} puzzles, {solved} of them solved: {folder / 'trace.html'}"
