"""Compare the config of a plan with the config that a run has saved."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pollination.core import sanitize
from pollination.core.settings import schema, whole
from pollination.plan.config.loading import read_yaml
from pollination.plan.jobs import Work
from pollination.plan.plan import Plan

ABSENT = "absent"
NO_RESULT = ("run", "device", "overlay", "keep", "data")  # settings that change no result
PART_OF = {"theory": "theory", "figures": "report"}  # section -> the only group that reads it


@dataclass(frozen=True)
class Difference:
    """A key whose value `here`, in the config file, differs from its value in the `run`."""

    key: str
    here: str
    run: str

    def __str__(self) -> str:
        return f"{self.key}: {self.run} in the run, {self.here} in the config file"


def differences(plan: Plan) -> list[Difference]:
    """Return how the config of a plan differs from the one that its run has saved.

    ValueError: the saved config cannot be read.
    """
    path = Path(plan.results, "config.yaml")
    if not path.is_file():
        return []
    saved = whole(read_yaml(path), schema())
    return [
        Difference(key, _text(here), _text(run))
        for key, here, run in _unequal(json.loads(json.dumps(plan.config, default=str)), saved)
    ]


def _unequal(here: Any, run: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(here, dict) and isinstance(run, dict):
        for key in [*here, *(key for key in run if key not in here)]:
            under = f"{path}.{key}" if path else str(key)
            yield from _unequal(here.get(key, ABSENT), run.get(key, ABSENT), under)
    elif here != run or isinstance(here, bool) != isinstance(run, bool):
        yield path, here, run


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return "{...}" if isinstance(value, dict) else sanitize.line(text, 80)


def outdated(plan: Plan, found: list[Difference]) -> Callable[[Work], bool]:
    """Return a function: may a job's finished files have been made with other settings?

    A key of an experiment or founder pool counts for its own jobs and for those that follow. A key
    of another section counts for all jobs.
    """
    config, groups = plan.config, set()

    def named(section: str, rest: str) -> list[str]:  # names may contain dots
        return [name for name in config[section] if f"{rest}.".startswith(f"{name}.")]

    for difference in found:
        section, _, rest = difference.key.partition(".")
        if section in NO_RESULT:
            continue
        if section == "experiments":
            groups |= set(named(section, rest))
        elif section == "founders":
            pools = named(section, rest)
            groups |= {f"founders {pool}" for pool in pools}
            groups |= {
                name for name, one in config["experiments"].items() if one["founders"] in pools
            }
        elif section == "fingerprint":
            groups |= {f"fingerprint {name}" for name in named(section, rest)}
        elif section in PART_OF:
            groups.add(PART_OF[section])
        else:
            return lambda work: True
    if groups - {"theory"}:
        groups |= {"report", "semantics"}
    return lambda work: work.group in groups
