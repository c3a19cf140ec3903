"""Selection: the k members of highest accuracy become parents, and how much of that choice is noise."""

from pathlib import Path

import numpy as np

from pollination import artifacts
from pollination.statistics import selection_confidence


def rank_members(accuracies: list[float]) -> list[int]:
    """Members by falling accuracy; equal accuracies by slot, so that a choice never depends on the order of jobs."""
    return sorted(range(len(accuracies)), key=lambda member: (-accuracies[member], member))


def select(scores: list[Path], answers: list[Path], task: str, k: int, seed: int) -> dict:
    """`selection.json` of one generation (study A, appendix C): ranking, parents, ties, and the noise of the choice.

    `scores` and `answers` are the members' files in slot order. The noise is that of the questions: with other questions
    of the same kind, would the same members have been chosen (statistics.selection_confidence)?
    Raises ValueError where a score is not a number.
    """
    results = [artifacts.read_json(path).get("tasks", {}).get(task, {}) for path in scores]
    accuracies = [result.get("accuracy") for result in results]
    for path, accuracy in zip(scores, accuracies, strict=True):
        if not isinstance(accuracy, int | float) or not 0 <= accuracy <= 1:
            raise ValueError(f"{path}: the accuracy in {task!r} is {accuracy}; allowed: 0 to 1; a member without a score cannot be ranked")
    ranking = rank_members(accuracies)
    tables = [artifacts.read_table(path, ["task", "doc_id", "correct"]).to_pandas() for path in answers]
    correct = np.stack([t[t["task"] == task].sort_values("doc_id")["correct"].to_numpy(bool) for t in tables])
    worst = accuracies[ranking[k - 1]]
    return {
        "task": task,
        "k": k,
        "parents": ranking[:k],
        "ranking": ranking,
        "accuracies": accuracies,
        "standard_errors": [result["stderr"] for result in results],
        "questions": int(correct.shape[1]),
        "ties": {
            "at_the_cut": [member for member in ranking if accuracies[member] == worst] if k < len(ranking) else [],
            "broken_by": "slot number, the lower first",
        },
        "confidence": selection_confidence(correct, ranking[:k], k, seed),
    }


def parent_of(selection: Path, rank: int) -> int:
    """The slot that holds a rank."""
    return artifacts.read_json(selection)["parents"][rank]
