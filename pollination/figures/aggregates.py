"""Perplexity aggregated over all rounds against diversity, a curve a label (study B, figures 4c and 5b)."""

from pathlib import Path

import numpy as np

from pollination.figures import curves, style
from pollination.figures.data import Run

COLUMNS = ("label", "diversity", "T", "mu", "low", "high", "probability")


def draw(run: Run, out: Path) -> None:
    roles = run.plan.config["figures"]
    figure, (axis,) = style.grid(1, columns=1, width=5.2, height=3.4)
    rows = []
    for place, (label, entry) in enumerate(roles["ecosystems"].items()):
        found = curves.optimum(curves.read(run, entry, roles["text"]), label)
        last = found.mu_DT.shape[1] - 1
        for d, diversity in enumerate(found.diversities):
            values = (label, diversity, last + 1, found.mu_DT[d, last], found.low_DT[d, last], found.high_DT[d, last], found.probability_DT[d, last])  # fmt: skip
            rows.append(dict(zip(COLUMNS, values, strict=True)))
        x = np.array(found.diversities) * 2 ** (0.06 * place)  # beside each other, not on top
        axis.vlines(x, found.low_DT[:, last], found.high_DT[:, last], color=curves.look(place)["color"], lw=1.6)
        axis.plot(x, found.mu_DT[:, last], ms=5, lw=1.3, **curves.look(place))
    curves.log_if_wide(axis, [row["low"] for row in rows], [row["high"] for row in rows])
    levels = sorted({row["diversity"] for row in rows})
    axis.set_xscale("log", base=2)
    axis.set_xticks(levels, [f"{level:.3g}" for level in levels])
    axis.set_xlabel("diversity D")
    axis.set_ylabel("aggregated perplexity\nof all rounds" + (" (log scale)" if axis.get_yscale() == "log" else ""))
    style.legend(figure, curves.keys(list(roles["ecosystems"])))
    style.save(figure, rows, out)
