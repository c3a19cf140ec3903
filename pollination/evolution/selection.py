"""Selection: a rule chooses k members as parents, and what is said of the choice: how much of it is
noise, where it was one by accuracy.
"""

import random
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from pollination.core import artifacts, userfile
from pollination.core.job import Job
from pollination.core.seeds import derive_seed
from pollination.core.statistics import selection_confidence
from pollination.plan.operators import SELECTION, takes_best


@dataclass(frozen=True, eq=False)
class Member:
    """What a rule sees of a member of the generation that it chooses from."""

    slot: int
    accuracy: float
    """On the task of `select.task`."""
    scores: dict
    """Its scores.json: tasks, perplexity, truth, and the user's own measures."""
    correct: np.ndarray
    """(questions,) booleans: its answers to the task; all members have the same questions."""


def truncation(members: list[Member], k: int, _rng: np.random.Generator) -> list[int]:
    """The k members of highest accuracy (study A, appendix C)."""
    return rank_members([member.accuracy for member in members])[:k]


def rank_members(accuracies: list[float]) -> list[int]:
    """Members by falling accuracy; equal accuracies by slot, so that a choice never depends on the
    order of jobs.
    """
    return sorted(range(len(accuracies)), key=lambda member: (-accuracies[member], member))


def select_parents(job: Job) -> dict:
    """`selection.json` of the job's generation."""
    settings, seed = job.params.select, job.params.seed
    return select(
        job.files("scores"),
        job.files("answers"),
        settings["task"],
        settings["k"],
        derive_seed(seed, "selection"),
        settings["rule"],
        derive_seed(settings.get("seed", seed), "selection", int(job.wildcards.gen)),
    )


def select(
    scores: list[Path],
    answers: list[Path],
    task: str,
    k: int,
    seed: int,
    rule: str = "truncation",
    rule_seed: int = 0,
) -> dict:
    """`selection.json` of one generation (study A, appendix C): ranking, parents, ties, and the
    noise of the choice.

    `scores` and `answers` are the members' files in slot order; `rule` chooses the parents with
    random numbers of `rule_seed`, and the ranking lists the others by accuracy. The noise is that
    of the questions: with other questions of the same kind, would the same members have been chosen
    (statistics.selection_confidence)? Noise and ties are None for a rule that does not choose by
    accuracy. Raises ValueError where a score is not a number, or the rule fails.
    """
    members = read_members(scores, answers, task)
    accuracies = [member.accuracy for member in members]
    parents = choose(rule, members, k, np.random.default_rng(rule_seed))
    ranking = parents + [slot for slot in rank_members(accuracies) if slot not in parents]
    by_accuracy = takes_best(rule)
    correct = np.stack([member.correct for member in members])
    return {
        "task": task,
        "k": k,
        "parents": parents,
        "ranking": ranking,
        "accuracies": accuracies,
        "standard_errors": [member.scores["tasks"][task]["stderr"] for member in members],
        "questions": int(correct.shape[1]),
        "ties": ties(accuracies, ranking, k) if by_accuracy else None,
        "confidence": selection_confidence(correct, parents, k, seed) if by_accuracy else None,
    }


def read_members(scores: list[Path], answers: list[Path], task: str) -> list[Member]:
    members = []
    for slot, (path, table) in enumerate(zip(scores, answers, strict=True)):
        result = artifacts.read_json(path)
        accuracy = result.get("tasks", {}).get(task, {}).get("accuracy")
        if not isinstance(accuracy, int | float) or not 0 <= accuracy <= 1:
            raise ValueError(
                f"{path}: the accuracy in {task!r} is {accuracy}; allowed: 0 to 1; a member "
                "without a score cannot be ranked"
            )
        rows = artifacts.read_table(table, ["task", "doc_id", "correct"]).to_pandas()
        rows = rows[rows["task"] == task].sort_values("doc_id")
        members.append(Member(slot, accuracy, result, rows["correct"].to_numpy(bool)))
    return members


def ties(accuracies: list[float], ranking: list[int], k: int) -> dict:
    """The members that the cut falls between."""
    worst = accuracies[ranking[k - 1]]
    tied = [member for member in ranking if accuracies[member] == worst] if k < len(ranking) else []
    return {"at_the_cut": tied, "broken_by": "slot number, the lower first"}


def choose(rule: str, members: list[Member], k: int, rng: np.random.Generator) -> list[int]:
    """The slots that a rule chooses, the best first.

    ValueError: the rule fails, or it returns anything but k different slots.
    """
    allowed = f"a list of {k} different slots of 0 to {len(members) - 1}, the best first"
    if rule in SELECTION:
        module, name = SELECTION[rule].function.split(".")
        function = getattr(import_module(f"pollination.evolution.{module}"), name)
        own = userfile.UserFunction("select.rule", rule, function)
    else:
        own = userfile.load("select.rule", rule)
        seed = int(rng.integers(2**32))
        random.seed(seed)
        np.random.seed(seed)
    returned = own(deepcopy(members), k, rng)  # a copy: the record is of what was measured
    slots = _slots(returned)
    if len(slots) != k or len(set(slots)) != k or not set(slots) <= set(range(len(members))):
        raise own.refuse(returned, allowed)
    return slots


def _slots(returned: Any) -> list[int]:
    """The integers that a rule returned; none where it returned anything else."""
    if not isinstance(returned, list | tuple | np.ndarray):
        return []
    try:
        slots = [index(slot) for slot in returned if not isinstance(slot, bool | np.bool_)]
    except Exception:  # of the user's own class
        return []
    return slots if len(slots) == len(returned) else []
