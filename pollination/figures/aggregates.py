"""Perplexity aggregated over all rounds against diversity, a curve a label (study B, figures 4c and 5b)."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pollination.ecosystems import Optimum
from pollination.figures import curves, style
from pollination.figures.data import Run

COLUMNS = ("label", "diversity", "T", "mu", "low", "high", "probability")


def draw(run: Run, out: Path) -> None:
    roles = run.plan.config["figures"]
    figure, (axis,) = style.grid(1, columns=1, width=5.2, height=3.4)
    found = {label: curves.optimum(curves.read(run, entry, roles["text"]), label) for label, entry in roles["ecosystems"].items()}
    rows = draw_panel(axis, found)
    axis.get_legend().remove()
    style.legend(figure, curves.keys(list(found)))
    style.save(figure, rows, out)


def draw_panel(axis: Axes, optima: dict[str, Optimum]) -> list[dict]:
    """A curve a label; its rows."""
    rows = []
    for place, (label, found) in enumerate(optima.items()):
        last = found.mu_DT.shape[1] - 1
        for d, diversity in enumerate(found.diversities):
            values = (label, diversity, last + 1, found.mu_DT[d, last], found.low_DT[d, last], found.high_DT[d, last], found.probability_DT[d, last])  # fmt: skip
            rows.append(dict(zip(COLUMNS, values, strict=True)))
        x = np.array(found.diversities) * 2 ** (0.06 * place)  # beside each other, not on top
        axis.vlines(x, found.low_DT[:, last], found.high_DT[:, last], color=curves.look(place)["color"], lw=1.6)
        axis.plot(x, found.mu_DT[:, last], ms=5, lw=1.3, **curves.look(place))
    curves.log_if_wide(axis, [row["low"] for row in rows], [row["high"] for row in rows])
    curves.diversity_axis(axis.xaxis, axis.set_xscale, sorted({row["diversity"] for row in rows}))
    axis.set_xlabel("diversity D")
    axis.set_ylabel("aggregated perplexity\nof all rounds" + (" (log scale)" if axis.get_yscale() == "log" else ""))
    axis.legend(handles=curves.keys(list(optima)), loc="best", fontsize=7.5)
    return rows
