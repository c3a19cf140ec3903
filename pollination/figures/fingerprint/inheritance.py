"""Draw the similarity of a generation's members, and whose fingerprint a child carries."""

from pathlib import Path

import numpy as np
import pandas as pd

from pollination.analysis.fingerprint.inheritance import RELATIONS
from pollination.core import artifacts
from pollination.figures import style
from pollination.figures.fingerprint.shared import read

FEW = 4  # names of more experiments would overlap
COLUMNS = ("what", "experiment", "generation", "relation", "pairs", "mean")
COLOUR = dict(
    zip(RELATIONS, (style.GREEN, style.BLUE, style.ORANGE, style.GREY, "#c4c4c4"), strict=True)
)


def draw(tables: dict[str, Path], out: Path) -> None:
    pairs, statistics = read(tables)
    folder = Path(tables["inheritance"]).with_suffix("")
    rows = artifacts.read_table(f"{folder}.parquet").to_pandas()
    effects = pd.DataFrame(
        artifacts.read_json(f"{folder}.json"),
        columns=["experiment", "effect", "value", "p", "children"],
    )
    release = {
        model["model"]: int(model["release"].rsplit(" ", 1)[1]) for model in statistics["models"]
    }
    alike = pairs[
        (pairs.source < pairs.target)
        & (pairs.source_family == pairs.target_family)
        & (pairs.lag == 0)
    ]
    alike = (
        alike.assign(generation=alike.source.map(release))
        .groupby(["source_family", "generation"])
        .jaccard_all
    )
    carried = rows.groupby(["experiment", "generation", "relation"]).influence
    if rows.empty:
        return style.nothing("No child and its parents both have fingerprints.", out, COLUMNS)
    figure = style.Figure(figsize=(10.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.5])
    for index, (family, part) in enumerate(alike.mean().groupby(level=0)):
        shade = style.matplotlib.colormaps["tab10"](index % 10)
        left.plot(part.index.get_level_values(1), part, marker="o", ms=4, color=shade, label=family)
    left.set_title("similarity within one generation")
    left.set_xlabel("generation")
    left.set_ylabel("mean Jaccard similarity of two members")
    left.set_ylim(0)
    left.xaxis.set_major_locator(style.MaxNLocator(integer=True))
    if len(alike.mean()):
        left.legend()
    experiments = list(dict.fromkeys(rows.experiment))
    shown = [relation for relation in RELATIONS if relation in set(rows.relation)]
    for place, experiment in enumerate(experiments):
        for index, relation in enumerate(shown):
            chosen = (rows.experiment == experiment) & (rows.relation == relation)
            values = rows[chosen].influence.to_numpy()
            at = place + 0.8 * ((index + 0.5) / len(shown) - 0.5)
            spread = 0.5 / len(shown) * (np.random.default_rng(0).random(len(values)) - 0.5)
            right.plot(
                at + spread,
                values,
                ls="",
                marker="o",
                ms=2.6,
                mew=0,
                alpha=0.55,
                color=COLOUR[relation],
            )
            if len(values):
                right.hlines(
                    values.mean(),
                    at - 0.3 / len(shown),
                    at + 0.3 / len(shown),
                    color=COLOUR[relation],
                    lw=2.6,
                )
    turned = len(experiments) > FEW
    look = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if turned else {}
    right.set_xticks(range(len(experiments)), experiments, fontsize=8, **look)
    right.set_xlim(-0.5, len(experiments) - 0.5)
    right.set_title("share of a member's fingerprint that a child carries")
    right.set_ylabel("influence I(member → child)")
    right.grid(axis="x", visible=False)
    style.legend(
        figure,
        [
            style.Line2D(
                [],
                [],
                color=COLOUR[relation],
                lw=3,
                label=f"gave {relation}" if relation in RELATIONS[:3] else relation,
            )
            for relation in shown
        ],
    )
    table = [
        {
            "what": "jaccard in a generation",
            "experiment": f,
            "generation": g,
            "pairs": len(part),
            "mean": part.mean(),
        }
        for (f, g), part in alike
    ]
    table += [
        {
            "what": "influence on a child",
            "experiment": e,
            "generation": g,
            "relation": r,
            "pairs": len(part),
            "mean": part.mean(),
        }
        for (e, g, r), part in carried
    ]
    told = effects.rename(
        columns={"effect": "relation", "value": "mean", "children": "pairs"}
    ).assign(what="effect")
    style.save(
        figure,
        pd.concat([pd.DataFrame(table), told], ignore_index=True).reindex(columns=[*COLUMNS, "p"]),
        out,
    )
