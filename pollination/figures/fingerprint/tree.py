"""Draw a tree of the models: average linkage on one minus Jaccard similarity."""

from pathlib import Path

import numpy as np
from scipy.cluster.hierarchy import cophenet, dendrogram, linkage
from scipy.spatial.distance import squareform

from pollination.figures import style
from pollination.figures.fingerprint.shared import colours, read


def draw(tables: dict[str, Path], out: Path) -> None:
    pairs, statistics = read(tables)
    models = [model["model"] for model in statistics["models"]]
    families = [model["family"] for model in statistics["models"]]
    wide = pairs.pivot(index="source", columns="target", values="jaccard_all").reindex(
        index=models, columns=models
    )
    distances = squareform(1 - wide.fillna(1.0).to_numpy(), checks=False)
    joined = linkage(distances, "average")
    tree = dendrogram(joined, no_plot=True)
    figure = style.Figure(figsize=(8, 0.9 + 0.21 * len(models)), layout="constrained")
    axis = figure.subplots()
    right = min(joined[:, 2].min() * 0.97, 0.98 * joined[:, 2].max())
    for across, along in zip(tree["icoord"], tree["dcoord"], strict=True):
        axis.plot(np.maximum(along, right), across, color="#555555", lw=1.1)
    shade = colours(families)
    axis.set_yticks([])
    for place, leaf in enumerate(tree["leaves"]):
        axis.text(
            right,
            5 + 10 * place,
            f"  {models[leaf]}",
            color=shade[families[leaf]],
            va="center",
            fontsize=8,
        )
    axis.set_xlim(joined[:, 2].max() * 1.03, right)
    axis.set_ylim(0, 10 * len(models))
    axis.grid(axis="y", visible=False)
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("1 − Jaccard similarity")
    style.legend(
        figure,
        [style.Line2D([], [], color=colour, lw=4, label=name) for name, colour in shade.items()],
    )
    agreement = float(cophenet(joined, distances)[0]) if len(models) > 2 else 1.0
    rows = [
        {
            "joins": step,
            "first": name(models, int(a)),
            "second": name(models, int(b)),
            "distance": d,
            "models": int(size),
            "cophenetic_correlation": agreement,
        }
        for step, (a, b, d, size) in enumerate(joined)
    ]
    style.save(figure, rows, out)


def name(models: list[str], number: int) -> str:
    """Return a model's name, or the number of the join that made the group."""
    return models[number] if number < len(models) else f"join {number - len(models)}"
