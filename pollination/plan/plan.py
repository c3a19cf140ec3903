"""The plan of a run: the static DAG as functions of the config.

Slots and ranks (docs/design.md): members are slots 0..N-1, parents are ranks 0..k-1. Jobs read from
`selection.json` which member holds a rank, so the whole plan is known before any job runs. All
paths begin with the run's folder, `results/{run}/`, which rules write as `<results>`.
"""

from dataclasses import dataclass
from functools import cached_property

from pollination.plan.config.values import by_member, listed

SPLITS = ("train", "validation", "test", "prompts")
MEMBER_FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
EVALUATION_FILES = (
    "scores.json",
    "answers.parquet",
    "sequences.parquet",
    "facts.parquet",
    "samples.parquet",
)


@dataclass(frozen=True)
class Plan:
    """A run: its resolved config and its folder, e.g. 'results/demo'."""

    config: dict
    results: str

    @cached_property
    def graphs(self) -> dict:
        """Interaction graphs by experiment and generation, filled by plan/graph.py."""
        return {}

    def experiment(self, name: str) -> dict:
        return self.config["experiments"][name]

    @cached_property
    def pool_sizes(self) -> dict[str, int]:
        """Return the number of founders of each pool.

        It is the population of the pool's largest experiment. A pool that only provides a
        pretrained model has one founder.
        """
        sizes = dict.fromkeys(self.config["founders"], 0)
        for experiment in self.config["experiments"].values():
            sizes[experiment["founders"]] = max(
                sizes[experiment["founders"]], experiment["population"]
            )
        for name in [name for name, size in sizes.items() if size]:
            for model in listed(self.config["founders"][name]["model"]):
                source = self.config["models"][model]["pretrained"]
                if isinstance(source, dict):
                    sizes[source["founders"]] = max(sizes[source["founders"]], 1)
        return sizes

    @property
    def used_pools(self) -> dict[str, dict]:
        return {
            name: pool for name, pool in self.config["founders"].items() if self.pool_sizes[name]
        }

    @cached_property
    def bases(self) -> list[str]:
        """Return the pretrained models that founders start from: generation -1."""
        named = [
            by_member(pool["model"], m)
            for name, pool in self.used_pools.items()
            for m in range(self.pool_sizes[name])
        ]
        return [
            model for model in dict.fromkeys(named) if self.config["models"][model]["pretrained"]
        ]
