"""The part of the plan that reads what members said: their samples, embedded and compared, and the
words that human text has.
"""

from typing import Any

from pollination.plan.config.values import listed
from pollination.plan.layout import place_of, pool_of
from pollination.plan.plan import Plan

ENCODER_FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
TFIDF = "tfidf"


def semantics_settings(plan: Plan) -> dict | None:
    return plan.config.get("evaluate", {}).get("semantics")


def semantics_setting(plan: Plan, key: str) -> Any:
    """One key of `evaluate.semantics`; its rules make nothing where the section is null."""
    return (semantics_settings(plan) or {}).get(key)


def encoder_files(plan: Plan) -> list[str]:
    """The staged encoder's files, weights first; none where none is needed."""
    needed = semantics_setting(plan, "encoder") not in (None, TFIDF)
    return [f"{plan.results}/semantics/encoder/{file}" for file in ENCODER_FILES] if needed else []


def embeddings_file(plan: Plan) -> str:
    return (
        f"{plan.results}/semantics/{'encoder' if encoder_files(plan) else TFIDF}.embeddings.parquet"
    )


def diversity_file(plan: Plan) -> str:
    return f"{plan.results}/semantics/diversity.parquet"


def vocabularies(plan: Plan, experiments: list[str]) -> list[str]:
    """The words of the human text that the founders of these experiments read."""
    corpora = {
        corpus
        for name in experiments
        for corpus in listed(pool_of(plan, place_of(plan, name, 0))["corpus"])
    }
    return [f"{plan.results}/corpora/{corpus}/vocabulary.parquet" for corpus in sorted(corpora)]
