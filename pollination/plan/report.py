"""List the figures of a run's report, and the artifacts that each reads."""

from collections.abc import Callable, Iterable

from pollination.core.settings import lean, schema
from pollination.plan.claims import claim_config, claim_inputs
from pollination.plan.embedding import embedded
from pollination.plan.excerpts import part_config, whole_config
from pollination.plan.figures import REPORT, entry_of
from pollination.plan.operators import text_of
from pollination.plan.plan import Plan
from pollination.plan.reads import read_files
from pollination.plan.semantics import semantics_settings


def _both(plan: Plan) -> list[str]:
    return plan.config["figures"]["population"] + plan.config["figures"]["line"]


def _controls(plan: Plan) -> list[str]:
    return [name for names in plan.config["figures"]["controls"].values() for name in names]


def _players(plan: Plan, role: str) -> list[str]:
    entries = plan.config["figures"][role].values()
    return [name.split(":")[0] for entry in entries for names in entry.values() for name in names]


def _measured(plan: Plan, key: str) -> bool:
    return bool(plan.config.get("evaluate", {}).get(key))


def _disagreeing(plan: Plan) -> list[str]:
    return _players(plan, "ecosystems") if _measured(plan, "disagreement") else []


def _of_known_quality(plan: Plan) -> list[str]:
    return (_players(plan, "ecosystems") or _both(plan)) if _measured(plan, "quality") else []


def _with_graph(plan: Plan) -> list[str]:
    return [name for name, e in plan.config["experiments"].items() if text_of(e).is_graph]


SHOWS: dict[str, Callable[[Plan], list[str]]] = {  # the experiments that a figure shows
    "both": _both,
    "compared": lambda plan: _both(plan) + _controls(plan),
    "population": lambda plan: plan.config["figures"]["population"],
    "first of each": lambda plan: [
        name for role in ("population", "line") for name in plan.config["figures"][role][:1]
    ],
    "ecosystems": lambda plan: _players(plan, "ecosystems"),
    "comparisons": lambda plan: _players(plan, "comparisons"),
    "disagreement": _disagreeing,
    "quality": _of_known_quality,
    "embedded": embedded,
    "graphs": _with_graph,
}


def shown_in(plan: Plan, figure: str) -> list[str]:
    """Return the experiments that a figure shows; without any, an optional figure is omitted."""
    shows = entry_of(figure).shows
    if shows == "swept":
        variants = plan.config["sweeps"][_swept(figure)]["variants"].values()
        return [run for variant in variants for run in variant["runs"]]
    return list(dict.fromkeys(SHOWS[shows](plan)))


def _swept(figure: str) -> str:
    return figure.removeprefix("sweep_")


def stems(plan: Plan, figure: str) -> list[str]:
    """Return the names of the files of an entry of REPORT: its key, or each `sweep_NAME`."""
    if REPORT[figure].shows == "swept":
        return [f"sweep_{name}" for name in plan.config.get("sweeps", {})]
    return [figure]


def figures(plan: Plan) -> list[str]:
    """Return the figures and pages of this run's report."""
    if not plan.config["experiments"]:
        return ["claims"] if plan.config["theory"] or plan.config["fingerprint"] else []
    return [
        stem
        for figure, entry in REPORT.items()
        for stem in stems(plan, figure)
        if not entry.optional or shown_in(plan, stem)
    ]


def figure_inputs(plan: Plan, figure: str) -> dict[str, list[str]]:
    """Return the artifacts that a figure reads, by kind, for the experiments that it shows."""
    if figure == "claims":
        return claim_inputs(plan)
    shown, entry = shown_in(plan, figure), entry_of(figure)
    counts = {name: plan.experiment(name)["generations"] for name in shown}
    common = min(counts.values(), default=1)

    def chosen(count: int) -> Iterable[int]:
        last = count if entry.generations == "own ends" else common
        ends = dict.fromkeys((0, last - 1))
        return {"start": [0], "all": range(count)}.get(entry.generations, ends)

    places = [(name, g) for name, count in counts.items() for g in chosen(count)]
    return read_files(plan, entry.reads, places, one_member=entry.generations == "start")


def figure_config(plan: Plan, figure: str) -> dict:
    """Return the part of the config that a figure needs; other changes do not redraw it."""
    return lean(_figure_config(plan, figure), schema())


def _figure_config(plan: Plan, figure: str) -> dict:
    entry = entry_of(figure)
    if entry.config == "whole":
        return whole_config(plan)
    if entry.config == "claims":
        return claim_config(plan)
    roles = plan.config["figures"]
    needed = part_config(
        plan, shown_in(plan, figure) if entry.optional or entry.shows == "compared" else _both(plan)
    )
    if entry.shows == "swept":
        name = _swept(figure)
        return needed | {"figures": {}, "sweeps": {name: plan.config["sweeps"][name]}}
    is_embedded = entry.shows == "embedded"
    if is_embedded:
        needed["evaluate"] = {"semantics": semantics_settings(plan)}
    mapped = {
        target: role
        for target, role in roles["paper"].items()
        if is_embedded and target == "figure_a10"
    }
    return needed | {"figures": roles | {"paper": mapped}}


def report_files(plan: Plan) -> list[str]:
    """Return the files of the report.

    Without experiments, these are the claims about theory and fingerprints.
    """
    return [
        f"{plan.results}/report/{figure}.{ending}"
        for figure in figures(plan)
        for ending in entry_of(figure).endings
    ]
