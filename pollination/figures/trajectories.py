"""Perplexity over rounds at each diversity, with the combined standard deviation of models and blocks (study B, figures 4, 5c and 5d)."""

from pathlib import Path

from pollination.figures import curves, style
from pollination.figures.data import Run


def draw(run: Run, out: Path) -> None:
    roles = run.plan.config["figures"]
    figure, axes = style.grid(len(roles["ecosystems"]), columns=2, width=4.6, height=3.4)
    rows = []
    for axis, (label, entry) in zip(axes, roles["ecosystems"].items(), strict=True):
        found = sorted(curves.read(run, entry, roles["text"]), key=lambda one: one.diversity)
        rows += [{"label": label} | row for one in found for row in one.rows()]
        curves.draw_trajectories(axis, found)
        axis.legend(handles=curves.keys([f"D = {one.diversity:.3g}" for one in found]), loc="upper left")
        axis.set_title(f"{label}, {roles['text']}")
    style.save(figure, rows, out)
