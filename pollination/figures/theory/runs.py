"""Draw mean, standard deviation, distance to the truth, a row per run (study A, figure 11)."""

from pathlib import Path

from pollination.figures import style
from pollination.figures.theory import shared


def draw(tables: dict[str, Path], out: Path) -> None:
    paths = shared.read(tables)
    runs, last = sorted(paths.run.unique()), int(paths.generation.max())
    figure = style.Figure(figsize=(10, 0.7 + 1.6 * len(runs)), layout="constrained")
    panels = figure.subplots(len(runs), 3, squeeze=False, sharex=True, sharey="col")
    for run, row in zip(runs, panels, strict=True):
        for quantity, axis in zip(shared.LABEL, row, strict=True):
            for role, rows in paths[paths.run == run].groupby("role", sort=False):
                # Generation 0 is the truth; the logarithm of its distance does not exist.
                shown = rows[rows.generation > 0] if quantity == "w2" else rows
                axis.plot(shown.generation, shown[quantity], color=shared.COLOUR[role], lw=0.9)
            shared.over_generations(axis, quantity, last)
            axis.set_xlabel("generation" if run == runs[-1] else "")
            axis.tick_params(labelleft=True)
        row[0].set_ylabel(f"run {run + 1}")
        row[2].set_yscale("log")
    for axis, title in zip(panels[0], shared.LABEL.values(), strict=True):
        axis.set_title(title)
    style.legend(figure, shared.keys(shared.COLOUR, lw=1.5))
    style.save(figure, paths, out)
