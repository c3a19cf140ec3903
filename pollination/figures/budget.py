"""Draw tokens and steps per round, summed over members: do all ecosystems get the same total?

Study B (section 3.2) fixes the data budget and splits it over M models.
"""

from pathlib import Path

from pollination.analysis.interaction import diversity
from pollination.analysis.run import Run
from pollination.figures import curves, style
from pollination.plan import layout

COLUMNS = ("label", "experiment", "diversity", "models", "t", "tokens", "steps", "relative")


def draw(run: Run, out: Path) -> None:
    entries = run.plan.config["figures"]["ecosystems"]
    figure, axes = style.grid(len(entries), columns=2, width=4.6, height=3.0)
    every = []
    for axis, (label, entry) in zip(axes, entries.items(), strict=True):
        rounds = range(
            min(
                run.plan.experiment(name)["generations"]
                for names in entry.values()
                for name in names
            )
        )
        rows = [row for name, names in entry.items() for row in totals(run, name, names[0], rounds)]
        first = {row["t"]: row["tokens"] for row in reversed(rows)}  # of the first ecosystem
        every += [
            {"label": label} | row | {"relative": row["tokens"] / first[row["t"]]} for row in rows
        ]
        for place, name in enumerate(entry):
            mine = [row for row in rows if row["experiment"] == name]
            axis.plot(
                [row["t"] + 0.04 * place for row in mine],
                [row["tokens"] for row in mine],
                ms=4,
                lw=1.3,
                **curves.look(place),
            )
        style.generation_axis(axis, len(rounds) - 1)
        axis.set_ylim(0, 1.25 * max(row["tokens"] for row in rows))
        axis.set_xlabel("round t")
        axis.set_ylabel("training tokens,\nall members together")
        names = [f"M = {run.plan.experiment(names[0])['population']}" for names in entry.values()]
        axis.legend(handles=curves.keys(names), loc="lower left", ncols=2, fontsize=7.5)
        axis.set_title(label)
    style.save(figure, [{key: row[key] for key in COLUMNS} for row in every], out)


def totals(run: Run, label: str, name: str, rounds: range) -> list[dict]:
    """Return the tokens and steps of all members of an experiment, by round (one replicate)."""
    size, rows = run.plan.experiment(name)["population"], []
    for t in rounds:
        last = [
            [
                row
                for row in run.training(layout.member_folder(run.plan, name, t, m))
                if "tokens" in row
            ][-1]
            for m in range(size)
        ]
        rows.append(
            {
                "t": t,
                "tokens": sum(row["tokens"] for row in last),
                "steps": sum(row["step"] for row in last),
            }
        )
    shared = {
        "experiment": label,
        "diversity": diversity(run.plan, name),
        "models": size,
    }
    return [shared | row for row in rows]
