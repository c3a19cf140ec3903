"""Select k members as parents with a rule, and measure how much of the choice is noise.

The noise is measured for rules that choose by accuracy.
"""

import random
from collections.abc import Callable
from copy import deepcopy
from importlib import import_module
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from pollination.core import artifacts, userfile
from pollination.core.job import Job
from pollination.core.questions import Answers, read_answers, scored
from pollination.core.seeds import derive_seed
from pollination.core.statistics import selection_confidence
from pollination.evolution.rules import Member, rank_members
from pollination.plan.operators import SELECTION, takes_best

# Share of the answers that a precision changes: measured for bf16 (docs/performance.md), and an
# eighth of it for TF32, an estimate.
CHANGED_ANSWERS = {"fp32": 0.0, "tf32": 0.0025, "bf16": 0.02}
# Keys of a task's scores that do not depend on which questions are asked.
SETTINGS = ("questions_available", "shots", "method", "metric", "higher_is_better")


def select_parents(job: Job) -> dict:
    """Return the `selection.json` of the job's generation."""
    settings, seed = job.params.select, job.params.seed
    selection = select(
        job.files("scores"),
        job.files("answers"),
        settings["task"],
        settings["k"],
        derive_seed(seed, "selection"),
        settings["rule"],
        derive_seed(settings.get("seed", seed), "selection", int(job.wildcards.gen)),
        settings.get("splits"),
        seed,
        int(job.wildcards.gen),
    )
    if precision := selection.get("precision"):
        job.log.info(
            "scored in %s, which changes an accuracy by up to %.4f (standard deviation)",
            ", ".join(sorted(set(precision["scored_in"]))),
            max(precision["accuracy_sd"]),
        )
    return selection


def select(
    scores: list[Path],
    answers: list[Path],
    task: str,
    k: int,
    seed: int,
    rule: str = "truncation",
    rule_seed: int = 0,
    splits: dict[str, str] | None = None,
    evaluation_seed: int = 0,
    generation: int = 0,
) -> dict:
    """Return the `selection.json` of one generation: ranking, parents, ties and noise.

    `scores` and `answers` are the members' files in slot order. `rule` chooses the parents with
    random numbers of `rule_seed`. The ranking lists the other members by accuracy (study A,
    appendix C). The noise comes from the questions: it tells whether other questions of the same
    kind would choose the same members (statistics.selection_confidence). Noise and ties are None
    for a rule that does not choose by accuracy. If members were scored in bf16 or TF32, the noise
    includes that of the precision, and the result has it by itself.

    `splits`: task -> its split, for the tasks whose questions are divided with `evaluation_seed`.
    If `task` is one of them, all of the above comes from its selecting half. The result then also
    has the accuracies on the reporting half and on all questions, and the winner's curse.
    ValueError: a score is not a number, or the rule fails.
    """
    splits = splits or {}
    read = [read_answers(path, splits, evaluation_seed) for path in answers]
    members = read_members(scores, read, task, splits, generation)
    accuracies = [member.accuracy for member in members]
    parents = choose(rule, members, k, np.random.default_rng(rule_seed))
    ranking = parents + [slot for slot in rank_members(accuracies) if slot not in parents]
    by_accuracy = takes_best(rule)
    correct = np.stack([member.correct for member in members])
    precision = precision_noise(members)
    sds = np.array(precision["accuracy_sd"]) if precision else None
    more: dict[str, Any] = {"precision": precision} if precision else {}
    if task in splits:
        more |= reported([one[task] for one in read], parents, splits[task])
    return {
        "task": task,
        "k": k,
        "parents": parents,
        "ranking": ranking,
        "accuracies": accuracies,
        "standard_errors": [member.scores["tasks"][task]["stderr"] for member in members],
        "questions": int(correct.shape[1]),
        "ties": ties(accuracies, ranking, k) if by_accuracy else None,
        "confidence": selection_confidence(correct, parents, k, seed, precision_sd=sds)
        if by_accuracy
        else None,
    } | more


def precision_noise(members: list[Member]) -> dict | None:
    """Return {scored_in, accuracy_sd} of members that are not all scored in fp32, or None.

    A precision changes a share of the answers, in either direction. The standard deviation of the
    accuracy that follows is the root of this share over the number of questions.
    ValueError: a precision is unknown.
    """
    scored_in = [member.scores.get("precision", "fp32") for member in members]
    if unknown := set(scored_in) - set(CHANGED_ANSWERS):
        raise ValueError(
            f"scores.json: precision {unknown.pop()!r} is unknown; allowed: "
            f"{', '.join(CHANGED_ANSWERS)}. Delete the file and run snakemake again"
        )
    if not any(CHANGED_ANSWERS[precision] for precision in scored_in):
        return None
    sds = [
        (CHANGED_ANSWERS[precision] / len(member.correct)) ** 0.5
        for precision, member in zip(scored_in, members, strict=True)
    ]
    return {"scored_in": scored_in, "accuracy_sd": sds}


