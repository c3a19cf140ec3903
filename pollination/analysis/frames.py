"""A run as tidy tables, for notebooks and scripts: `pollination.load_run(FOLDER)`."""

from contextlib import suppress
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd

from pollination.analysis.run import SELECTING, Run
from pollination.core import artifacts
from pollination.plan import layout
from pollination.plan.config.values import entry_of
from pollination.plan.layout import place_of
from pollination.plan.lineage import family
from pollination.plan.plan import Plan
from pollination.plan.saved import read_run

MEMBER = ["experiment", "generation", "member"]
EDGE = [*MEMBER, "inherits", "from_generation", "from_member"]
SCORE = [*MEMBER, "kind", "name", "metric", "value", "stderr"]
COST = ["job", "seconds", "cpu_seconds", "max_rss_mib"]


class Results:
    """The results of a run, finished or not.

    Each table is a DataFrame that is read when it is first used. A table has no rows of members
    that are not scored yet.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.config = plan, plan.config
        self.folder = Path(plan.results)
        self._run = Run(plan)

    def __repr__(self) -> str:
        scored, every = int(self.members.scored.sum()), len(self.members)
        return f"<run {self.config['run']} in {self.folder}: {scored} of {every} members scored>"

    @cached_property
    def members(self) -> pd.DataFrame:
        """One row for each experiment, generation and member.

        `group` is the experiment's name without its seed, so replicates share it. `seed` is the
        seed. `place` is the folder of the generation: founders that several experiments share have
        one place. `folder` is the member's folder, and `scored` says whether it has its scores.
        """
        rows = [
            {
                "experiment": name,
                "group": entry_of(name),
                "seed": one["seed"],
                "generation": g,
                "member": m,
                "place": place_of(self.plan, name, g),
                "folder": layout.member_folder(self.plan, name, g, m),
            }
            for name, one in self.config["experiments"].items()
            for g in range(one["generations"])
            for m in range(one["population"])
        ]
        table = pd.DataFrame(rows)
        return table.assign(
            scored=[Path(folder, "scores.json").is_file() for folder in table.folder]
        )

    def _scored(self) -> pd.DataFrame:
        return self.members[self.members.scored][[*MEMBER, "folder"]]

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row for each number in a member's scores.json.

        `kind` is benchmark, text, world or measure. `name` is that of the benchmark, of the text
        (corpus/split), of the world or of the user's own measure. `metric` names the number, and
        `value` is it. `stderr` is its standard error, or NaN.

        The metric `accuracy` of a benchmark is of the half of the questions that selects no parent,
        and `accuracy_selecting` of the half that does (`tasks.*.split`). The metrics of lm-eval are
        of all questions.
        """
        rows = []
        for member in self._scored().itertuples(index=False):
            about = [getattr(member, key) for key in MEMBER]
            rows += [[*about, *score] for score in self.scores_of(member.folder)]
        return pd.DataFrame(rows, columns=SCORE)

    def scores_of(self, folder: str) -> list[list[Any]]:
        result = self._run.scores(folder)
        reported = self._run.accuracy(folder)
        selecting = self._run.accuracy(folder, SELECTING)
        rows: list[list[Any]] = []
        for task, entry in result["tasks"].items():
            for metric, scores in (("accuracy", reported), ("accuracy_selecting", selecting)):
                if task in scores:
                    one = scores[task]
                    rows.append(["benchmark", task, metric, one["accuracy"], one["stderr"]])
            for metric, one in entry.get("metrics", {}).items():
                name = metric.removesuffix(",none")
                rows.append(["benchmark", task, name, one["value"], one.get("stderr")])
        for kind, key in (("text", "perplexity"), ("world", "truth"), ("measure", "measures")):
            for name, entry in result.get(key, {}).items():
                numbers = entry if isinstance(entry, dict) else {name: entry}
                errors = {"excess_nats_per_token": numbers.get("excess_nats_stderr")}
                rows += [
                    [kind, name, metric, value, errors.get(metric)]
                    for metric, value in numbers.items()
                    if isinstance(value, Real) and metric != "excess_nats_stderr"
                ]
        return rows

    @cached_property
    def answers(self) -> pd.DataFrame:
        """The members' answers.parquet: one row for each question, with the columns of MEMBER."""
        return self._tables("answers.parquet")

    @cached_property
    def sequences(self) -> pd.DataFrame:
        """The members' sequences.parquet: the loss (nats) of each sequence of held-out text."""
        return self._tables("sequences.parquet")

    def _tables(self, file: str) -> pd.DataFrame:
        parts = [
            artifacts.read_table(Path(member.folder, file))
            .to_pandas()
            .assign(**{key: getattr(member, key) for key in MEMBER})
            for member in self._scored().itertuples(index=False)
        ]
        table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=MEMBER)
        return table[[*MEMBER, *(column for column in table if column not in MEMBER)]]

    @cached_property
    def lineage(self) -> pd.DataFrame:
        """One row for each child and each model of which it has weights or text.

        `inherits` is weights or text. Experiments whose parents are not selected yet have no rows.
        """
        rows = []
        for name in self.config["experiments"]:
            try:
                nodes = family(self.plan, name)
            except FileNotFoundError:
                continue
            for (g, m), node in nodes.items():
                given = [("weights", node["weights_from"])] if node["weights_from"] else []
                given += [("text", writer) for writer in node["text_from"]]
                rows += [(name, g, m, inherits, *parent) for inherits, parent in given]
        return pd.DataFrame(rows, columns=EDGE)

    @cached_property
    def costs(self) -> pd.DataFrame:
        """One row for each finished job: its seconds, processor seconds and peak memory (MiB)."""
        folder = self.folder / "benchmarks"
        rows = []
        for path in sorted(folder.rglob("*.tsv")):
            # Snakemake may still write it.
            with suppress(FileNotFoundError, pd.errors.EmptyDataError):
                one = pd.read_csv(path, sep="\t", na_values="-").iloc[-1]
                job = path.relative_to(folder).with_suffix("").as_posix()
                rows.append((job, one["s"], one["cpu_time"], one["max_rss"]))
        return pd.DataFrame(rows, columns=COST)


def load_run(folder: str | Path) -> Results:
    """Return the results of a run from its folder, results/{run}.

    ValueError: the folder is not that of a run.
    """
    return Results(read_run(str(folder)))
