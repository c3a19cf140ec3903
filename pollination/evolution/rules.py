"""Rules that choose k members of a generation as parents (SELECTION in plan/operators.py)."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

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


def tournament(members: list[Member], k: int, rng: np.random.Generator) -> list[int]:
    """Return k winners of binary tournaments, the first winner first.

    Each tournament draws two of the members that have not won yet, and the more accurate one wins,
    or the first drawn of two equal ones. The last member wins alone. (Goldberg and Deb, 1991;
    there, a winner may win again.)
    """
    parents: list[int] = []
    for _ in range(k):
        left = [member for member in members if member.slot not in parents]
        two = [left[i] for i in rng.choice(len(left), size=min(2, len(left)), replace=False)]
        parents.append(max(two, key=lambda one: one.accuracy).slot)
    return parents


def roulette(members: list[Member], k: int, rng: np.random.Generator) -> list[int]:
    """Draw k different members one after another, each in proportion to its accuracy.

    Members with an accuracy of 0 are drawn last, all with the same probability.
    """
    weights = np.array([member.accuracy for member in members])
    first = min(k, int(np.count_nonzero(weights)))
    drawn: list[int] = []
    if first:
        drawn += rng.choice(len(members), first, replace=False, p=weights / weights.sum()).tolist()
    return drawn + rng.permutation(np.flatnonzero(weights == 0))[: k - first].tolist()


def mean_rank(members: list[Member], k: int, _rng: np.random.Generator) -> list[int]:
    """Return the k members of lowest mean rank over all benchmarks; equal accuracies share a rank.

    ValueError: a benchmark has no accuracy.
    """
    return rank_members((-_ranks(members).mean(axis=1)).tolist())[:k]


def pareto(members: list[Member], k: int, _rng: np.random.Generator) -> list[int]:
    """Return the k first members by Pareto front, and by mean rank within a front.

    A member is in the first front if no other is at least as accurate on every benchmark and more
    accurate on one. Without these members, the next front is the first (Deb et al., 2002).
    ValueError: a benchmark has no accuracy.
    """
    accuracies = _accuracies(members)
    lead = accuracies[:, None] - accuracies
    behind = (lead >= 0).all(axis=2) & (lead > 0).any(axis=2)
    front, left = np.zeros(len(members)), np.ones(len(members), dtype=bool)
    while left.any():
        best = left & ~behind[left].any(axis=0)
        front[left] += 1
        left &= ~best
    return np.lexsort([_ranks(members).mean(axis=1), front])[:k].tolist()


def _accuracies(members: list[Member]) -> np.ndarray:
    """Return (members, benchmarks): the accuracy on each benchmark."""
    names = list(members[0].scores["tasks"])
    for name in names:
        if "accuracy" not in members[0].scores["tasks"][name]:
            raise ValueError(
                f"select.rule: the metric of {name!r} has no value for each question, so members "
                f"cannot be ranked on it; set tasks.{name}.metric to a metric from 0 to 1, remove "
                "the task, or choose a rule of one benchmark"
            )
    return np.array([[one.scores["tasks"][name]["accuracy"] for name in names] for one in members])


def _ranks(members: list[Member]) -> np.ndarray:
    """Return (members, benchmarks): 1 for the best on a benchmark; equal members share the mean."""
    return rankdata(-_accuracies(members), axis=0)


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
