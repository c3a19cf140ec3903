"""Draw the diversity of samples over generations: by prompt, by model, overall."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.patches import Patch

from pollination.analysis.run import Run
from pollination.core import artifacts
from pollination.figures import curves, style
from pollination.plan.embedding import embedded_groups
from pollination.plan.semantics import diversity_file

PANELS = (  # scope, measure, label (docs/semantics.md)
    ("prompt", "spread", "spread around the centroid"),
    ("prompt", "vendi", "Vendi score"),
    ("prompt", "self_bleu", "self-BLEU (high: similar)"),
    ("prompt", "distinct_2", "share of distinct bigrams"),
    ("model", "between", "distance between prompts"),
    ("model", "vendi", "Vendi score"),
    ("model", "distinct_2", "share of distinct bigrams"),
    ("all", "vendi", "Vendi score"),
)
COLOURS = (
    style.BLUE,
    style.VERMILLION,
    style.GREEN,
    style.PURPLE,
    style.ORANGE,
    style.SKY,
    style.BLACK,
)


def draw(run: Run, out: Path) -> None:
    rows = artifacts.read_table(diversity_file(run.plan)).to_pandas()
    draw_panels(rows, [group["group"] for group in embedded_groups(run.plan)], out)


def draw_panels(rows: pd.DataFrame, groups: list[str], out: Path) -> None:
    """Draw rows of diversity.parquet as `out`.svg, .png and .csv.

    Groups are compared at equal numbers of models: the smallest number of any generation.
    """
    rows = rows[rows.group.isin(groups) & rows.against.isin(["", *groups])]
    levels = rows[rows.against == ""]
    equal = levels[levels.scope != "model"].models.min()
    measured = [
        (scope, name, levels[(levels.scope == scope) & (levels.measure == measure)])
        for scope, measure, name in PANELS
    ]
    panels = [
        (scope, name, part[part.models == (1 if scope == "model" else equal)])
        for scope, name, part in measured
    ]
    panels = [(scope, name, part) for scope, name, part in panels if part.value.notna().any()]
    if not panels:
        return style.nothing("The samples hold no text to measure.", out, rows.columns)
    who = {
        "prompt": f"one prompt, {equal:.0f} models",
        "model": "one model, all prompts",
        "all": f"{equal:.0f} models, all prompts",
    }
    figure, axes = style.grid(len(panels), columns=4, width=3.0, height=2.4)
    for axis, (scope, name, part) in zip(axes, panels, strict=True):
        for number, group in enumerate(groups):
            mine = part[part.group == group].sort_values("generation")
            look = curves.look(number) | {"color": COLOURS[number % len(COLOURS)]}
            axis.fill_between(
                mine.generation, mine.low, mine.high, color=look["color"], alpha=0.16, lw=0
            )
            axis.plot(mine.generation, mine.value, ms=4, lw=1.5, **look)
        if not np.isfinite(part.low).any():
            axis.margins(y=0.2)
        axis.set_title(who[scope])
        axis.set_ylabel(name)
        style.generation_axis(axis, int(levels.generation.max()))
    keys = [
        style.Line2D(
            [], [], ms=4, label=group, **(curves.look(n) | {"color": COLOURS[n % len(COLOURS)]})
        )
        for n, group in enumerate(groups)
    ]
    band = Patch(facecolor=style.GREY, alpha=0.3, label="band: 95 % over prompts")
    style.legend(figure, [*keys, band])
    style.save(figure, rows, out)
