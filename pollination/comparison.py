"""What differs between two runs: settings by key, artifacts by the digests in their records, lineages, last scores."""

import os
from pathlib import Path
from typing import Any

from pollination import artifacts
from pollination.verification import read_records
from pollination.workflow import Plan


def compare(first: Plan, second: Plan) -> dict:
    """What differs between two runs, as JSON. Paths are relative to a run's folder."""
    digests = [recorded(Path(plan.results)) for plan in (first, second)]
    both = sorted(digests[0].keys() & digests[1].keys())
    different = [path for path in both if digests[0][path] != digests[1][path]]
    return {
        "settings": differing(first.config, second.config),
        "equal": len(both) - len(different),
        "different": different,
        "only_first": sorted(digests[0].keys() - digests[1].keys()),
        "only_second": sorted(digests[1].keys() - digests[0].keys()),
        "lineages": _partings(first, second, *digests),
        "scores": {name: [_scores(plan, name) for plan in (first, second)] for name in _shared(first, second)},
    }


def differing(first: Any, second: Any, path: str = "") -> dict[str, list]:
    """Key path -> [value there, value here] wherever two configs differ; absent keys are None."""
    if isinstance(first, dict) and isinstance(second, dict):
        found = {}
        for key in dict.fromkeys([*first, *second]):
            found |= differing(first.get(key), second.get(key), f"{path}.{key}" if path else str(key))
        return found
    return {} if first == second else {path: [first, second]}


def recorded(folder: Path) -> dict[str, str]:
    """Artifact -> digest, of all records of a run's folder."""
    records, _, _ = read_records(folder)
    places = {path: Path(path).parent.relative_to(folder) for path in records}
    return {os.path.normpath(places[path] / name): digest for path, record in records.items() for name, digest in record["outputs"].items()}


def _shared(first: Plan, second: Plan) -> list[str]:
    return [name for name in first.config["experiments"] if name in second.config["experiments"]]


def _partings(first: Plan, second: Plan, one: dict, two: dict) -> dict[str, dict | None]:
    """Experiment -> the earliest generation whose artifacts differ, and which; None where those that both have are equal."""
    found = {}
    for name in _shared(first, second):
        found[name] = None
        for generation in range(min(plan.experiment(name)["generations"] for plan in (first, second))):
            place = first.place(name, generation)
            folders = {f"{place}/", f"{name}/gen{generation}/"}
            parted = [path for path in one if path in two and one[path] != two[path] and any(path.startswith(folder) for folder in folders)]
            if parted:
                found[name] = {
                    "generation": generation,
                    "files": sorted(parted, key=lambda path: (not path.endswith(".safetensors"), path)),
                }
                break
    return found


def _scores(plan: Plan, name: str) -> dict[str, float] | None:
    """Means over the members of the last generation: accuracy by task, nats a token by text; None where it is not measured yet."""
    last = plan.experiment(name)["generations"] - 1
    try:
        scores = [artifacts.read_json(path) for path in plan.members(name, last, "scores.json")]
    except FileNotFoundError:
        return None
    found: dict[str, list[float]] = {}
    for one in scores:
        for task, values in one["tasks"].items():
            found.setdefault(f"accuracy, {task}", []).append(values["accuracy"])
        for text, values in one["perplexity"].items():
            found.setdefault(f"nats a token, {text}", []).append(values["nll_per_token"])
    return {what: sum(values) / len(values) for what, values in found.items()}
