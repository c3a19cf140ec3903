"""Turn the CSV of a figure into charts of plotly.js, which show their values and can be zoomed.

A figure becomes panels, one chart each, so that the page can lay them out for any width.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from pollination.figures import answer, curves, style
from pollination.figures.difference import UNKNOWN, numbers
from pollination.figures.landing.traces import (
    Bar,
    Panel,
    Trace,
    axis,
    clean,
    curve,
    error_bars,
    fitted,
    forest,
    members,
    of_place,
    of_role,
    panel,
    whole,
)
from pollination.figures.sweep import QUESTIONS
from pollination.figures.truth import BANDS

ROLES = ("population", "line")
MOST_PANELS, MOST_POINTS = 4, 400


def charts(key: str, rows: pd.DataFrame) -> list[Panel]:
    """Return the panels of a figure; none if it has no chart, so that its picture is shown.

    The page shows the first MOST_PANELS; the picture has all.
    """
    builder = BUILDERS.get(key)
    return list(builder(rows)) if builder and not rows.empty else []


def answers(rows: pd.DataFrame) -> Iterable[Panel]:
    """The answer and the controls in one panel, and what was lost, by measure."""
    parts = {"answer": "the difference", "control": "the difference", "lost": answer.PARTS["lost"]}
    titles = rows.part.map(parts)
    if " minus " not in rows.comparison[0]:
        titles[rows.part == "answer"] = "the change from the first to the last generation"
    for (title, unit), mine in rows.groupby([titles, "unit"], sort=False):
        groups: dict[str, list[Bar]] = {}
        for row in mine.to_dict("records"):
            lost = row["part"] == "lost"
            label = row["measure"].partition(", ")[2] if lost else answer.label(row)
            sure = str(row["decided"]) == "True"
            name = row["comparison"] if lost else label
            ends = row["mean"], row["low"], row["high"]
            dotted = row["variance_between_runs"] == UNKNOWN
            bar = Bar(name, answer.role_of(row), *ends, numbers(row), sure, dotted)
            groups.setdefault(label, []).append(bar)
        yield forest(str(title), f"{unit}, 95 % intervals", list(groups.items()))


def accuracies(rows: pd.DataFrame) -> Iterable[Panel]:
    for task, part in rows.groupby("task", sort=False):
        yield _over_generations(str(task), part, "accuracy", "accuracy", log=False)


def perplexities(rows: pd.DataFrame) -> Iterable[Panel]:
    excess = "excess_nats_per_token"
    for text, part in rows.groupby("text", sort=False):
        if part[excess].notna().all():
            title = f"{text}: excess over the truth"
            yield _over_generations(title, part, excess, "excess nats per token", log=False)
    for text, part in rows.groupby("text", sort=False):
        yield _over_generations(f"{text}: perplexity", part, "perplexity", "perplexity", log=True)


def _over_generations(title: str, rows: pd.DataFrame, value: str, name: str, log: bool) -> Panel:
    data: list[Trace] = []
    for role in ROLES:
        mine = rows[rows.role == role]
        if not mine.empty:
            data += [members(mine, value, role)] if len(mine) <= MOST_POINTS * 3 else []
    for role in ROLES:
        means = []
        for generation, part in rows[rows.role == role].groupby("generation"):
            seen = np.log(part[value]) if log else part[value]
            mean, half = style.mean_band(seen) if role == "line" else (seen.mean(), math.nan)
            each = [mean, mean - half, mean + half]
            means.append([generation, *(np.exp(each) if log else each)])
        if means:
            x, *ends = zip(*means, strict=True)
            mean, low, high = ends
            if value == "accuracy":
                low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
            data += curve(style.NAME[role], of_role(role), x, mean, low, high, "95 %")
    return panel(title, data, whole("generation", rows.generation), fitted(name, rows[value], log))


def truths(rows: pd.DataFrame) -> Iterable[Panel]:
    several = rows.corpus.nunique() > 1
    for (corpus, band), part in rows.groupby(["corpus", "band"], sort=False):
        data = []
        for role in ROLES:
            by = part[part.role == role].groupby("generation").known
            if len(by):
                ends = by.mean(), by.min(), by.max()
                data += curve(
                    style.NAME[role], of_role(role), by.mean().index, *ends, band="lowest, highest"
                )
        title = f"{BANDS.get(band, band)} ({int(part.facts.iloc[0])} facts)"
        title = f"{corpus}: {title}" if several else title
        yield panel(
            title,
            data,
            whole("generation", rows.generation),
            axis("share of facts known", range=[0, 1.02]),
            220,
        )


def by_label(rows: pd.DataFrame, time: str) -> list[tuple[str, pd.DataFrame]]:
    """Return the ecosystems of each label, those of most rounds and replicates first."""
    parts = [(str(label), part) for label, part in rows.groupby("label", sort=False)]
    return sorted(parts, key=lambda one: (-one[1][time].max(), -one[1].replicates.max()))


def optima(rows: pd.DataFrame) -> Iterable[Panel]:
    """The probability that each D is best, and the best D with its interval."""
    for label, part in by_label(rows, "T"):
        levels = sorted(part.diversity.unique())
        names = [f"{level:.3g}" for level in levels]
        table = part.pivot(index="diversity", columns="T", values="probability").loc[levels]
        best = part[part.optimum.astype(str) == "True"].sort_values("T")
        at = [levels.index(value) for value in best.diversity]
        low = [levels.index(value) for value in best.optimum_low]
        high = [levels.index(value) for value in best.optimum_high]
        said = [
            f"D = {names[a]}, 95 % interval {names[b]} to {names[c]}"
            for a, b, c in zip(at, low, high, strict=True)
        ]
        data: list[Trace] = [
            {
                "type": "heatmap",
                "x": clean(table.columns),
                "y": list(range(len(levels))),
                "z": [clean(row) for row in table.to_numpy()],
                "zmin": 0,
                "zmax": 1,
                "colorscale": [[0, "#ffffff"], [1, "#5aa5d6"]],
                "showscale": False,
                "hovertemplate": "T = %{x}: best with probability %{z:.2f}<extra></extra>",
            },
            {
                "x": clean(best["T"]),
                "y": at,
                "text": said,
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [c - a for a, c in zip(at, high, strict=True)],
                    "arrayminus": [a - b for a, b in zip(at, low, strict=True)],
                    "color": "#00000070",
                    "thickness": 3,
                    "width": 0,
                },
                "mode": "lines+markers",
                "line": {"color": "#000000", "width": 1.5},
                "marker": {"color": "#000000", "size": 8},
                "hovertemplate": "T = %{x}: %{text}<extra></extra>",
                "key": "best D after T rounds, 95 % interval",
            },
        ]
        y = axis("diversity D", tickvals=list(range(len(levels))), ticktext=names)
        yield panel(str(label), data, whole("rounds T", rows["T"]), y, 300, hovermode="closest")


def trajectories(rows: pd.DataFrame) -> Iterable[Panel]:
    for label, part in by_label(rows, "t"):
        groups = [(f"D = {d:.3g}", mine) for d, mine in part.groupby("diversity")]
        yield _rounds(str(label), groups)


def comparisons(rows: pd.DataFrame) -> Iterable[Panel]:
    for title, part in rows.groupby("title", sort=False):
        yield _rounds(str(title), list(part.groupby("experiment", sort=False)))


def _rounds(title: str, groups: list) -> Panel:
    data, every = [], pd.concat([rows for _, rows in groups]).mu
    log = every.max() > curves.SPREAD * every.min()
    for place, (name, rows) in enumerate(groups):
        none = [math.nan] * len(rows)
        data += curve(str(name), of_place(place), rows.t, rows.mu, none, none)
    y = axis("perplexity (log)" if log else "perplexity", type="log" if log else "linear")
    return panel(title, data, whole("round t", pd.concat([part for _, part in groups]).t), y, 300)


def aggregates(rows: pd.DataFrame) -> Iterable[Panel]:
    """A curve per label; of many labels, a panel each."""
    groups = list(rows.groupby("label", sort=False))
    shared = [groups] if len(groups) <= MOST_PANELS else [[one] for one in groups]
    for together in sorted(shared, key=lambda some: -some[0][1]["T"].iloc[0]):
        mine = pd.concat([part for _, part in together])
        levels = sorted(mine.diversity.unique())
        data = []
        for place, (label, part) in enumerate(together):
            at = [levels.index(value) + 0.05 * place for value in part.diversity]
            data += error_bars(str(label), of_place(place), at, part.mu, part.low, part.high)
        title = f"mean of {int(mine['T'].max())} rounds, 95 % intervals"
        title = f"{together[0][0]}: {title}" if len(together) == 1 else title
        names = [f"{level:.3g}" for level in levels]
        x = axis("diversity D", tickvals=list(range(len(levels))), ticktext=names)
        log = mine.high.max() > curves.SPREAD * mine.low.min()
        y = axis("perplexity (log)" if log else "perplexity", type="log" if log else "linear")
        if len(together) == 1:
            data[-1].pop("key")
        yield panel(title, data, x, y, 300)


def sweeps(rows: pd.DataFrame) -> Iterable[Panel]:
    """A panel per measure; several swept keys become curves."""
    x_key, *others = list(rows.columns[: list(rows.columns).index("measure")])
    for measure, part in rows.groupby("measure", sort=False):
        text = part[x_key].dtype == object or part[x_key].dtype.kind not in "if"
        groups = list(part.groupby(others, sort=False)) if others else [((), part)]
        data = []
        for place, (values, mine) in enumerate(groups):
            name = ", ".join(f"{k} {v}" for k, v in zip(others, values, strict=True)) or x_key
            x = clean(map(str, mine[x_key])) if text else clean(mine[x_key])
            ends = mine["mean"], mine.low, mine.high
            dotted = mine.interval == QUESTIONS
            data += error_bars(name, of_place(place), x, *ends, not text, dotted)
        unit = str(part.unit.iloc[0])
        kind = {"type": "category"} if text else {}
        yield panel(str(measure), data, axis(x_key, **kind), axis(unit))


def families(rows: pd.DataFrame) -> Iterable[Panel]:
    names = list(dict.fromkeys(rows.family))
    table = rows.pivot(index="family", columns="other", values="mean").loc[names, names]
    labels = clean(names)
    data = {
        "type": "heatmap",
        "x": labels,
        "y": labels,
        "z": [clean(row) for row in table.to_numpy()],
        "colorscale": [[0, "#f7fbff"], [1, "#08519c"]],
        "zmin": 0,
        "colorbar": {"thickness": 10, "outlinewidth": 0},
        "hovertemplate": "%{y} and %{x}: %{z:.3f}<extra></extra>",
    }
    side = {"automargin": True, "type": "category"}
    yield panel(
        "mean Jaccard similarity of two models",
        [data],
        side | {"tickangle": -40},
        side | {"autorange": "reversed"},
        170 + 30 * len(names),
        hovermode="closest",
    )


def influences(rows: pd.DataFrame) -> Iterable[Panel]:
    bins = rows[rows.what == "bin"]
    data = []
    look = {"color": style.BLUE, "dash": "solid", "symbol": "circle"}
    expected = {"color": style.BLACK, "dash": "dash", "symbol": "circle-open"}
    for half in (bins[bins.lag < 0], bins[bins.lag > 0]):
        if not half.empty:
            none = [math.nan] * len(half)
            name = "mean of a bin"
            data += curve(name, look, half.lag, half["mean"], half.low, half.high, "95 %")
            data += curve("expected by chance", expected, half.lag, half.expected, none, none)
    yield panel(
        "influence of A on B, by release of B after A",
        data,
        axis("release lag"),
        axis("influence I(A \u2192 B)", type="log"),
        300,
    )


def recursions(rows: pd.DataFrame) -> Iterable[Panel]:
    roles = {"evolution": "population", "baseline": "line"}
    names = {"evolution": "best of K estimators", "baseline": "single estimator"}
    titles = {"sd": "standard deviation, all runs", "mean": "mean, all runs"}
    step = max(1, int(rows.generation.max()) // MOST_POINTS)
    for quantity, title in titles.items():
        data = []
        for role, name in names.items():
            mine = rows[(rows.role == role) & (rows.quantity == quantity)]
            mine = mine[mine.generation % step == 0]
            ends = mine["median"], mine.q05, mine.q95
            data += curve(name, of_role(roles[role]), mine.generation, *ends, "5 to 95 %")
        yield panel(
            title, data, whole("generation", rows.generation), axis(title.split(",")[0]), 300
        )


BUILDERS: dict[str, Callable[[pd.DataFrame], Iterable[Panel]]] = {
    "answer": answers,
    "accuracy": accuracies,
    "perplexity": perplexities,
    "truth": truths,
    "diversity": optima,
    "trajectories": trajectories,
    "comparisons": comparisons,
    "aggregates": aggregates,
    "sweep": sweeps,
    "fingerprint_families": families,
    "fingerprint_influence": influences,
    "theory_trajectory": recursions,
}
