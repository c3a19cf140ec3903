"""Checkpoints that a run need not keep (config key `keep`): deleted when nothing of the plan will read them again.

Founders stay, because every experiment starts from them, and so does an experiment's last generation, from which it can be prolonged. What was
deleted stands in gen{g}/pruned.json with its digest, so that it is not missed, and what is made again can be held against it.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from pollination import artifacts
from pollination.lease import kept_copies


class Pruning:
    """What `Plan` knows of it."""

    @property
    def keeps(self) -> str:
        """all | parents | last; runs that were made before there was this key keep all."""
        return self.config.get("keep", {"checkpoints": "all"})["checkpoints"]

    def prunings(self) -> list[str]:
        """One for every generation but the last of each experiment."""
        return [
            f"{self.results}/{name}/gen{generation}/pruned.json"
            for name, experiment in self.config["experiments"].items()
            for generation in range(experiment["generations"] - 1)
            if self.prunable(name, generation)
        ]

    def prunable(self, name: str, generation: int) -> list[str]:
        """Weights of a generation that may be deleted: its members' (unless founders) and its mutated parents'. Whoever holds a rank is
        left out of it under `keep: parents` when the job runs; where there is no selection, every member is a parent."""
        n = self.experiment(name)["population"]
        if self.keeps == "all":
            return []
        found = [path for m in range(n) for path in self.weights(name, generation + 1, m) if f"/gen{generation}/parent" in path]
        if generation and (self.keeps == "last" or self.selects(name)):
            found += self.members(name, generation, "model.safetensors")
        return list(dict.fromkeys(found))

    def pruning_inputs(self, name: str, generation: int) -> dict[str, list[str]]:
        """Files that say that every reader of these weights is done: small ones that come with what they wrote."""
        done = self.members(name, generation, "scores.json") + self.members(name, generation + 1, "train.jsonl")
        if self.writes(name, generation):
            done += [path.replace(".parquet", ".run.json") for path in self.all_shards(name, generation)]
        places = [f"{self.results}/{self.place(name, g)}/" for g in (generation, generation + 1)]
        done += [path for path in self.measured_beside() if path.startswith(tuple(places))]
        done += [path for path in self.disagreements() if path.startswith(f"{self.results}/{name}/gen{generation}/")]
        chosen = [f"{self.results}/{name}/gen{generation}/selection.json"] if self.selects(name) else []
        return {"done": list(dict.fromkeys(done)), "selection": chosen}

    def pruned(self) -> set[str]:
        """Paths that were deleted on purpose, wherever the run's folder lies."""
        found = set()
        generations = [(name, g) for name, e in self.config["experiments"].items() for g in range(e["generations"])]
        for folder in (Path(self.results, name, f"gen{g}") for name, g in generations):
            if (folder / "pruned.json").is_file():  # also where the config keeps all by now
                found |= {os.path.normpath(folder / name) for name in artifacts.read_json(folder / "pruned.json")["removed"]}
        return found


def prune(paths: Iterable[str], keep: set[str], target: Path) -> int:
    """Delete files with their kept second names, and write what they were to `target`; returns how many.

    Their digests come from their records, so a deletion that was cut off is simply finished.
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
