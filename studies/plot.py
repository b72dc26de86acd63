"""The picture of a study: accuracy against training FLOPs, and against passes and FLOPs at test time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from studies.results import BudgetResult

_MARKERS = "osD^v<>PXph*d8"
_NAMES = {"steps": "equal steps", "flops": "equal training FLOPs"}


def draw(results: Sequence[BudgetResult], path: Path) -> bool:
    """Draw the results to a PNG, a row of panels for each budget; returns whether there was anything to draw.

    Bars reach from the worst to the best seed, and curves are means over the seeds.
    """
    from matplotlib import colormaps  # imported here: it takes a second, and not all calls draw
    from matplotlib.figure import Figure

    shown = [result for result in results if result.arms]
    if not shown:
        return False
    figure = Figure(figsize=(15, 0.4 + 4.6 * len(shown)), layout="constrained", dpi=110)
    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    names = list(dict.fromkeys(arm.arm for result in shown for arm in result.arms))
    all_axes = figure.subplots(len(shown), 3, sharey=True, squeeze=False)
    for axes, result in zip(all_axes, shown, strict=True):
        training, passes, flops = axes
        for arm in result.arms:
            place = names.index(arm.arm)
            style = {
                "color": colours[place % len(colours)],
                "marker": _MARKERS[place % len(_MARKERS)],
                "label": arm.arm,
            }
            values, row = arm.accuracies, arm.rows[0]
            reach = np.array([[values.mean() - values.min()], [values.max() - values.mean()]])
            size = 9 if arm.arm == result.baseline else 6
            training.errorbar(row.training_flops, values.mean(), reach, capsize=3, markersize=size, **style)
            steps = np.arange(1, len(arm.curve) + 1)
            passes.plot(steps, arm.curve, markersize=3, linewidth=1, **style)
            flops.plot(steps * row.pass_flops, arm.curve, markersize=3, linewidth=1, **style)
        training.set(xlabel="training FLOPs of a run", ylabel=f"exact accuracy, {_NAMES[result.budget]}", xscale="log")
        passes.set(xlabel="passes at test time", xscale="log")
        flops.set(xlabel="FLOPs a puzzle at test time", xscale="log")
        most = max(len(arm.curve) for arm in result.arms)
        ticks = [1 << power for power in range(most.bit_length())]
        passes.set_xticks(ticks, [str(tick) for tick in ticks])
        passes.minorticks_off()
        for axis in axes:
            axis.grid(alpha=0.3)
            axis.set_ylim(-0.02, 1.02)
    handles, labels = all_axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=8, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return True
