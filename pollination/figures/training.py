"""Draw the training loss of every model, generation after generation."""

from pathlib import Path

import pandas as pd

from pollination.analysis.run import ROLES, Run
from pollination.figures import style

COLUMNS = (
    "role",
    "experiment",
    "generation",
    "member",
    "step",
    "tokens",
    "loss",
    "validation_loss",
    "learning_rate",
    "gradient_norm",
)


def draw(run: Run, out: Path) -> None:
    """Draw generations side by side on the x axis, each as wide as its longest training."""
    members = pd.concat([run.members(role) for role in ROLES], ignore_index=True)
    tables = [
        pd.DataFrame(run.training(m.folder)).assign(
            role=m.role, experiment=m.experiment, generation=m.generation, member=m.member
        )
        for m in members.itertuples()
    ]
    rows = pd.concat(tables, ignore_index=True).reindex(columns=list(COLUMNS))
    steps = rows.groupby("generation").step.max()
    start = steps.cumsum() - steps
    figure, (axis,) = style.grid(1, columns=1, width=min(12.0, 5 + 0.9 * len(steps)), height=3.4)
    axis.grid(axis="x", visible=False)
    for role, shown in rows[rows.loss.notna()].groupby("role", sort=False):
        thin = max(0.15, min(0.5, 4 / shown.groupby("generation").member.nunique().max()))
        for (_, g, _), part in shown.groupby(["experiment", "generation", "member"]):
            axis.plot(start[g] + part.step, part.loss, color=style.COLOUR[role], lw=0.5, alpha=thin)
        for g, part in shown.groupby("generation"):
            mean = part.groupby("step").loss.mean()
            axis.plot(
                start[g] + mean.index, mean, color=style.COLOUR[role], ls=style.DASH[role], lw=1.4
            )
    for role, shown in rows[rows.validation_loss.notna()].groupby("role", sort=False):
        axis.plot(
            start[shown.generation].to_numpy() + shown.step,
            shown.validation_loss,
            ls="",
            marker="x",
            ms=5,
            color=style.COLOUR[role],
        )
    for g, place in start.items():
        if g:
            axis.axvline(place, color="#c8c8c8", lw=0.8)
    every = -(-len(steps) // 12)
    axis.set_xticks((start + steps / 2)[::every], [f"{g}" for g in steps.index[::every]])
    axis.tick_params(axis="x", length=0)
    axis.set_xlim(0, steps.sum())
    width = (
        f"{steps.max():,} steps"
        if steps.nunique() == 1
        else f"{steps.min():,} to {steps.max():,} steps"
    )
    axis.set_xlabel(f"generation ({width} each)")
    axis.set_ylabel("training loss, nats per token")
    present = [role for role in ROLES if run.roles[role]]
    style.legend(
        figure,
        [style.key(role, f"{style.NAME[role]}, mean (thin: every model)") for role in present],
    )
    for handle in figure.legends[0].get_lines():
        handle.set_marker("")
    style.save(figure, rows, out)
