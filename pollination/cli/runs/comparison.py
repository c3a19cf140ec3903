"""Compare two runs: settings, artifacts (by digest), lineages, last scores."""

import os
from pathlib import Path

from pollination.cli.runs.records import read_records
from pollination.core import artifacts
from pollination.core.questions import read_answers
from pollination.core.settings import differing
from pollination.plan.layout import member_files, place_of
from pollination.plan.plan import Plan
from pollination.plan.splits import splits


def compare(first: Plan, second: Plan) -> dict:
    """Return the differences of two runs, for JSON; paths are relative to the run's folder."""
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
        "scores": {
            name: [_scores(plan, name) for plan in (first, second)]
            for name in _shared(first, second)
        },
    }


def recorded(folder: Path) -> dict[str, str]:
    """Return artifact -> digest from all records in a run's folder."""
    records, _, _ = read_records(folder)
    places = {path: Path(path).parent.relative_to(folder) for path in records}
    return {
        os.path.normpath(places[path] / name): digest
        for path, record in records.items()
        for name, digest in record["outputs"].items()
    }


def _shared(first: Plan, second: Plan) -> list[str]:
    return [name for name in first.config["experiments"] if name in second.config["experiments"]]


def _partings(
    first: Plan, second: Plan, first_digests: dict, second_digests: dict
) -> dict[str, dict | None]:
    """Return experiment -> its first generation that differs, with the files; None if none does."""
    partings: dict[str, dict | None] = {}
    for name in _shared(first, second):
        partings[name] = None
        for generation in range(
            min(plan.experiment(name)["generations"] for plan in (first, second))
        ):
            place = place_of(first, name, generation)
            folders = {f"{place}/", f"{name}/gen{generation}/"}
            parted = [
                path
                for path in first_digests
                if path in second_digests
                and first_digests[path] != second_digests[path]
                and any(path.startswith(folder) for folder in folders)
            ]
            if parted:
                partings[name] = {
                    "generation": generation,
                    "files": sorted(
                        parted, key=lambda path: (not path.endswith(".safetensors"), path)
                    ),
                }
                break
    return partings


def _scores(plan: Plan, name: str) -> dict[str, float] | None:
    """Return means over the last generation's members; None if it is not evaluated yet.

    The means are the metric by task, and nats per token by text. Of a task with a split, it is the
    metric on the reporting half.
    """
    last, halves = plan.experiment(name)["generations"] - 1, splits(plan)
    try:
        scores = [
            artifacts.read_json(path) for path in member_files(plan, name, last, "scores.json")
        ]
        answers = [
            read_answers(path, halves, plan.config["evaluation_seed"]) if halves else {}
            for path in member_files(plan, name, last, "answers.parquet")
        ]
    except FileNotFoundError:
        return None
    measured: dict[str, list[float]] = {}
    for member_scores, answered in zip(scores, answers, strict=True):
        for task, values in member_scores["tasks"].items():
            metric = values.get("metric", "acc")
            label = f"{'accuracy' if metric == 'acc' else metric}, {task}"
            score = values.get("accuracy", values.get("score"))
            if task in answered and task in halves:
                label += " (reporting half)"
                score = answered[task].score[answered[task].reporting].mean()
            if score is not None:
                measured.setdefault(label, []).append(float(score))
        for text, values in member_scores["perplexity"].items():
            measured.setdefault(f"nats per token, {text}", []).append(values["nll_per_token"])
    return {what: sum(values) / len(values) for what, values in measured.items()}
