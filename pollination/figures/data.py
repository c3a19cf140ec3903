"""What figures read of a run: tables by role (population, line), generation and member."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from pollination import artifacts
from pollination.workflow import Plan

ROLES = ("population", "line")


class Run:
    """A run's artifacts by role. `plan` is the plan of a resolved config, or of what `Plan.figure_config` keeps of one."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.roles: dict[str, list[str]] = plan.config["figures"]
        self.scores = cache(lambda folder: artifacts.read_json(f"{folder}/scores.json"))

    def generations(self, role: str) -> int:
        """Generations of a role; replicates all have as many. 0 where nobody plays it."""
        return max((self.plan.experiment(name)["generations"] for name in self.roles[role]), default=0)

    @property
    def last(self) -> int:
        """The last generation that every role has."""
        return min(self.generations(role) for role in ROLES if self.roles[role]) - 1

    def members(self, role: str, generation: int | None = None) -> pd.DataFrame:
        """Rows role, experiment, generation, member, folder. A model that replicates share (a founder) stands there once."""
        rows = [
            (role, name, g, m, self.plan.member(name, g, m))
            for name in self.roles[role]
            for g in (range(self.plan.experiment(name)["generations"]) if generation is None else [generation])
            for m in range(self.plan.experiment(name)["population"])
        ]
        return pd.DataFrame(rows, columns=["role", "experiment", "generation", "member", "folder"]).drop_duplicates("folder")

    def selection(self, name: str, generation: int) -> dict | None:
        path = f"{self.plan.results}/{name}/gen{generation}/selection.json"
        return artifacts.read_json(path) if self.plan.selects(name) else None

    def task(self) -> str | None:
        """The benchmark that selects in the population, if one does."""
        chosen = {self.plan.experiment(name)["select"]["task"] for name in self.roles["population"]} - {"none"}
        return next(iter(chosen), None)

    def champion(self, name: str, generation: int) -> int:
        """The best by the selecting task; without selection the lowest loss on held-out text, else the highest mean accuracy."""
        selection = self.selection(name, generation)
        if selection:
            return selection["ranking"][0]
        folders = [self.plan.member(name, generation, m) for m in range(self.plan.experiment(name)["population"])]
        return int(np.argmin([self._loss(self.scores(folder)) for folder in folders]))

    @staticmethod
    def _loss(scores: dict) -> float:
        if scores["perplexity"]:
            return float(np.mean([text["nll_per_token"] for text in scores["perplexity"].values()]))
        return -float(np.mean([task["accuracy"] for task in scores["tasks"].values()] or [0.0]))

    def champion_rule(self) -> str:
        return f"best on {self.task()}" if self.task() else "lowest loss on held-out text"

    def _long(self, block: str, name: str) -> pd.DataFrame:
        rows = []
        for role in ROLES:
            for member in self.members(role).itertuples(index=False):
                chosen = self.parents(member.experiment, member.generation)
                values = self.scores(member.folder)[block]
                rows += [{**member._asdict(), "selected": member.member in chosen, name: key, **entry} for key, entry in values.items()]
        return pd.DataFrame(rows).drop(columns="folder", errors="ignore")

    @cache  # noqa: B019
    def parents(self, name: str, generation: int) -> frozenset[int]:
        selection = self.selection(name, generation)
        return frozenset(selection["parents"]) if selection else frozenset()

    def accuracies(self) -> pd.DataFrame:
        """Rows role, experiment, generation, member, selected, task, and what scores.json says of the task."""
        return self._long("tasks", "task")

    def perplexities(self) -> pd.DataFrame:
        """Rows role, experiment, generation, member, selected, text ('{corpus}/{split}'), and what scores.json says of the text."""
        return self._long("perplexity", "text")

    def chance(self) -> dict[str, float]:
        """Accuracy of guessing, by task: the mean of 1 / choices. Tasks answered by writing have none."""
        role = next(role for role in ROLES if self.roles[role])
        path = f"{self.members(role, 0).folder.iloc[0]}/answers.parquet"
        table = artifacts.read_table(path, ["task", "loglikelihoods"]).to_pandas().dropna(subset="loglikelihoods")
        return (1 / table.loglikelihoods.map(len)).groupby(table.task).mean().to_dict()

    @staticmethod
    def table(folder: str, file: str, columns: list[str]) -> pd.DataFrame:
        return artifacts.read_table(f"{folder}/{file}", columns).to_pandas()

    @staticmethod
    def training(folder: str) -> list[dict]:
        """The rows of train.jsonl."""
        return [json.loads(line) for line in Path(folder, "train.jsonl").read_text(encoding="utf-8").splitlines() if line]
