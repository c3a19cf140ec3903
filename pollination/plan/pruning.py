"""Delete weights after their last reader, as the config key `keep` allows.

Founders stay, because every experiment starts from them. The last generation stays too, so that an
experiment can be extended. gen{g}/pruned.json lists the deleted files and their digests. So
`verify` does not report them as missing, and it can check recomputed ones.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pollination.core import artifacts
from pollination.core.lease import kept_copies
from pollination.plan import layout, outputs
from pollination.plan.inputs import all_shards, parent_weights, parents_write
from pollination.plan.layout import member_files, place_of
from pollination.plan.outputs import measured_beside
from pollination.plan.plan import Plan


def keeps(plan: Plan) -> str:
    """Return all, parents or last; runs older than this key keep all."""
    return plan.config.get("keep", {"checkpoints": "all"})["checkpoints"]


def prunings(plan: Plan) -> list[str]:
    """Return a file per generation with deletable weights; the last generation has none."""
    return [
        f"{plan.results}/{name}/gen{generation}/pruned.json"
        for name, experiment in plan.config["experiments"].items()
        for generation in range(experiment["generations"] - 1)
        if prunable(plan, name, generation)
    ]


def prunable(plan: Plan, name: str, generation: int) -> list[str]:
    """Return the weights that may be deleted: mutated parents, and members other than founders.

    With `checkpoints: parents`, the job keeps the members that hold a rank. Without selection,
    every member is a parent.
    """
    if keeps(plan) == "all":
        return []
    weights = parent_weights(plan, name, generation)
    if generation and (keeps(plan) == "last" or layout.selects(plan, name)):
        weights += member_files(plan, name, generation, "model.safetensors")
    return weights


def pruning_inputs(plan: Plan, name: str, generation: int) -> dict[str, list[str]]:
    """Return small files that every reader of these weights writes last."""
    done = member_files(plan, name, generation, "scores.json")
    done += member_files(plan, name, generation + 1, "train.jsonl")
    if parents_write(plan, name, generation):
        done += [
            path.replace(".parquet", ".run.json") for path in all_shards(plan, name, generation)
        ]
    places = [f"{plan.results}/{place_of(plan, name, g)}/" for g in (generation, generation + 1)]
    done += [path for path in measured_beside(plan) if path.startswith(tuple(places))]
    done += [
        path
        for path in outputs.disagreements(plan)
        if path.startswith(f"{plan.results}/{name}/gen{generation}/")
    ]
    selection = f"{plan.results}/{name}/gen{generation}/selection.json"
    chosen = [selection] if layout.selects(plan, name) else []
    return {"done": list(dict.fromkeys(done)), "selection": chosen}


def pruned(plan: Plan) -> set[str]:
    """Return the paths that pruned.json files list as deleted, whatever the config keeps now."""
    paths = set()
    for name, experiment in plan.config["experiments"].items():
        for generation in range(experiment["generations"]):
            folder = Path(plan.results, name, f"gen{generation}")
            with suppress(OSError, ValueError, KeyError, TypeError):  # `verify` reports damage
                removed = artifacts.read_json(folder / "pruned.json")["removed"]
                paths |= {os.path.normpath(folder / path) for path in removed}
    return paths


def prune(paths: Iterable[str], keep: set[str], target: Path) -> int:
    """Delete files and their kept links, list them in `target`, and return their number.

    The digests come from the files' records, so an interrupted deletion can be completed.
    """
    removed, count = {}, 0
    for path in paths:
        if path in keep:
            continue
        record = artifacts.find_record(path)
        removed[os.path.relpath(path, target.parent)] = record[1] if record else None
        for name in (path, *kept_copies(path)):
            count += os.path.exists(name)
            Path(name).unlink(missing_ok=True)
    artifacts.write_json(target, {"removed": removed})
    return count
