"""Compare the human text that founders need with an estimate of the text of their corpora."""

import math
from collections.abc import Iterator

from pollination.analysis.cost.texts import Texts
from pollination.data.mixture import place
from pollination.plan.corpora import kind_of
from pollination.plan.inputs import segment
from pollination.plan.layout import corpus_of, model_of
from pollination.plan.plan import Plan

# By how much an estimate may be too low: the mean length of a microworld's documents is known, but
# tokens per byte of a file depend on its language, compression and tokenizer.
WORLD_MARGIN, MARGIN = 1.25, 10.0


def founders(plan: Plan) -> Iterator[tuple[str, int, str, str, int]]:
    """Yield (pool, member, model, corpus, context_tokens) of every founder."""
    for pool, size in plan.pool_sizes.items():
        for member in range(size):
            at = f"founders/{pool}"
            model = model_of(plan, at, member)
            context = plan.config["models"][model]["context_tokens"]
            yield pool, member, model, corpus_of(plan, at, member), context


def shortages(plan: Plan) -> tuple[list[str], list[str]]:
    """Return (mistakes, warnings): founders whose corpus is too short, one line for each pool.

    It is a mistake if the text is too short even where the estimate is too low by its margin.
    """
    texts, mistakes, warnings = Texts(plan), [], []
    told: set[tuple[str, str]] = set()
    for pool, member, _, corpus, context in reversed(list(founders(plan))):
        estimate = texts.corpus(corpus)["train"]
        if not math.isfinite(estimate) or (pool, corpus) in told:
            continue
        spec = segment(plan, pool)
        if reason := _short(estimate, context, spec, member):
            told.add((pool, corpus))
            margin = WORLD_MARGIN if kind_of(plan, corpus).world else MARGIN
            if _short(margin * estimate, context, spec, member):
                mistakes.append(f"{reason} (estimated; at most {margin:g} times as many)")
            else:
                warnings.append(f"{reason} (estimated; `pollination check --deep` counts them)")
    return mistakes, warnings


def _short(tokens: float, context: int, spec: dict, member: int) -> str:
    try:
        place(int(tokens // context), context, spec, member)
    except ValueError as reason:
        return str(reason)
    return ""
