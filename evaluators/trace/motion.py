"""What a latent does over the steps: does it come to rest, oscillate or drift?"""

import numpy as np

from evaluators.trace.trace import Trace

MOTIONS = ("settled", "converging", "oscillating", "drifting", "unknown")
SETTLED = 0.02  # relative change of a step below which a latent counts as at rest
_PART = 4  # the first and the last of this many parts of the steps are compared


def motion(trace: Trace) -> list[list[str]]:
    """For each puzzle and latent, one of `MOTIONS`.

    settled: it changes by less than `SETTLED` a step at the end; oscillating: two steps bring it back to where it was,
    to within half of what one step moves it; converging: it changes less than half as much at the end as at the start;
    drifting: none of these; unknown: there are too few steps.
    """
    change, change_two = trace["change"].astype(np.float64), trace["change_two"].astype(np.float64)
    size = max(1, trace.steps // _PART)
    if trace.steps < 3:
        return [["unknown"] * change.shape[2] for _ in change]
    first = change[:, 1 : 1 + size].mean(1)
    last, last_two = change[:, -size:].mean(1), change_two[:, -size:].mean(1)
    if size >= trace.steps - 1:
        last, last_two = change[:, -1], change_two[:, -1]
    numbers = np.select(
        [~np.isfinite(last), last < SETTLED, last_two < last / 2, last < first / 2],
        [MOTIONS.index(name) for name in ("drifting", "settled", "oscillating", "converging")],
        MOTIONS.index("drifting"),
    )
    return [[MOTIONS[number] for number in row] for row in numbers]
