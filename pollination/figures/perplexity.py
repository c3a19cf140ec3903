"""Draw perplexity on held-out text over generations.

For a microworld, also draw the excess over the truth, in nats per token.
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from pandas import DataFrame

from pollination.analysis.run import Run
from pollination.figures import style
from pollination.figures.accuracy import draw_population, draw_replicates, keys

EXCESS = "excess_nats_per_token"
COLUMNS = (
    "text",
    "role",
    "experiment",
    "generation",
    "member",
    "selected",
    "perplexity",
    "nll_per_token",
    EXCESS,
    "tokens",
    "sequences",
)


def draw(run: Run, out: Path) -> None:
    rows = run.perplexities()
    if rows.empty:
        return style.nothing("This run measures no held-out text.", out, COLUMNS)
    rows = rows.reindex(columns=list(COLUMNS))
    texts = list(dict.fromkeys(rows.text))
    measured = [text for text in texts if rows[rows.text == text][EXCESS].notna().all()]
    figure, axes = style.grid(
        len(texts) + len(measured), columns=max(2, len(texts)), width=4.1, height=3.0
    )
    for axis, text in zip(axes, texts, strict=False):
        draw_panel(axis, rows[rows.text == text], "perplexity", log=True)
        axis.set_title(f"{text}: perplexity")
        axis.set_ylabel("perplexity (log scale)")
    for axis, text in zip(axes[len(texts) :], measured, strict=True):
        axis.axhline(0, color=style.BLACK, ls=":", lw=1)
        draw_panel(axis, rows[rows.text == text], EXCESS, log=False)
        axis.set_title(f"{text}: excess over the truth")
        axis.set_ylabel("excess nats per token (KL)")
    for axis in axes:
        style.generation_axis(axis, int(rows.generation.max()))
    style.legend(figure, keys(run, False, "of members"))
    style.save(figure, rows.sort_values(list(COLUMNS[:5]), kind="stable"), out)


def draw_panel(axis: Axes, rows: DataFrame, value: str, log: bool) -> None:
    if log:
        axis.set_yscale("log")
    draw_population(axis, rows[rows.role == "population"], value, log)
    line = rows[rows.role == "line"]
    draw_replicates(axis, line, value)
    by_generation = [(g, *interval(part[value], log)) for g, part in line.groupby("generation")]
    if by_generation:
        style.band(axis, "line", *zip(*by_generation, strict=True), cut=True)
    if log and rows[value].max() < 1000 * rows[value].min():  # else powers of ten suffice
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(ScalarFormatter())
        axis.yaxis.set_minor_formatter(NullFormatter())


def interval(values, log: bool) -> tuple[float, float, float]:
    """Return the mean over replicates (geometric if `log`) and the ends of its 95 % t-interval.

    For one replicate the interval has width zero.
    """
    mean, half = style.mean_band(np.log(values) if log else values)
    half = 0.0 if np.isnan(half) else half
    low, high = mean - half, mean + half
    return (
        (float(np.exp(mean)), float(np.exp(low)), float(np.exp(high))) if log else (mean, low, high)
    )
