"""State how many documents, prompts and questions are few, and warn of a run that has fewer."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pollination.core import artifacts
from pollination.plan.corpora import CORPUS_KINDS
from pollination.plan.jobs import held_out_splits
from pollination.plan.plan import Plan


@dataclass(frozen=True)
class Size:
    """The least number of a kind of items (fewer are an error), and the least without a warning."""

    floor: int
    few: int
    items: str
    effect: str


# The mean over n documents has a standard error of 1/sqrt(n) of their standard deviation: 22 % for
# 20. The accuracy over n questions has one of up to 0.5/sqrt(n): 7 points for 50.
SIZES = {
    "prompts": Size(2, 20, "prompt documents", "many completions will continue the same prompt"),
    "validation": Size(1, 20, "validation documents", "the choice of the best epoch is uncertain"),
    "test": Size(1, 20, "test documents", "held-out measures are uncertain"),
    "questions": Size(
        2, 50, "questions", "the standard error of an accuracy is 7 percentage points or more"
    ),
}


def floors(kinds: Iterable[str]) -> dict[str, int]:
    return {kind: SIZES[kind].floor for kind in kinds}


def warning(key: str, kind: str, count: int, spec: dict) -> str | None:
    """Return the warning of a corpus or task that has few items of a kind, else None.

    `spec` is its entry in the config, and `key` the config's key of it.
    """
    size = SIZES[kind]
    if count >= size.few:
        return None
    if kind == "questions":
        remedy = f"raise {key}.questions" if spec.get("questions") else "add questions"
    elif spec.get("splits"):
        remedy = f"add documents to {key}.splits.{'test' if kind == 'test' else 'validation'}"
    else:
        more = f"raise {key}.documents" if CORPUS_KINDS[spec["kind"]].world else "add text"
        remedy = f"{more} or raise {key}.held_out.{kind}"
    items = size.items if count != 1 else size.items.removesuffix("s")
    return f"{key}: {count} {items}, fewer than {size.few}, so {size.effect}; {remedy} if you can"


def warnings(plan: Plan, counts: dict[tuple[str, str, str], int]) -> Iterator[str]:
    """Yield the warnings of counts by (section, name, kind)."""
    for (section, name, kind), count in counts.items():
        said = warning(f"{section}.{name}", kind, count, plan.config[section][name])
        if said:
            yield said


def found(plan: Plan) -> dict[tuple[str, str, str], int]:
    """Count the documents that the run reads and the questions, from the artifacts that exist."""
    counts: dict[tuple[str, str, str], int] = {}
    for name in plan.config["corpora"]:
        documents = _read(f"{plan.results}/corpora/{name}/corpus.json", "documents") or {}
        counts |= {("corpora", name, split): count for split, count in documents.items()}
    if counts:
        read = {("corpora", name, split) for name, split in held_out_splits(plan)}
        counts = {key: count for key, count in counts.items() if key in read}
    for name in plan.config["tasks"]:
        count = _read(f"{plan.results}/tasks/{name}/task.json", "questions")
        counts |= {("tasks", name, "questions"): count} if count is not None else {}
    return counts


def _read(path: str, key: str) -> Any:
    """Return a value of a JSON artifact; None if it is absent or damaged (its readers say so)."""
    try:
        return artifacts.read_json(path).get(key)
    except (ValueError, OSError, AttributeError):
        return None
