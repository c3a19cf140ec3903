"""Write a page that compares several runs by one measure.

The page has the measure in the last common generation against a key of the config, its trajectory
in each run, and the settings that differ. The intervals are those of a sweep (sweep.py).
"""

import io
import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pollination.analysis.frames import Results
from pollination.analysis.run import Run
from pollination.core.settings import differing
from pollination.figures import curves, page, style, sweep
from pollination.figures.difference import Measured
from pollination.plan import layout

RUN = "run"  # the key that every run has another value of
LISTED = 40  # keys or measures that an error names
LONGEST = 160  # characters of a setting in the table
COLUMNS = (
    "run",
    "experiment",
    "key",
    "value",
    "generation",
    "measure",
    "unit",
    "mean",
    "low",
    "high",
    "interval",
    "replicates",
    "members",
    "questions",
)


@dataclass(frozen=True)
class Compared:
    """One of the runs, under a name that no other has."""

    label: str
    results: Results

    @cached_property
    def run(self) -> Run:
        return Run(self.results.plan)

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Return group -> its replicates, of the groups whose generation 0 is scored."""
        members = self.results.members
        found = {
            str(group): list(dict.fromkeys(part.experiment))
            for group, part in members.groupby("group", sort=False)
        }
        return {group: names for group, names in found.items() if self.last(names) >= 0}

    def last(self, names: list[str]) -> int:
        """Return the last generation up to which all replicates are scored; -1 without one."""
        mine = self.results.members[self.results.members.experiment.isin(names)]
        scored = mine.groupby("generation").scored.all()
        return int(np.argmin([*scored, False])) - 1

    def folders(self, names: list[str], last: int) -> list[str]:
        return [
            layout.member_folder(self.run.plan, name, g, m)
            for name in names
            for g in range(last + 1)
            for m in range(self.run.plan.experiment(name)["population"])
        ]

    @cached_property
    def read(self):
        """Return a function: folder -> values of the measures of a member (`sweep.measures`)."""
        return cache(lambda folder: sweep.measures(self.run, folder))

    @cached_property
    def measures(self) -> dict[str, tuple[str, bool]]:
        """Return title -> key of the measures that some group has in all of its members."""
        found: dict[str, tuple[str, bool]] = {}
        for names in self.groups.values():
            folders = self.folders(names, self.last(names))
            for key in self.read(folders[0]):
                if all(key in self.read(folder) for folder in folders):
                    found.setdefault(sweep.title(key), key)
        return found

    def value(self, key: str, group: str) -> tuple[bool, Any]:
        """Return whether the config has a key, and its value, for the experiments of a group.

        A key is dotted. It begins at an experiment (`mutate.scale`) or at the config (`data_seed`).
        """
        if key == RUN:
            return True, self.label
        config = self.results.config
        for node in (config["experiments"][self.groups[group][0]], config):
            found, value = _at(node, key.split("."))
            if found:
                return True, value
        return False, None

    def rows(self, measure: str, key: str) -> list[dict]:
        """Return a row per group and generation, without the groups that lack the measure."""
        rows = []
        for group, names in self.groups.items():
            found, value = self.value(key, group)
            last = self.last(names)
            folders = self.folders(names, last)
            of = self.measures[measure]
            if not all(of in self.read(folder) for folder in folders):
                continue
            measured = Measured(self.run, of, folders, self.read)
            shown = value if sweep.is_number(value) else _text(value) if found else "absent"
            about = {"run": self.label, "experiment": group, "key": key, "value": shown}
            rows += [about | row for row in sweep.levels(measured, group, names, range(last + 1))]
        return rows


def compare(
    runs: dict[str, Results], measure: str | None, against: str | None, out: Path
) -> pd.DataFrame:
    """Write `out`.html and `out`.csv; return the rows of the CSV.

    `runs`: label -> results. `measure`: the title of a measure, or a part of one title; by default
    the accuracy that selects, or else the first measure of all runs. `against`: a key of the
    config; by default the runs stand side by side.
    ValueError: no run is scored, or there is no such measure or key.
    """
    compared = [Compared(label, results) for label, results in runs.items()]
    for one in compared:
        if not one.groups:
            raise ValueError(
                f"{one.results.folder}: no generation 0 is completely scored yet, so there is "
                "nothing to compare; run snakemake first"
            )
    chosen, key = _measure(compared, measure), against or RUN
    if not any(one.value(key, group)[0] for one in compared for group in one.groups):
        raise ValueError(
            f"--against: {key!r} is not a key of these configs; the keys that differ: "
            f"{_listed(_varying(compared))}"
        )
    every = [row for one in compared for row in one.rows(chosen, key)]
    rows = pd.DataFrame(every, columns=list(COLUMNS))
    ends = _ends(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    style.write_csv(rows, out)
    parts = [
        _about(compared, rows),
        "<h2>Last common generation</h2>",
        _svg(_draw_ends(ends, key), f"{chosen} against {key}"),
        _table(ends, key),
        "<h2>Trajectories</h2>",
        _svg(_draw_trajectories(rows), f"{chosen} over generations, one panel per run"),
        "<h2>Settings that differ</h2>",
        _settings(compared),
    ]
    page.save(f"Comparison of {len(compared)} runs: {chosen}", parts, out)
    return rows


def _measure(compared: list[Compared], asked: str | None) -> str:
    """Return the title of the measure. ValueError: not exactly one measure of all runs fits."""
    first, *others = [one.measures for one in compared]
    common = [title for title in first if all(title in other for other in others)]
    if not common:
        listed = ". ".join(f"{one.label} has {_listed(list(one.measures))}" for one in compared)
        raise ValueError(f"these runs have no measure in common: {listed}")
    if asked is None:
        tasks = [one.run.task() for one in compared]
        wanted = [f"{task}, accuracy" for task in tasks if task]
        return next((title for title in wanted if title in common), common[0])
    fits = [title for title in common if asked.lower() in title.lower()]
    exact = [title for title in common if asked.lower() == title.lower()]
    if len(exact or fits) != 1:
        why = "fits several measures" if fits else "is not a measure of all runs"
        raise ValueError(f"--measure: {asked!r} {why}; allowed: {_listed(fits or common)}")
    return (exact or fits)[0]


def _varying(compared: list[Compared]) -> list[str]:
    """Return the keys whose values differ between runs, or between experiments of a run."""
    found = dict.fromkeys(differences([one.results.config for one in compared]))
    entries = [
        one.results.config["experiments"][names[0]]
        for one in compared
        for names in one.groups.values()
    ]
    return list(dict.fromkeys([*differences(entries), *found]))


def differences(configs: list[dict]) -> dict[str, list]:
    """Return key path -> the value in each config, where they differ; None for an absent key."""
    found: dict[str, list] = {}
    for place, config in enumerate(configs[1:], 1):
        for key, (first, other) in differing(configs[0], config).items():
            found.setdefault(key, [first] * len(configs))[place] = other
    found.pop("run", None)
    return found


def _ends(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the last generation that an experiment has in all runs that have it."""
    lasts = rows.groupby(["experiment", "run"], sort=False).generation.max()
    common = lasts.groupby("experiment").min()
    return rows[rows.generation == rows.experiment.map(common)].reset_index(drop=True)


