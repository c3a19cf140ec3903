"""Tables of a run for the figures: by role (population, line), generation and member."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pollination.analysis.degeneration import english
from pollination.core import artifacts
from pollination.plan import layout
from pollination.plan.config.values import is_held_out
from pollination.plan.layout import model_of, place_of
from pollination.plan.operators import SELECTION, takes_best
from pollination.plan.plan import Plan
from pollination.plan.semantics import vocabularies

ROLES = ("population", "line")


class Run:
    """A run's artifacts by role.

    `plan`: the plan of a resolved config, or of the part that `figure_config` keeps.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.roles: dict[str, Any] = plan.config["figures"]
        self.scores = cache(lambda folder: artifacts.read_json(f"{folder}/scores.json"))
        self.sequences = cache(
            lambda folder: self.table(
                folder, "sequences.parquet", ["corpus", "split", "tokens", "nll"]
            )
        )

    def generations(self, role: str) -> int:
        """Return the number of generations of a role; 0 if the role has no experiment."""
        return max(
            (self.plan.experiment(name)["generations"] for name in self.roles[role]), default=0
        )

    @property
    def last(self) -> int:
        """Return the last generation that every role has."""
        return min(self.generations(role) for role in ROLES if self.roles[role]) - 1

    def members(self, role: str, generation: int | None = None) -> pd.DataFrame:
        """Return rows role, experiment, generation, member, folder.

        A model that replicates share (a founder) has one row.
        """
        rows = [
            (role, name, g, m, layout.member_folder(self.plan, name, g, m))
            for name in self.roles[role]
            for g in (
                range(self.plan.experiment(name)["generations"])
                if generation is None
                else [generation]
            )
            for m in range(self.plan.experiment(name)["population"])
        ]
        return pd.DataFrame(
            rows, columns=["role", "experiment", "generation", "member", "folder"]
        ).drop_duplicates("folder")

    def selection(self, name: str, generation: int) -> Any:
        path = f"{self.plan.results}/{name}/gen{generation}/selection.json"
        return artifacts.read_json(path) if layout.selects(self.plan, name) else None

    def task(self) -> str | None:
        """Return the benchmark that selects in the population, if there is one."""
        chosen = [
            self.plan.experiment(name)["select"]["task"]
            for name in self.roles["population"]
            if layout.selects(self.plan, name)
        ]
        return next(iter(chosen), None)

    def yardstick(self, name: str, generation: int) -> tuple[str, np.ndarray]:
        """Return (name of the measure that ranks members, its values in slot order).

        It is the accuracy on the selecting task. Without selection it is the loss on held-out text,
        or the mean accuracy if the run measures no held-out text. Training text does not count.
        """
        experiment = self.plan.experiment(name)
        scores = [
            self.scores(layout.member_folder(self.plan, name, generation, m))
            for m in range(experiment["population"])
        ]
        if layout.selects(self.plan, name):
            task = experiment["select"]["task"]
            accuracies = [member["tasks"][task]["accuracy"] for member in scores]
            return f"accuracy on {task}", np.array(accuracies)
        held_out = [
            text
            for text in scores[0]["perplexity"]
            if is_held_out({"split": text.rpartition("/")[2]})
        ]
        if held_out:
            losses = [
                np.mean([member["perplexity"][text]["nll_per_token"] for text in held_out])
                for member in scores
            ]
            return "nats per token on held-out text", np.array(losses)
        accuracies = [
            np.mean([task["accuracy"] for task in member["tasks"].values()] or [0.0])
            for member in scores
        ]
        return "mean accuracy", np.array(accuracies)

    def champion(self, name: str, generation: int) -> int:
        """Return the best member by the yardstick; with selection, the first of the ranking."""
        selection = self.selection(name, generation)
        if selection:
            return selection["ranking"][0]
        what, values = self.yardstick(name, generation)
        return int(np.argmin(values) if what.startswith("nats") else np.argmax(values))

    def champion_rule(self, name: str | None = None) -> str:
        """Return in words how an experiment's champion is chosen.

        None: the experiment of the population, or else of the line.
        """
        name = name or (self.roles["population"] + self.roles["line"])[0]
        rule = self.plan.experiment(name)["select"]["rule"]
        if layout.selects(self.plan, name) and not takes_best(rule):
            return f"first choice of {rule if rule in SELECTION else 'the custom rule'}"
        what, _ = self.yardstick(name, 0)
        return f"lowest {what}" if what.startswith("nats") else f"highest {what}"

    def _long(self, block: str, name: str) -> pd.DataFrame:
        rows = []
        for role in ROLES:
            for member in self.members(role).itertuples(index=False):
                chosen = self.parents(member.experiment, member.generation)
                values = self.scores(member.folder)[block]
                rows += [
                    {**member._asdict(), "selected": member.member in chosen, name: key, **entry}
                    for key, entry in values.items()
                ]
        return pd.DataFrame(rows).drop(columns="folder", errors="ignore")

    @cache  # noqa: B019
    def parents(self, name: str, generation: int) -> frozenset[int]:
        selection = self.selection(name, generation)
        return frozenset(selection["parents"]) if selection else frozenset()

    def accuracies(self) -> pd.DataFrame:
        """Return rows role, experiment, generation, member, selected, task, and its scores."""
        return self._long("tasks", "task")

    def perplexities(self) -> pd.DataFrame:
        """Return rows role, experiment, generation, member, selected, text, and its scores.

        text is '{corpus}/{split}'.
        """
        return self._long("perplexity", "text")

    def chance(self) -> dict[str, float]:
        """Return chance accuracy by task, the mean of 1 / choices; generative tasks have none."""
        role = next(role for role in ROLES if self.roles[role])
        folder = self.members(role, 0).folder.iloc[0]
        table = self.table(folder, "answers.parquet", ["task", "loglikelihoods"])
        table = table.dropna(subset="loglikelihoods")
        return (1 / table.loglikelihoods.map(len)).groupby(table.task).mean().to_dict()

    def measures(self, folder: str) -> dict[tuple[str, bool], np.ndarray]:
        """Return (measure, is it in nats?) -> one value per question; their mean is the measure.

        The measures are correct answers and known facts (in %), and nats per token.
        """
        values = {}
        if self.plan.config["tasks"]:
            answers = self.table(folder, "answers.parquet", ["task", "doc_id", "correct"])
            for task, part in answers.groupby("task", sort=False):
                correct = part.sort_values("doc_id").correct.to_numpy(float)
                values[f"{task}, accuracy", False] = 100.0 * correct
        facts = self.table(folder, "facts.parquet", ["corpus", "known"])
        for corpus, part in facts.groupby("corpus", sort=False):
            values[f"{corpus}, facts known", False] = 100.0 * part.known.to_numpy(float)
        columns = ["corpus", "split", "sequence", "tokens", "nll", "truth_nll"]
        sequences = self.table(folder, "sequences.parquet", columns)
        for (corpus, split), part in sequences.groupby(["corpus", "split"], sort=False):
            truth = part.truth_nll.to_numpy(float)
            known = not np.isnan(truth).any()
            name = f"{corpus}/{split}, " + ("excess nats" if known else "log perplexity")
            excess = part.nll.to_numpy() - (truth if known else 0.0)
            values[name, True] = excess / part.tokens.mean()
        return values

    def base(self, name: str) -> str:
        """Return the evaluation folder of the untouched model of an experiment's first member."""
        model = model_of(self.plan, place_of(self.plan, name, 0), 0)
        return f"{self.plan.results}/base/{model}/member0"

    def measured(self, folder: str, corpus: str, split: str) -> bool:
        rows = self.sequences(folder)
        return bool(((rows.corpus == corpus) & (rows.split == split)).any())

    def blocks(self, folder: str, corpus: str, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (mean nats per token, tokens), one value each per sequence of a held-out text."""
        rows = self.sequences(folder)
        rows = rows[(rows.corpus == corpus) & (rows.split == split) & (rows.tokens > 0)]
        if rows.empty:
            raise ValueError(
                f"figures.text: {folder} has no perplexity of {corpus}/{split}; name a text that "
                "evaluate.perplexity measures for all members"
            )
        return rows.nll.to_numpy() / rows.tokens.to_numpy(), rows.tokens.to_numpy()

    def vocabulary(self, experiments: list[str]) -> frozenset[str]:
        """Return lower-case words of English and of the founders' human text."""
        read = [
            artifacts.read_table(path, ["word"])["word"].to_pylist()
            for path in vocabularies(self.plan, experiments)
        ]
        return english().union(*read)

    @staticmethod
    def table(folder: str, file: str, columns: list[str]) -> pd.DataFrame:
        return artifacts.read_table(f"{folder}/{file}", columns).to_pandas()

    @staticmethod
    def training(folder: str) -> list[dict]:
        """Return the rows of train.jsonl."""
        return [
            json.loads(line)
            for line in Path(folder, "train.jsonl").read_text(encoding="utf-8").splitlines()
            if line
        ]
