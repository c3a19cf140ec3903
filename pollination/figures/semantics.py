"""Draw a map of the members' texts: t-SNE of the embedded samples (study A, figure 10).

Colours are prompts, markers are models.
"""

from colorsys import hsv_to_rgb
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from pollination.analysis.run import Run
from pollination.analysis.semantics import project
from pollination.core import artifacts
from pollination.core.seeds import derive_seed
from pollination.figures import style
from pollination.plan.embedding import embedded_groups
from pollination.plan.semantics import embeddings_file, semantics_setting

COLUMNS = ("group", "experiment", "generation", "member", "prompt_id", "x", "y")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p", "h", "d", "8", "H", "$\u25d0$")


def draw(run: Run, out: Path) -> None:
    table = artifacts.read_table(embeddings_file(run.plan)).to_pandas()
    draw_panels(table, embedded_groups(run.plan), semantics_setting(run.plan, "perplexity"), out)


def places(table: pd.DataFrame, groups: list[dict], perplexity: float) -> pd.DataFrame:
    """Return COLUMNS and model of the texts of `groups`, with one t-SNE for all panels.

    A population shows its first replicate; a single line shows all its replicates. A model that
    occurs more than once is drawn once per group and generation.
    """
    parts = []
    for group in groups:
        names = group["experiments"] if group["population"] == 1 else group["experiments"][:1]
        part = table[table.experiment.isin(names)].drop_duplicates(
            ["generation", "model", "prompt_id"]
        )
        parts.append(part.assign(group=group["group"]))
    rows = pd.concat(parts, ignore_index=True)
    texts = rows.drop_duplicates(["model", "prompt_id"])
    points = project(np.stack(texts.embedding), perplexity, derive_seed("t-sne"))
    at = texts[["model", "prompt_id"]].assign(x=points[:, 0], y=points[:, 1])
    return rows.drop(columns="embedding").merge(at, on=["model", "prompt_id"], how="left")


def draw_panels(
    table: pd.DataFrame,
    groups: list[dict],
    perplexity: float,
    out: Path,
    generations: list[int] | None = None,
) -> None:
    """Draw `out`.svg, .png, .csv: a row per group, a column per generation (all, or `generations`).

    `table`: rows of embeddings.parquet.
    """
    if generations is not None:
        table = table[table.generation.isin(generations)]
    rows = places(table, groups, perplexity)
    shown, prompts = sorted(rows.generation.unique()), list(dict.fromkeys(rows.prompt_id))
    colours = dict(zip(prompts, palette(len(prompts)), strict=True))
    size = 2.3 if len(shown) < 8 else 1.5
    figure = style.Figure(
        figsize=(max(4.5, size * len(shown) + 0.4), size * len(groups) + 0.9), layout="constrained"
    )
    axes = figure.subplots(len(groups), len(shown), squeeze=False, sharex=True, sharey=True)
    most, titled = 0, set()
    for line, group in zip(axes, groups, strict=True):
        for axis, generation in zip(line, shown, strict=True):
            here = rows[(rows.group == group["group"]) & (rows.generation == generation)]
            models = list(dict.fromkeys(here.model))
            most = max(most, len(models))
            for number, model in enumerate(models):
                mine = here[here.model == model]
                dots = {"s": 16 if len(here) < 400 else 8, "linewidths": 0, "alpha": 0.85}
                axis.scatter(
                    mine.x,
                    mine.y,
                    c=[colours[prompt] for prompt in mine.prompt_id],
                    marker=MARKERS[number % len(MARKERS)],
                    **dots,
                )
            axis.set_visible(len(here) > 0)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[["top", "right"]].set_visible(True)
            if len(here) and generation not in titled:
                titled.add(generation)
                axis.set_title(f"generation {generation}")
        line[0].set_ylabel(group["group"])
    keys = [
        Line2D(
            [], [], ls="", marker=MARKERS[n % len(MARKERS)], color="#555555", ms=4.5, label=f"{n}"
        )
        for n in range(min(most, len(MARKERS)))
    ]
    keys[0].set_label("model 0")
    style.legend(
        figure, [Line2D([], [], ls="", label=f"{len(prompts)} prompts, one colour each")] + keys
    )
    style.save(figure, rows[list(COLUMNS)], out)


def palette(count: int) -> list[tuple[float, float, float]]:
    """Return colours around the hue circle; neighbours differ in lightness."""
    return [
        hsv_to_rgb(i / count, (0.85, 0.6, 1.0)[i % 3], (0.9, 0.75, 0.55)[i % 3])
        for i in range(count)
    ]