def _draw_ends(ends: pd.DataFrame, key: str) -> Figure:
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axis = figure.subplots()
    scale = sweep.Scale.of(list(ends.value))
    groups = list(dict.fromkeys(ends.experiment))
    handles = _keys(groups)
    for place, group in enumerate(groups):
        points = ends[ends.experiment == group]
        look = curves.look(place)
        if scale.kind == "text":
            look["ls"] = ""
            handles[place].set_linestyle("")
        shift = sweep.DODGE * (place - (len(groups) - 1) / 2)
        sweep.draw_group(axis, points, scale.at(points.value), look, shift)
    scale.show(axis)
    axis.set_xlabel(_plain(key))
    if scale.kind == "text":
        axis.set_xticks(range(len(scale.values)), [_plain(value) for value in scale.values])
    _value_axis(axis, ends)
    style.legend(figure, handles)
    return figure


def _draw_trajectories(rows: pd.DataFrame) -> Figure:
    runs, groups = (list(dict.fromkeys(rows[key])) for key in ("run", "experiment"))
    figure, axes = style.grid(len(runs), columns=3, width=4.1, height=3.0, sharey=True)
    for axis, run in zip(axes, runs, strict=True):
        mine = rows[rows.run == run]
        for place, group in enumerate(groups):
            line, look = mine[mine.experiment == group], curves.look(place)
            axis.plot(line.generation, line["mean"], ms=4, lw=1.5, zorder=3, **look)
            known = (line.interval == sweep.RUNS).to_numpy()
            for alpha, kind in ((0.16, known), (0.07, ~known)):
                band = {"color": look["color"], "alpha": alpha, "lw": 0}
                axis.fill_between(line.generation, line.low, line.high, where=kind, **band)
        style.generation_axis(axis, int(mine.generation.max()))
        axis.set_title(_plain(run))
        _value_axis(axis, rows)
    style.legend(figure, _keys(groups))
    return figure


