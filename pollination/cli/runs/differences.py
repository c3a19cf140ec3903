"""Compare the config of a plan with the config that a run has saved, and with its records."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pollination.cli.runs.planned import Planned, other_settings, planned
from pollination.core import artifacts, sanitize
from pollination.core.driver import FOLDER
from pollination.core.settings import differing, schema, whole
from pollination.plan.jobs import Work
from pollination.plan.plan import Plan


@dataclass(frozen=True)
class Difference:
    """A key whose value `here`, in the config file, differs from its value in the `run`."""

    key: str
    here: str
    run: str

    def __str__(self) -> str:
        return f"{self.key}: {self.run} in the run, {self.here} in the config file"


def differences(plan: Plan, saved: dict) -> list[Difference]:
    """Return how the config of a plan differs from the one that its run has saved."""
    config = json.loads(json.dumps(plan.config, default=str))
    return [
        Difference(key, _text(here), _text(run))
        for key, (run, here) in differing(whole(saved, schema()), config).items()
    ]


def _text(value: Any) -> str:
    if value is None:
        return "absent"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return "{...}" if isinstance(value, dict) else sanitize.line(text, 80)


def outdated(plan: Plan, found: list[Difference], finished: list[Work]) -> set[str]:
    """Return the outputs of finished jobs whose records have other settings than the plan.

    Nothing is compared if no config of the run differs from the plan: that takes two seconds.
    """
    if not found and not _had_another_config(plan.results):
        return set()
    unjudged, judged = [], set()
    for work in finished:
        try:
            key = work.output, os.stat(work.output).st_mtime_ns
        except OSError:
            continue
        if key not in _judged:
            unjudged.append((key, work))
        elif _judged[key]:
            judged.add(work.output)
    if unjudged:
        with planned(plan) as rules:
            for key, work in unjudged:
                _judged[key] = _has_other_settings(plan, work, rules)
                judged |= {work.output} if _judged[key] else set()
    return judged


_judged: dict[tuple[str, int], bool] = {}  # (output, time of writing), for repeated reports


def _has_other_settings(plan: Plan, work: Work, rules: Planned) -> bool:
    inside = work.output.removeprefix(f"{plan.results}/")
    try:
        found = artifacts.find_record(work.output)
        path = Path(work.output) if work.output.endswith("run.json") else found and found[0]
        record = artifacts.read_json(path) if path else None
        now = rules.of(f"{rules.plan.results}/{inside}", work.kind.rule)
        return bool(record and now and other_settings(record, now))
    except (OSError, ValueError, AttributeError):  # `verify` names a damaged record
        return False


def _had_another_config(results: str) -> bool:
    """Return whether the drivers of a run have pinned more than one config (core/pin.py)."""
    pinned = set()
    for path in Path(results, FOLDER, "pins").glob("*/config.json"):
        with suppress(OSError):
            pinned.add(artifacts.digest(path))
    return len(pinned) > 1
