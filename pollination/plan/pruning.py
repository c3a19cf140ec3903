"""Delete weights and text after their last reader, as the config key `keep` allows.

Founders stay, because every experiment starts from them. The weights of the last generation stay
too, so that an experiment can be extended. gen{g}/pruned.json (weights) and gen{g}/pruned_text.json
list the deleted files and their digests. So `verify` does not report them as missing, and it can
check recomputed ones.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from pollination.core import artifacts
from pollination.core.lease import kept_copies
from pollination.plan import layout, outputs
from pollination.plan.graph import is_dealt, is_mixed
from pollination.plan.inputs import parent_weights, written_corpora
from pollination.plan.layout import member_files, place_of
from pollination.plan.operators import text_of
from pollination.plan.outputs import measured_beside
from pollination.plan.plan import Plan
from pollination.plan.synthetic import all_shards, pooled, round_text, synthetic_text

LISTS = ("pruned.json", "pruned_text.json")  # of deleted files, in the folder of a generation
Child = tuple[str, int, int]  # experiment, generation, member


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
    done += [path.replace(".parquet", ".run.json") for path in all_shards(plan, name, generation)]
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


def keeps_text(plan: Plan) -> str:
    """Return all, last or none; runs older than this key keep all."""
    return plan.config.get("keep", {}).get("text", "all")


def text_prunings(plan: Plan) -> list[str]:
    """Return a file per generation with deletable text."""
    if keeps_text(plan) == "all":
        return []
    return [
        f"{plan.results}/{name}/gen{generation}/pruned_text.json"
        for name, experiment in plan.config["experiments"].items()
        for generation in range(experiment["generations"])
        if prunable_text(plan, name, generation)
    ]


def prunable_text(plan: Plan, name: str, generation: int) -> list[str]:
    """Return the text that may be deleted: shards that parents wrote, dealt shares and mixtures.

    With `text: last`, a generation's text stays if the last generation of an experiment reads it.
    Text that nothing in the plan reads is not deleted.
    """
    if keeps_text(plan) == "all":
        return []
    children = list(_children(plan, name, generation))
    if keeps_text(plan) == "last" and any(
        g + 1 == plan.experiment(reader)["generations"] for reader, g, _ in children
    ):
        return []
    if not children and not written_corpora(plan, name, generation):
        return []
    return all_shards(plan, name, generation) + _dealt(plan, name, generation)


def _dealt(plan: Plan, name: str, generation: int) -> list[str]:
    """Return what jobs deal or mix of a generation's text for an experiment's children."""
    experiment = plan.experiment(name)
    if text_of(experiment).is_human or generation + 1 >= experiment["generations"]:
        return []
    return [
        path
        for m in range(experiment["population"])
        if is_dealt(plan, name, generation + 1) or is_mixed(plan, name, generation + 1, m)
        for path in round_text(plan, name, generation + 1, m)
    ]


def _children(plan: Plan, name: str, generation: int) -> Iterator[Child]:
    """Yield the children that read text of a generation: shards, or shares dealt of them."""
    for reader, experiment in plan.config["experiments"].items():
        if name not in (reader, experiment["text_of"]) or text_of(experiment).is_human:
            continue
        accumulates = experiment["human"]["accumulate"] != "none"
        last = experiment["generations"] if accumulates else generation + 2
        own = {*_dealt(plan, reader, generation), *pooled(plan, reader, generation)}
        for g in range(generation + 1, min(last, experiment["generations"])):
            for m in range(experiment["population"]):
                if own & set(synthetic_text(plan, reader, g, m)):
                    yield reader, g, m


def text_pruning_inputs(plan: Plan, name: str, generation: int) -> list[str]:
    """Return small files that every reader of a generation's text writes last.

    Readers are the children of the experiment and of those that train on its text (`text_of`), the
    jobs that deal it to them, measures of data quality, and corpora of kind `synthetic`.
    """
    children = list(_children(plan, name, generation))
    readers = dict.fromkeys(reader for reader, _, _ in children)
    done = [
        path.replace("/text.parquet", "/run.json")
        for reader in readers
        for path in _dealt(plan, reader, generation)
    ]
    files = ["train.jsonl", *(["quality.json"] if plan.config["evaluate"]["quality"] else [])]
    for reader, g, m in children:
        done += [f"{layout.member_folder(plan, reader, g, m)}/{file}" for file in files]
    for corpus in written_corpora(plan, name, generation):
        done.append(f"{plan.results}/corpora/{corpus}/corpus.json")
    return done


def pruned(plan: Plan) -> set[str]:
    """Return the paths that are listed as deleted, whatever the config keeps now."""
    paths = set()
    for name, experiment in plan.config["experiments"].items():
        for generation in range(experiment["generations"]):
            folder = Path(plan.results, name, f"gen{generation}")
            for told in LISTS:
                with suppress(OSError, ValueError, KeyError, TypeError):  # `verify` reports damage
                    removed = artifacts.read_json(folder / told)["removed"]
                    paths |= {os.path.normpath(folder / path) for path in removed}
    return paths


def deletable(plan: Plan) -> set[str]:
    """Return the paths that the plan's jobs delete, and those that are listed as deleted."""
    paths = pruned(plan)
    for name, experiment in plan.config["experiments"].items():
        for generation in range(experiment["generations"]):
            if generation + 1 < experiment["generations"]:
                paths.update(prunable(plan, name, generation))
            paths.update(prunable_text(plan, name, generation))
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