def _value_axis(axis: Axes, rows: pd.DataFrame) -> None:
    axis.set_ylabel(rows.unit.iloc[0])
    if rows.unit.iloc[0] == "perplexity":
        curves.log_if_wide(axis, rows["mean"], rows["mean"])


def _keys(groups: list[str]) -> list[Line2D]:
    return curves.keys([_plain(group) for group in groups])


def _svg(figure: Figure, label: str) -> str:
    """Return a figure as an element of a page, without dates."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = re.sub(r"(?s)^.*?<svg ", "", file.getvalue())
    look = "max-width:100%;height:auto"
    return f'<svg role="img" aria-label="{page.attribute(label)}" style="{look}" {text}'


def left_out(rows: pd.DataFrame, label: str, results: Results) -> list[str]:
    """Return the experiments of a run that have no rows."""
    shown = set(rows[rows.run == label].experiment)
    return [group for group in dict.fromkeys(results.members.group) if group not in shown]


def _about(compared: list[Compared], rows: pd.DataFrame) -> str:
    measure = rows.measure.iloc[0]
    cells = [
        [
            page.text(one.label),
            page.text(one.results.folder),
            f"{int(one.results.members.scored.sum())} of {len(one.results.members)}",
            page.text(", ".join(left_out(rows, one.label, one.results)) or "none"),
        ]
        for one in compared
    ]
    return (
        f"<p>Measure: {page.text(measure)}, the mean over members and replicates. Intervals are "
        f"95 % confidence intervals. Where it says {sweep.RUNS}, they cover other replicates and "
        "other questions. Dotted bars and light bands cover other questions only: the variance "
        "between replicates is unknown.</p>\n"
        + page.table(["run", "folder", "members scored", "experiments without the measure"], cells)
    )


def _table(ends: pd.DataFrame, key: str) -> str:
    kinds = ["", "", "", "number", "number", "number", "number", ""]
    rows = [
        [
            *(page.text(row[name]) for name in ("run", "experiment")),
            page.text(sweep.text_of(row["value"])),
            str(row["generation"]),
            f"{row['mean']:.4g}",
            f"{row['low']:.4g} to {row['high']:.4g}",
            str(row["replicates"]),
            page.text(row["interval"]),
        ]
        for row in ends.to_dict("records")
    ]
    headings = ["run", "experiment", page.text(key), "generation", page.text(ends.unit.iloc[0])]
    return page.table([*headings, "95 % interval", "replicates", "interval over"], rows, kinds)


def _settings(compared: list[Compared]) -> str:
    found = differences([one.results.config for one in compared])
    if not found:
        return "<p>None.</p>\n"
    rows = [
        [page.text(key), *(page.text(_short(value)) for value in values)]
        for key, values in found.items()
    ]
    return page.table(["key", *(page.text(one.label) for one in compared)], rows)


def _at(node: Any, path: list[str]) -> tuple[bool, Any]:
    """Return whether a node of a config has a path of keys, which may hold dots, and the value."""
    if not path:
        return True, node
    for end in range(len(path), 0, -1):
        if isinstance(node, dict) and ".".join(path[:end]) in node:
            return _at(node[".".join(path[:end])], path[end:])
    return False, None


def _text(value: Any) -> str:
    return (
        json.dumps(value, ensure_ascii=False)
        if isinstance(value, (dict, list))
        else (sweep.text_of(value))
    )


def _short(value: Any) -> str:
    text = "absent" if value is None else _text(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ("; ".join(names[:LISTED]) or "none") + more


def _plain(value: object) -> str:
    """Return text in which matplotlib sees no formulas."""
    return str(value).replace("$", r"\$")
