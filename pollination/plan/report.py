"""List the figures of a run's report, and the artifacts that each reads."""

from collections.abc import Callable

from pollination.core.settings import lean, schema
from pollination.plan.claims import claim_config, claim_inputs
from pollination.plan.embedding import embedded
from pollination.plan.excerpts import part_config, whole_config
from pollination.plan.figures import FIGURES, REPORT
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
}


def shown_in(plan: Plan, figure: str) -> list[str]:
    """Return the experiments that a figure shows; without any, an optional figure is omitted."""
    return list(dict.fromkeys(SHOWS[FIGURES[figure].shows](plan)))


def figures(plan: Plan) -> list[str]:
    """Return the figures and pages of this run's report."""
    if not plan.config["experiments"]:
        return ["claims"] if plan.config["theory"] or plan.config["fingerprint"] else []
    return [name for name, figure in REPORT.items() if not figure.optional or shown_in(plan, name)]


def figure_inputs(plan: Plan, figure: str) -> dict[str, list[str]]:
    """Return the artifacts that a figure reads, by kind, for the experiments that it shows."""
    if figure == "claims":
        return claim_inputs(plan)
    shown, entry = shown_in(plan, figure), FIGURES[figure]
    last = min((plan.experiment(name)["generations"] for name in shown), default=1) - 1
    chosen = {"start": [0], "ends": dict.fromkeys((0, last))}.get(entry.generations)
    places = [
        (name, g) for name in shown for g in chosen or range(plan.experiment(name)["generations"])
    ]
    return read_files(plan, entry.reads, places, one_member=entry.generations == "start")


def figure_config(plan: Plan, figure: str) -> dict:
    """Return the part of the config that a figure needs; other changes do not redraw it."""
    return lean(_figure_config(plan, figure), schema())


def _figure_config(plan: Plan, figure: str) -> dict:
    entry = FIGURES[figure]
    if entry.config == "whole":
        return whole_config(plan)
    if entry.config == "claims":
        return claim_config(plan)
    roles = plan.config["figures"]
    needed = part_config(
        plan, shown_in(plan, figure) if entry.optional or entry.shows == "compared" else _both(plan)
    )
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
        for ending in FIGURES[figure].endings
    ]
