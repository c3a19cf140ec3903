"""What figures read of a run: tables by role (population, line), generation and member."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from pollination import artifacts
from pollination.degeneration import english
from pollination.workflow import Plan

ROLES = ("population", "line")


class Run:
    """A run's artifacts by role. `plan` is the plan of a resolved config, or of what `Plan.figure_config` keeps of one."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.roles: dict[str, list[str]] = plan.config["figures"]
        self.scores = cache(lambda folder: artifacts.read_json(f"{folder}/scores.json"))
        self.sequences = cache(lambda folder: self.table(folder, "sequences.parquet", ["corpus", "split", "tokens", "nll"]))

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

    def yardstick(self, name: str, generation: int) -> tuple[str, np.ndarray]:
        """What members are ranked by, and its values in slot order: accuracy on the selecting task; without selection the loss on
        held-out text; where that is not measured either, the mean accuracy."""
        task, size = self.plan.experiment(name)["select"]["task"], self.plan.experiment(name)["population"]
        scores = [self.scores(self.plan.member(name, generation, m)) for m in range(size)]
        if task != "none":
            return f"accuracy on {task}", np.array([one["tasks"][task]["accuracy"] for one in scores])
        if scores[0]["perplexity"]:
            return "nats a token on held-out text", np.array(
                [np.mean([t["nll_per_token"] for t in one["perplexity"].values()]) for one in scores]
            )
        return "mean accuracy", np.array([np.mean([t["accuracy"] for t in one["tasks"].values()] or [0.0]) for one in scores])

    def champion(self, name: str, generation: int) -> int:
        """The best by the yardstick; where something selects, the first of its ranking."""
        selection = self.selection(name, generation)
        if selection:
            return selection["ranking"][0]
        what, values = self.yardstick(name, generation)
        return int(np.argmin(values) if what.startswith("nats") else np.argmax(values))

    def champion_rule(self) -> str:
        """In words, for the population or else the line."""
        what, _ = self.yardstick((self.roles["population"] + self.roles["line"])[0], 0)
        return f"lowest {what}" if what.startswith("nats") else f"highest {what}"

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

    def measures(self, folder: str) -> dict[tuple[str, bool], np.ndarray]:
        """(measure, is it in nats?) -> a value a question, whose mean is the measure: right answers, known facts (in %), nats a token."""
        found = {}
        if self.plan.config["tasks"]:
            answers = self.table(folder, "answers.parquet", ["task", "doc_id", "correct"])
            for task, part in answers.groupby("task", sort=False):
                found[f"{task}, accuracy", False] = 100.0 * part.sort_values("doc_id").correct.to_numpy(float)
        facts = self.table(folder, "facts.parquet", ["corpus", "known"])
        for corpus, part in facts.groupby("corpus", sort=False):
            found[f"{corpus}, facts known", False] = 100.0 * part.known.to_numpy(float)
        sequences = self.table(folder, "sequences.parquet", ["corpus", "split", "sequence", "tokens", "nll", "truth_nll"])
        for (corpus, split), part in sequences.groupby(["corpus", "split"], sort=False):
            truth = part.truth_nll.to_numpy(float)
            known = not np.isnan(truth).any()
            name = f"{corpus}/{split}, " + ("excess nats" if known else "log perplexity")
            found[name, True] = (part.nll.to_numpy() - (truth if known else 0.0)) / part.tokens.mean()
        return found

    def base(self, name: str) -> str:
        """The evaluation of the untouched model that an experiment's first member descends from."""
        return f"{self.plan.results}/base/{self.plan.model(self.plan.place(name, 0), 0)}/member0"

    def measured(self, folder: str, corpus: str, split: str) -> bool:
        rows = self.sequences(folder)
        return bool(((rows.corpus == corpus) & (rows.split == split)).any())

    def blocks(self, folder: str, corpus: str, split: str) -> tuple[np.ndarray, np.ndarray]:
        """(mean nats of a token, tokens), each a value a sequence of one held-out text."""
        rows = self.sequences(folder)
        rows = rows[(rows.corpus == corpus) & (rows.split == split) & (rows.tokens > 0)]
        if rows.empty:
            raise ValueError(
                f"figures.text: {corpus}/{split} is not measured on {folder}; allowed: a text that all members are measured on"
            )
        return rows.nll.to_numpy() / rows.tokens.to_numpy(), rows.tokens.to_numpy()

    def vocabulary(self, experiments: list[str]) -> frozenset[str]:
        """The words of the human text that the founders of experiments read, and those of English: lower case."""
        read = [artifacts.read_table(path, ["word"])["word"].to_pylist() for path in self.plan.vocabularies(experiments)]
        return english().union(*read)

    @staticmethod
    def table(folder: str, file: str, columns: list[str]) -> pd.DataFrame:
        return artifacts.read_table(f"{folder}/{file}", columns).to_pandas()

    @staticmethod
    def training(folder: str) -> list[dict]:
        """The rows of train.jsonl."""
        return [json.loads(line) for line in Path(folder, "train.jsonl").read_text(encoding="utf-8").splitlines() if line]
