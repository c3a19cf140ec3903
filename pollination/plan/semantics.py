"""List the files of semantic measures: embedded samples, and vocabularies of human text."""

from typing import Any

from pollination.plan.config.values import listed
from pollination.plan.layout import place_of, pool_of
from pollination.plan.plan import Plan

ENCODER_FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
TFIDF = "tfidf"


def semantics_settings(plan: Plan) -> dict | None:
    return plan.config.get("evaluate", {}).get("semantics")


def semantics_setting(plan: Plan, key: str) -> Any:
    """Return one key of `evaluate.semantics`; None if the section is null."""
    return (semantics_settings(plan) or {}).get(key)


def encoder_files(plan: Plan) -> list[str]:
    """Return the staged encoder's files, weights first; none if no encoder is needed."""
    needed = semantics_setting(plan, "encoder") not in (None, TFIDF)
    return [f"{plan.results}/semantics/encoder/{file}" for file in ENCODER_FILES] if needed else []


def embeddings_file(plan: Plan) -> str:
    return (
        f"{plan.results}/semantics/{'encoder' if encoder_files(plan) else TFIDF}.embeddings.parquet"
    )


def diversity_file(plan: Plan) -> str:
    return f"{plan.results}/semantics/diversity.parquet"


def vocabularies(plan: Plan, experiments: list[str]) -> list[str]:
    """Return the vocabularies of the human text that the founders of these experiments read."""
    corpora = {
        corpus
        for name in experiments
        for corpus in listed(pool_of(plan, place_of(plan, name, 0))["corpus"])
    }
    return [f"{plan.results}/corpora/{corpus}/vocabulary.parquet" for corpus in sorted(corpora)]
