"""Draw perplexity over rounds at each diversity (study B, figures 4, 5c and 5d).

The band is the combined standard deviation of models and blocks.
"""

from pathlib import Path

from pollination.analysis import trajectories
from pollination.analysis.run import Run
from pollination.figures import curves, style


def draw(run: Run, out: Path) -> None:
    roles = run.plan.config["figures"]
    figure, axes = style.grid(len(roles["ecosystems"]), columns=2, width=4.6, height=3.4)
    rows = []
    for axis, (label, entry) in zip(axes, roles["ecosystems"].items(), strict=True):
        ecosystems = sorted(
            trajectories.read(run, entry, roles["text"]), key=lambda ecosystem: ecosystem.diversity
        )
        rows += [{"label": label} | row for ecosystem in ecosystems for row in ecosystem.rows()]
        curves.draw_trajectories(axis, ecosystems)
        names = [f"D = {ecosystem.diversity:.3g}" for ecosystem in ecosystems]
        axis.legend(handles=[*curves.keys(names), curves.band_key()], loc="upper left")
        axis.set_title(f"{label}, {roles['text']}")
    style.save(figure, rows, out)
