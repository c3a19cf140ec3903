"""Rules that choose k members of a generation as parents (SELECTION in plan/operators.py)."""

from dataclasses import dataclass

import numpy as np

from pollination.plan.config.values import is_held_out

EXCESS = "excess_nats_per_token"


@dataclass(frozen=True, eq=False)
class Member:
    """A member of the generation, as a selection rule sees it.

    If the questions of a task are divided (`tasks.*.split`), a rule sees the selecting half only.
    """

    slot: int
    generation: int
    accuracy: float
    """On the task of `select.task`: the mean of `correct`."""
    scores: dict
    """Its scores.json: tasks, perplexity, truth, and the user's own measures."""
    correct: np.ndarray
    """(questions,) numbers from 0 to 1: the task's metric. 1 is a right answer, 0 a wrong one.

    All members have the same questions.
    """


def rank_members(accuracies: list[float]) -> list[int]:
    """Return the members by falling accuracy, and by slot for equal accuracies.

    So a choice never depends on the order of jobs.
    """
    return sorted(range(len(accuracies)), key=lambda member: (-accuracies[member], member))


def truncation(members: list[Member], k: int, _rng: np.random.Generator) -> list[int]:
    """Return the k members of highest accuracy (study A, appendix C)."""
    return rank_members([member.accuracy for member in members])[:k]


def draw(members: list[Member], k: int, rng: np.random.Generator) -> list[int]:
    """Draw k members; all sets, and all orders of a set, are equally probable."""
    return rng.choice(len(members), size=k, replace=False).tolist()


def once(members: list[Member], k: int, rng: np.random.Generator) -> list[int]:
    """Return the k best founders, and later child (i, i) of each parent i in the order of i.

    This child has the weights of parent i and, with both `text: parent` and `weights_parent`, its
    text. So k lines go on that nobody selects again.
    """
    return (
        [rank * (k + 1) for rank in range(k)]
        if members[0].generation
        else truncation(members, k, rng)
    )


def oracle(members: list[Member], k: int, _rng: np.random.Generator) -> list[int]:
    """Return the k members of lowest excess nats per token, as a mean over held-out texts.

    ValueError: a member has no such text.
    """
    return rank_members([-_excess(member) for member in members])[:k]


def _excess(member: Member) -> float:
    excess = [
        entry[EXCESS]
        for text, entry in member.scores["perplexity"].items()
        if EXCESS in entry and is_held_out({"split": text.rpartition("/")[2]})
    ]
    if not excess:
        raise ValueError(
            f"select.rule: oracle finds no excess nats of member {member.slot}; add an entry of a "
            "microworld's held-out split to evaluate.perplexity, or choose another rule"
        )
    return float(np.mean(excess))
