"""Draw known facts, the mass on true and false facts, and the number of facts still stated.

The panels split facts by popularity. Only microworlds have a known truth.
"""

from pathlib import Path

import pandas as pd
from matplotlib.lines import Line2D

from pollination.analysis.run import ROLES, Run
from pollination.figures import style

COLUMNS = (
    "corpus",
    "band",
    "role",
    "experiment",
    "generation",
    "member",
    "facts",
    "known",
    "true_mass",
    "false_mass",
    "true_mass_truth",
    "distinct_facts",
    "distinct_facts_truth",
    "sentences",
)
BANDS = {
    0: "most mentioned quarter",
    1: "second quarter",
    2: "third quarter",
    3: "least mentioned quarter",
}


def draw(run: Run, out: Path) -> None:
    rows = truths(run)
    if rows.empty:
        return style.nothing(
            "This run measures no microworld; the truth of real text is unknown.",
            out,
            COLUMNS,
        )
    corpora, bands = list(dict.fromkeys(rows.corpus)), sorted(rows.band.unique())
    figure = style.Figure(
        figsize=(1.0 + 2.55 * len(bands), 6.9 * len(corpora)), layout="constrained"
    )
    axes = figure.subplots(3 * len(corpora), len(bands), squeeze=False, sharex=True, sharey="row")
    for index, corpus in enumerate(corpora):
        for column, band in enumerate(bands):
            shown = rows[(rows.corpus == corpus) & (rows.band == band)]
            panels = axes[3 * index : 3 * index + 3, column]
            draw_band(panels, shown)
            title = BANDS.get(band, f"band {band}")
            panels[0].set_title(
                f"{title}\n({int(shown.facts.iloc[0])} facts)"
                if len(corpora) == 1
                else f"{corpus}: {title}",
                fontsize=9,
            )
        names = (
            "share of facts known",
            "mass of stated facts\n(truth: true facts = 1)",
            f"distinct true facts in\n{int(rows.sentences.iloc[0]):,} sentences",
        )
        for axis, name in zip(axes[3 * index : 3 * index + 3, 0], names, strict=True):
            axis.set_ylabel(name)
    for axis in axes.ravel():
        style.generation_axis(axis, int(rows.generation.max()))
        axis.label_outer()
        axis.set_ylim(bottom=-0.04 * axis.get_ylim()[1])
    handles = [
        style.key(role, f"{style.NAME[role]}, mean (band: lowest to highest)")
        for role in ROLES
        if run.roles[role]
    ]
    handles.append(
        Line2D([], [], color=style.GREY, marker="x", ls=":", label="false facts (same colours)")
    )
    style.legend(figure, [*handles, Line2D([], [], color=style.BLACK, ls=":", lw=1, label="truth")])
    style.save(figure, rows, out)


def truths(run: Run) -> pd.DataFrame:
    """Return rows of COLUMNS from the `truth` blocks of all scores."""
    rows = []
    for role in ROLES:
        for member in run.members(role).itertuples(index=False):
            for corpus, summary in run.scores(member.folder)["truth"].items():
                shared = {**member._asdict(), "corpus": corpus, "sentences": summary["sentences"]}
                rows += [shared | band for band in summary["bands"]]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def draw_band(axes, rows: pd.DataFrame) -> None:
    """Draw one popularity band in three panels, from top to bottom."""
    known, mass, distinct = axes
    rows = rows.assign(
        true=rows.true_mass / rows.true_mass_truth, false=rows.false_mass / rows.true_mass_truth
    )
    for role, shown in rows.groupby("role", sort=False):
        for axis, column in ((known, "known"), (mass, "true"), (distinct, "distinct_facts")):
            by = shown.groupby("generation")[column]
            style.band(axis, role, by.mean().index, by.mean(), by.min(), by.max())
        false = shown.groupby("generation")["false"].mean()
        mass.plot(false.index, false, color=style.COLOUR[role], ls=":", marker="x", ms=4, lw=1.1)
    for axis, level in ((known, 1.0), (mass, 1.0), (distinct, rows.distinct_facts_truth.iloc[0])):
        axis.axhline(level, color=style.BLACK, ls=":", lw=1)
