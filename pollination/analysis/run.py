"""Tables of a run for the figures: by role (population, line), generation and member."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pollination.analysis.degeneration import english
from pollination.core import artifacts
from pollination.core.questions import Answers, read_answers, scored, selecting_half
from pollination.plan import layout
from pollination.plan.config.values import is_held_out
from pollination.plan.layout import model_of, place_of
from pollination.plan.operators import SELECTION, takes_best
from pollination.plan.plan import Plan
from pollination.plan.semantics import vocabularies
from pollination.plan.splits import splits

ROLES = ("population", "line")
REPORTING, SELECTING = "reporting", "selecting"  # the halves of a benchmark (core/questions.py)


class Run:
    """A run's artifacts by role.

    `plan`: the plan of a resolved config, or of the part that `figure_config` keeps.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.roles: dict[str, Any] = plan.config["figures"]
        self.splits = splits(plan)
        """Task -> its split, for the tasks of which a half is reported."""
        self.scores = cache(lambda folder: artifacts.read_json(f"{folder}/scores.json"))
        self.answers = cache(self._answers)
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

    @property
    def line_name(self) -> str:
        """Return in words what the figures call the line: one model, or the mean of several."""
        names = self.roles["line"]
        several = names and self.plan.experiment(names[0])["population"] > 1
        return "mean of the single lines" if several else "single line"

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
        """Return a generation's selection.json; None without selection.

        ValueError: the file comes from another split than the config's, so the reported questions
        may have selected.
        """
        if not layout.selects(self.plan, name):
            return None
        path = f"{self.plan.results}/{name}/gen{generation}/selection.json"
        choice = artifacts.read_json(path)
        made, given = choice.get("split", "none"), self.splits.get(choice["task"], "none")
        if made != given:
            raise ValueError(
                f"{path}: parents were selected with tasks.{choice['task']}.split: {made}, but the "
                f"config has {given}; delete the file and run snakemake again, or set split: {made}"
            )
        return choice

    def task(self) -> str | None:
        """Return the benchmark that selects in the population, if there is one."""
        chosen = [
            self.plan.experiment(name)["select"]["task"]
            for name in self.roles["population"]
            if layout.selects(self.plan, name)
        ]
        return next(iter(chosen), None)

    def _answers(self, folder: str) -> dict[str, Answers]:
        seed = self.plan.config["evaluation_seed"] if self.splits else 0
        return read_answers(f"{folder}/answers.parquet", self.splits, seed)

    def accuracy(self, folder: str, part: str = REPORTING) -> dict[str, dict]:
        """Return task -> scores of a member, with accuracy, stderr and questions of one part.

        Of a task without a split, both parts are all questions. A task is left out if its metric
        has no value from 0 to 1 for each question (`statistics`).
        """
        scores = self.scores(folder)["tasks"]
        return {
            task: entry | (scored(self.part(folder, task, part)) if task in self.splits else {})
            for task, entry in scores.items()
            if "accuracy" in entry
        }

    def part(self, folder: str, task: str, part: str = REPORTING) -> np.ndarray:
        """Return (Q,) scores from 0 to 1 of one part of a task's questions, by rising doc_id."""
        answers = self.answers(folder)[task]
        return answers.score[answers.selecting if part == SELECTING else answers.reporting]

    def yardstick(
        self, name: str, generation: int, part: str = REPORTING
    ) -> tuple[str, np.ndarray]:
        """Return (name of the measure that ranks members, its values in slot order).

        It is the accuracy on the selecting task. Without selection it is the loss on held-out text,
        or the mean accuracy if the run measures no held-out text. Training text does not count.
        `part`: the questions that are read.
        """
        experiment = self.plan.experiment(name)
        folders = [
            layout.member_folder(self.plan, name, generation, m)
            for m in range(experiment["population"])
        ]
        if layout.selects(self.plan, name):
            task = experiment["select"]["task"]
            accuracies = [self.accuracy(folder, part)[task]["accuracy"] for folder in folders]
            half = f", {part} half" if task in self.splits else ""
            return f"accuracy on {task}{half}", np.array(accuracies)
        scores = [self.scores(folder) for folder in folders]
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
        means = [
            np.mean([task["accuracy"] for task in self.accuracy(folder, part).values()] or [0.0])
            for folder in folders
        ]
        return f"mean accuracy{f', {part} half' if self.splits else ''}", np.array(means)

    def champion(self, name: str, generation: int) -> int:
        """Return the best member by the yardstick; with selection, the first of the ranking.

        No question of the reporting half chooses it.
        """
        selection = self.selection(name, generation)
        if selection:
            return selection["ranking"][0]
        what, values = self.yardstick(name, generation, SELECTING)
        return int(np.argmin(values) if what.startswith("nats") else np.argmax(values))

    def champion_rule(self, name: str | None = None) -> str:
        """Return in words how an experiment's champion is chosen.

        None: the experiment of the population, or else of the line.
        """
        name = name or (self.roles["population"] + self.roles["line"])[0]
        rule = self.plan.experiment(name)["select"]["rule"]
        if layout.selects(self.plan, name) and not takes_best(rule):
            return f"first choice of {rule if rule in SELECTION else 'the custom rule'}"
        what, _ = self.yardstick(name, 0, SELECTING)
        return f"lowest {what}" if what.startswith("nats") else f"highest {what}"

    def _long(self, values_of: Callable[[str], dict[str, dict]], name: str) -> pd.DataFrame:
        rows = []
        for role in ROLES:
            for member in self.members(role).itertuples(index=False):
                chosen = self.parents(member.experiment, member.generation)
                rows += [
                    {**member._asdict(), "selected": member.member in chosen, name: key, **entry}
                    for key, entry in values_of(member.folder).items()
                ]
        return pd.DataFrame(rows).drop(columns="folder", errors="ignore")

    @cache  # noqa: B019
    def parents(self, name: str, generation: int) -> frozenset[int]:
        selection = self.selection(name, generation)
        return frozenset(selection["parents"]) if selection else frozenset()

    def accuracies(self) -> pd.DataFrame:
        """Return rows role, experiment, generation, member, selected, task, and its scores.

        `accuracy`, `stderr` and `questions` are of the reporting half; `selecting_accuracy` and
        `selecting_questions` are of the half that selects. Without a split, both are of all
        questions.
        """

        def both(folder: str) -> dict[str, dict]:
            selecting = self.accuracy(folder, SELECTING)
            return {
                task: entry
                | {f"selecting_{key}": selecting[task][key] for key in ("accuracy", "questions")}
                for task, entry in self.accuracy(folder).items()
            }

        return self._long(both, "task")

    def statistics(self) -> pd.DataFrame:
        """Return such rows of the tasks whose metric has no value from 0 to 1 for each question.

        `accuracy` is the metric of all questions, a number of any size.
        """

        def of_all(folder: str) -> dict[str, dict]:
            return {
                task: entry
                | {"accuracy": entry["score"], "selecting_accuracy": None}
                | {"selecting_questions": None}
                for task, entry in self.scores(folder)["tasks"].items()
                if "accuracy" not in entry and entry["score"] is not None
            }

        return self._long(of_all, "task")

    def perplexities(self) -> pd.DataFrame:
        """Return rows role, experiment, generation, member, selected, text, and its scores.

        text is '{corpus}/{split}'.
        """
        return self._long(lambda folder: self.scores(folder)["perplexity"], "text")

    def chance(self) -> dict[str, float]:
        """Return chance accuracy by task: the mean share of right choices, on reported questions.

        Tasks without right and wrong choices have none.
        """
        role = next(role for role in ROLES if self.roles[role])
        folder = self.members(role, 0).folder.iloc[0]
        table = self.table(folder, "answers.parquet", ["task", "doc_id", "chance"])
        for task in self.splits:
            asked = table[table.task == task]
            half = selecting_half(
                self.plan.config["evaluation_seed"], task, asked.doc_id.to_numpy()
            )
            table = table.drop(asked.index[half])
        return table.dropna(subset="chance").groupby("task").chance.mean().to_dict()

    def measures(
        self, folder: str, bands: dict[int, str] | None = None
    ) -> dict[tuple[str, bool], np.ndarray]:
        """Return (measure, is it in nats?) -> one value per question; their mean is the measure.

        The measures are correct answers and known facts (in %), and nats per token. Of a task with
        a split, the reporting half is one measure and the selecting half (study A's way) another.
        `bands`: name of each band of popularity whose facts are a measure of their own.
        """
        values = {}
        for task in self.answers(folder) if self.plan.config["tasks"] else ():
            values[f"{task}, accuracy", False] = 100.0 * self.part(folder, task)
            if task in self.splits:
                selecting = 100.0 * self.part(folder, task, SELECTING)
                values[f"{task}, accuracy on the selecting half", False] = selecting
        wanted = ["corpus", "known", *(["band"] if bands else [])]
        facts = self.table(folder, "facts.parquet", wanted)
        for corpus, part in facts.groupby("corpus", sort=False):
            values[f"{corpus}, facts known", False] = 100.0 * part.known.to_numpy(float)
            for band, name in (bands or {}).items():
                known = 100.0 * part[part.band == band].known.to_numpy(float)
                if len(known):
                    values[f"{corpus}, facts known, {name}", False] = known
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
