"""Draw perplexity aggregated over all rounds against diversity (study B, figures 4c, 5b)."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pollination.analysis import trajectories
from pollination.analysis.ecosystems import Optimum
from pollination.analysis.run import Run
from pollination.figures import curves, style

COLUMNS = ("label", "diversity", "T", "mu", "low", "high", "probability")


def draw(run: Run, out: Path) -> None:
    roles = run.plan.config["figures"]
    figure, (axis,) = style.grid(1, columns=1, width=5.2, height=3.4)
    optima = {
        label: trajectories.optimum(trajectories.read(run, entry, roles["text"]), label)
        for label, entry in roles["ecosystems"].items()
    }
    rows = draw_panel(axis, optima)
    if legend := axis.get_legend():
        legend.remove()
    style.legend(figure, curves.keys(list(optima)))
    style.save(figure, rows, out)


def draw_panel(axis: Axes, optima: dict[str, Optimum]) -> list[dict]:
    """Draw a curve per label and return the rows."""
    rows = []
    for place, (label, optimum) in enumerate(optima.items()):
        last = optimum.mu_DT.shape[1] - 1
        for d, diversity in enumerate(optimum.diversities):
            values = (
                label,
                diversity,
                last + 1,
                optimum.mu_DT[d, last],
                optimum.low_DT[d, last],
                optimum.high_DT[d, last],
                optimum.probability_DT[d, last],
            )
            rows.append(dict(zip(COLUMNS, values, strict=True)))
        x = np.array(optimum.diversities) * 2 ** (0.06 * place)  # shifted: bars must not overlap
        axis.vlines(
            x,
            optimum.low_DT[:, last],
            optimum.high_DT[:, last],
            color=curves.look(place)["color"],
            lw=1.6,
        )
        axis.plot(x, optimum.mu_DT[:, last], ms=5, lw=1.3, **curves.look(place))
    curves.log_if_wide(axis, [row["low"] for row in rows], [row["high"] for row in rows])
    curves.diversity_axis(axis.xaxis, axis.set_xscale, sorted({row["diversity"] for row in rows}))
    axis.set_xlabel("diversity D")
    scale = " (log scale)" if axis.get_yscale() == "log" else ""
    axis.set_ylabel(f"perplexity, mean of\nall rounds{scale}")
    axis.legend(handles=curves.keys(list(optima)), loc="best", fontsize=7.5)
    return rows