def reported(answers: list[Answers], parents: list[int], split: str) -> dict:
    """Return what a selection on one half of the questions looks like on the other half."""
    halves = {
        "reported": [scored(one.score[one.reporting]) for one in answers],
        "all": [scored(one.score) for one in answers],
    }
    return {"split": split, "winners_curse": winners_curse(answers, parents)} | {
        name: {
            "accuracies": [score["accuracy"] for score in scores],
            "standard_errors": [score["stderr"] for score in scores],
            "questions": scores[0]["questions"],
        }
        for name, scores in halves.items()
    }


def winners_curse(answers: list[Answers], parents: list[int]) -> dict:
    """Return {gap, stderr}: by how much the parents' accuracy on the selecting half is too high.

    `gap` is the parents' mean accuracy on the selecting half minus that on the reporting half. The
    same difference for all members is subtracted, so the halves' difficulty cancels. The standard
    error is over questions, given the parents; None for a half of one question.
    """
    weights = np.full(len(answers), -1 / len(answers))
    weights[parents] += 1 / len(parents)
    values = weights @ np.stack([one.score for one in answers])  # (questions,)
    halves = [values[answers[0].selecting], values[answers[0].reporting]]
    known = all(len(half) > 1 for half in halves)
    return {
        "gap": float(halves[0].mean() - halves[1].mean()),
        "stderr": float(np.sqrt(sum(half.var(ddof=1) / len(half) for half in halves)))
        if known
        else None,
    }


def read_members(
    scores: list[Path],
    answers: list[dict[str, Answers]],
    task: str,
    splits: dict[str, str],
    generation: int = 0,
) -> list[Member]:
    """Return the members as a rule sees them: of divided tasks, the selecting half alone.

    A task of `splits` whose metric has no value per question cannot be divided and is left out.
    """
    members = []
    for slot, (path, read) in enumerate(zip(scores, answers, strict=True)):
        result = artifacts.read_json(path)
        of_task = result.get("tasks", {}).get(task, {})
        if unfit := of_task.get("unfit"):
            raise ValueError(
                f"select.task: selection cannot choose by the metric {of_task['metric']!r} of "
                f"{task!r}: {unfit}. Set tasks.{task}.metric to a metric with a value from 0 to 1 "
                "for each question, or select on another task"
            )
        accuracy = of_task.get("accuracy")
        if not isinstance(accuracy, int | float) or not 0 <= accuracy <= 1:
            raise ValueError(
                f"{path}: the accuracy on benchmark {task!r} is {accuracy}; allowed: a number from "
                "0 to 1. Without it, the selection cannot rank this member. Delete the file and "
                "run snakemake again"
            )
        for name in splits:
            if name not in read:  # no value for each question, so it has no halves
                del result["tasks"][name]
                continue
            entry, half = result["tasks"][name], read[name]
            kept = {key: entry[key] for key in SETTINGS if key in entry}
            result["tasks"][name] = kept | scored(half.score[half.selecting])
        accuracy, own = result["tasks"][task]["accuracy"], read[task]
        members.append(Member(slot, generation, accuracy, result, own.score[own.selecting]))
    return members


def ties(accuracies: list[float], ranking: list[int], k: int) -> dict:
    """Return the members that tie with the last parent."""
    worst = accuracies[ranking[k - 1]]
    tied = [member for member in ranking if accuracies[member] == worst] if k < len(ranking) else []
    return {"at_the_cut": tied, "broken_by": "slot number, the lower first"}


def choose(rule: str, members: list[Member], k: int, rng: np.random.Generator) -> list[int]:
    """Return the slots that a rule chooses, best first.

    ValueError: the rule fails or does not return k different slots.
    """
    allowed = f"a list of {k} different slots of 0 to {len(members) - 1}, best first"
    if rule in SELECTION:
        module, name = SELECTION[rule].function.split(".")
        function = getattr(import_module(f"pollination.evolution.{module}"), name)
        own = userfile.UserFunction("select.rule", rule, function)
        call: Callable = function  # its errors name no file of the user
    else:
        call = own = userfile.load("select.rule", rule)
        seed = int(rng.integers(2**32))
        random.seed(seed)
        np.random.seed(seed)
    returned = call(deepcopy(members), k, rng)  # a copy, so a rule cannot change the record
    slots = _slots(returned)
    if len(slots) != k or len(set(slots)) != k or not set(slots) <= set(range(len(members))):
        raise own.refuse(returned, allowed)
    return slots


def _slots(returned: Any) -> list[int]:
    """Return the integers that a rule returned, or an empty list for anything else."""
    if not isinstance(returned, list | tuple | np.ndarray):
        return []
    try:
        slots = [index(slot) for slot in returned if not isinstance(slot, bool | np.bool_)]
    except Exception:  # the user's class may raise any
        return []
    return slots if len(slots) == len(returned) else []
