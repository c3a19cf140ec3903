"""Draw the mean similarity of families, plain and with normalised rows (study A, figure 4)."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize

from pollination.figures import style
from pollination.figures.fingerprint.shared import read
from pollination.figures.theory.sensitivity import heat

BY = {
    "sum": "rows divided by their sum",
    "maximum": "rows divided by their maximum",
    "diagonal": "rows divided by their diagonal",
}


def draw(tables: dict[str, Path], out: Path) -> None:
    _, statistics = read(tables)
    families = statistics["families"]
    names = families["names"]
    sizes = pd.Series([model["family"] for model in statistics["models"]]).value_counts()
    labels = [f"{name} ({sizes[name]})" for name in names]
    figure = style.Figure(
        figsize=(5 + 1.1 * len(names), 2.1 + 0.46 * len(names)), layout="constrained"
    )
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"mean": "mean Jaccard similarity", "normalised": BY[families["normalised_by"]]}
    for axis, (kind, title) in zip(panels, titles.items(), strict=True):
        table = pd.DataFrame(np.array(families[kind], dtype=float), index=labels, columns=names)
        table = table.where(np.isfinite(table))
        heat(
            axis,
            table,
            "Blues",
            Normalize(0, table.fillna(0).to_numpy().max()),
            lambda value: "–" if np.isnan(value) else f"{value:.2f}",
        )
        axis.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
        axis.invert_yaxis()
        axis.set_title(title)
        axis.set_xlabel("")
        axis.set_ylabel("")
    rows = [
        {"family": a, "other": b, "models": int(sizes[a])}
        | {kind: families[kind][i][j] for kind in titles}
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    ]
    style.save(figure, rows, out)
