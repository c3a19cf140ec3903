"""List what the landing page of a run shows: figures, pages, and the files behind each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pollination.core.settings import lean, schema
from pollination.plan.config.targets import TARGETS
from pollination.plan.config.values import entry_of as run_of
from pollination.plan.excerpts import whole_config
from pollination.plan.figures import FIGURES, FINGERPRINT, OUTCOME, REPORT, THEORY, entry_of
from pollination.plan.paper import paper_files
from pollination.plan.plan import Plan
from pollination.plan.report import report_files
from pollination.plan.standalone import fingerprint_files, theory_files

TOPICS = {  # section of the page -> the figures of the report, or the part of the run
    "Outcome": OUTCOME,
    "Text": "2 Text",
    "Selection": "3 Selection",
    "Theory": "5 Theory",
    "Fingerprints": "6 Fingerprints",
    "Figures and tables of the studies": "7 Studies",
    "The run itself": "4 Run",
}


@dataclass(frozen=True)
class Shown:
    """One figure or page of the landing page."""

    path: str
    """Its files without their endings."""
    key: str
    """Its entry in FIGURES; also the name of its caption, unless it is a target of the studies."""
    title: str
    topic: str
    page: bool
    survey: str = ""
    """The fingerprint survey that it shows."""
    target: str = ""
    """The target of a study that it is (plan/config/targets.py)."""

    @property
    def stem(self) -> str:
        return Path(self.path).name

    @property
    def endings(self) -> tuple[str, ...]:
        return FIGURES[self.key].endings


def landing_page(plan: Plan) -> list[str]:
    """Return the landing page in a list; none without anything to show."""
    return [f"{plan.results}/report/index.html"] if landing_stems(plan) else []


def landing_inputs(plan: Plan) -> list[str]:
    """Return the files that the landing page shows or links to."""
    return [f"{one.path}.{end}" for one in shown(plan) for end in one.endings]


def landing_config(plan: Plan) -> dict:
    """Return the part of the config that the page and its captions read."""
    return lean(whole_config(plan), schema())


def uncompared(plan: Plan) -> list[str]:
    """Return the experiments that no role of `figures` and no sweep compares."""
    waiting: list[Any] = [plan.config["figures"], plan.config.get("sweeps", {})]
    named: set[str] = set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        else:
            named.add(str(one))
    every = {run: run_of(run) for run in plan.config["experiments"]}
    return list(dict.fromkeys(one for run, one in every.items() if not {run, one} & named))


def landing_stems(plan: Plan) -> list[str]:
    """Return the paths of all drawn figures and pages, without their endings."""
    drawn = report_files(plan) + theory_files(plan) + fingerprint_files(plan) + paper_files(plan)
    folders = {f"{plan.results}/report", f"{plan.results}/paper"}
    tables = [path for path in drawn if path.endswith(".csv")]
    return list(dict.fromkeys(p[:-4] for p in tables if str(Path(p).parent) in folders))


def shown(plan: Plan) -> list[Shown]:
    """Return what the landing page shows, by topic."""
    every = [_shown(path) for path in landing_stems(plan)]
    return sorted(every, key=lambda one: list(TOPICS).index(one.topic))


def _shown(path: str) -> Shown:
    stem = Path(path).name
    if stem in TARGETS:
        kind, number = stem.split("_")
        title = f"Study {number[0].upper()}, {kind} {number[1:]}: {TARGETS[stem].title}"
        key = TARGETS[stem].draws
        return Shown(path, key, title, list(TOPICS)[5], FIGURES[key].page, target=stem)
    key, _, survey = stem.partition(".")
    if key in FINGERPRINT or key in THEORY:
        title = FIGURES[key].title
        topic = "Fingerprints" if key in FINGERPRINT else "Theory"
        return Shown(path, key, title, topic, False, survey)
    entry = entry_of(stem)
    key = next(name for name, one in REPORT.items() if one is entry)
    topic = next(topic for topic, section in TOPICS.items() if section == entry.category)
    swept = stem.removeprefix("sweep_")
    return Shown(path, key, entry.title.replace("{figure}", swept), topic, entry.page)
