"""Divide the questions of a benchmark: one half selects parents, the other half is reported.

Members that are selected on some questions were also lucky on them. An accuracy on the same
questions therefore rises without any skill (the winner's curse). Study A selects and reports on the
same questions, which is `split: none` here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pollination.core import artifacts
from pollination.core.seeds import derive_seed


@dataclass(frozen=True, eq=False)
class Answers:
    """A model's answers to one benchmark, by rising doc_id."""

    score: np.ndarray
    """(questions,) numbers from 0 to 1: the benchmark's metric; 1 is a right answer, 0 a wrong."""
    selecting: np.ndarray
    """(questions,) booleans: the questions that select parents."""
    reporting: np.ndarray
    """The questions that figures and claims report; without a split, all questions are both."""


def selecting_half(seed: int, task: str, doc_ids: np.ndarray, split: str = "half") -> np.ndarray:
    """Return (questions,) booleans: which questions select parents, in the order of `doc_ids`.

    It is a seeded random half of the questions, rounded down, whatever the order of the rows. With
    `split` "half of NAME" it is the half that task NAME has for these questions; with "none" it is
    every question.
    ValueError: there are fewer than two questions, or a doc_id occurs twice.
    """
    if split == "none":
        return np.ones(len(doc_ids), dtype=bool)
    known = np.unique(doc_ids)
    if len(known) != len(doc_ids):
        raise ValueError(f"answers to {task!r}: a doc_id occurs twice among {len(doc_ids)} answers")
    if len(known) < 2:
        raise ValueError(
            f"tasks.{task}.split: 'half' needs at least 2 questions, but the benchmark has "
            f"{len(known)}; allowed: none; set split: none, or ask more questions"
        )
    name = split.removeprefix("half").removeprefix(" of ") or task
    order = np.random.default_rng(derive_seed(seed, "split", name)).permutation(len(known))
    return np.isin(doc_ids, known[order[: len(known) // 2]])


def read_answers(path: str | Path, splits: dict[str, str], seed: int) -> dict[str, Answers]:
    """Return {task: answers} of an answers.parquet; `splits`: task -> its split, if it has one.

    A task whose metric has no value from 0 to 1 for each question is left out. ValueError: a score
    is outside 0 to 1.
    """
    table = artifacts.read_table(path, ["task", "doc_id", "score"]).to_pandas()
    found = {}
    for task, rows in table.sort_values("doc_id", kind="stable").groupby("task", sort=False):
        score = rows["score"].to_numpy(float)
        if np.isnan(score).all():
            continue
        if not ((score >= 0) & (score <= 1)).all():
            raise ValueError(
                f"{path}: a score of task {task!r} is not a number from 0 to 1; delete the file "
                "and run snakemake again"
            )
        half = selecting_half(seed, task, rows["doc_id"].to_numpy(), splits.get(task, "none"))
        found[task] = Answers(score, half, ~half if task in splits else half)
    return found


def scored(score: np.ndarray) -> dict[str, Any]:
    """Return accuracy, its standard error (None for one question) and the number of questions.

    `score`: (questions,) numbers from 0 to 1. Their mean is called accuracy, whatever the metric.
    """
    n, values = len(score), np.asarray(score, dtype=float)
    stderr = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    return {"accuracy": float(values.mean()), "stderr": stderr, "questions": n}
