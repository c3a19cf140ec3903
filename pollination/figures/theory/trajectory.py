"""Draw mean and standard deviation over generations, for one run and for all (A, figure 8)."""

from pathlib import Path

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pollination.figures import style
from pollination.figures.theory import shared

MARKER = {"mean": "o", "sd": "s"}


def draw(tables: dict[str, Path], out: Path) -> None:
    paths, summary = shared.read(tables), shared.read(tables, "summary")
    last = int(paths.generation.max())
    figure = style.Figure(figsize=(11.5, 3.6), layout="constrained")
    single, *spread = figure.subplots(1, 3, width_ratios=[1.5, 1, 1])
    for role, rows in paths[paths.run == 0].groupby("role"):
        for quantity, marker in MARKER.items():
            dots = {
                "marker": marker,
                "ms": 3.4,
                "markevery": max(1, last // 50),
                "mfc": "white" if quantity == "mean" else None,
            }
            single.plot(
                rows.generation, rows[quantity], color=shared.COLOUR[role], lw=0.8, mew=0.8, **dots
            )
    single.set_title("one run of each")
    shared.over_generations(single, "mean", last)
    shared.over_generations(single, "sd", last)
    for axis, quantity in zip(spread, MARKER, strict=True):
        for role, rows in summary[summary.quantity == quantity].groupby("role"):
            axis.fill_between(
                rows.generation, rows.q05, rows.q95, color=shared.COLOUR[role], alpha=0.25, lw=0
            )
            axis.plot(rows.generation, rows["median"], color=shared.COLOUR[role], lw=1.5)
        axis.set_title(f"all runs: {shared.LABEL[quantity]}")
        shared.over_generations(axis, quantity, last)
    keys = [
        Line2D(
            [],
            [],
            color=shared.COLOUR[role],
            marker=MARKER[quantity],
            ms=4,
            mfc="white" if quantity == "mean" else None,
            label=label,
        )
        for role in shared.COLOUR
        for quantity, label in (
            ("mean", f"{shared.NAME[role]}: mean"),
            ("sd", f"{shared.NAME[role]}: standard deviation"),
        )
    ]
    band = Patch(facecolor=style.GREY, alpha=0.3, label="band: 5 to 95 % of the runs")
    truth = Line2D([], [], color=style.BLACK, ls=":", label="truth")
    style.legend(figure, [*keys, band, truth])
    shown = paths[paths.run == 0].melt(
        ["role", "generation"], ["mean", "sd"], "quantity", "one_run"
    )
    style.save(
        figure,
        summary[summary.quantity.isin(MARKER)].merge(shown, on=["role", "generation", "quantity"]),
        out,
    )
