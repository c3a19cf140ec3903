"""Provide the JSON schema of a config, and explain each violation in one line."""

import copy
import json
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from pollination.core import settings
from pollination.plan.config.values import nearest
from pollination.plan.corpora import CORPUS_KINDS
from pollination.plan.decoding import DECODINGS
from pollination.plan.graph import GRAPHS
from pollination.plan.operators import MUTATION, SELECTION, TEXTS, WEIGHTS

# JSON schema accepts 4.0 as an integer, but Python's range() does not.
INTEGERS = Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
)
EXPLICIT = {"minLength", "pattern", "table", "enum"}  # keys that say which text is allowed
TABLES: dict[str, dict[str, Any]] = {
    "CORPUS_KINDS": CORPUS_KINDS,
    "DECODINGS": DECODINGS,
    "WEIGHTS": WEIGHTS,
    "TEXTS": TEXTS,
    "GRAPHS": GRAPHS,
    "SELECTION": SELECTION,
    "MUTATION": MUTATION,
}
"""Tables of the plan that list the values of a key. The schema refers to them as `table: NAME`.

A key with a `type` beside `table` takes other values too.
"""


@cache
def schema() -> dict:
    """Return the schema with the values of the plan's tables; `{values}` is replaced by them."""
    whole = copy.deepcopy(settings.schema())
    waiting = [whole]
    while waiting:
        node = waiting.pop()
        if "string" in node.get("type", ()) and not EXPLICIT & node.keys():
            node["minLength"] = 1  # an empty name would count as absent
        if table := node.get("table"):
            if "type" not in node:
                node["enum"] = list(TABLES[table])
            says = ". ".join(f"{name}: {entry.says}" for name, entry in TABLES[table].items())
            node["description"] = node["description"].replace("{values}", says)
        waiting += [child for child in node.values() if isinstance(child, dict)]
    return whole


def merge(base: dict, change: dict) -> dict:
    """Return `base` overridden by `change`; mappings are merged, other values replaced."""
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = merge(base[key], value) if both else value
    return merged


RENAMED = {  # keys of earlier versions -> their names today, by section
    "shots": ("num_fewshot",),
    "clip_norm": ("max_grad_norm",),
    "batch_sequences": ("batch_size",),
    "micro_batch_sequences": ("micro_batch_size",),
    "final_learning_rate": ("min_lr_ratio",),
    "keep": ("checkpoint",),
    "beams": ("num_beams",),
    "min_tokens": ("min_completion_tokens",),
    "prompts": ("prompt_corpus", "num_prompts"),
    "prompts_used": ("max_prompts",),
    "of": ("num_segments",),
    "slices": ("segments",),
    "vocabulary": ("vocab_size",),
    "twin": ("overlay",),
}


def _explain(error: ValidationError) -> list[str]:
    """Return a violation of the schema as one line, or one line for each unknown key."""
    key = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        allowed = sorted(error.schema.get("properties", {}))
        prefix = f"{key}." if key else ""
        unknown = [name for name in error.instance if name not in allowed]
        return [f"{prefix}{name}: {_unknown(name, allowed)}" for name in unknown]
    return [_said(error, key or "top level")]


def _unknown(name: str, allowed: list[str]) -> str:
    for today in RENAMED.get(name, ()):
        if today in allowed:
            return f"this key is now called {today!r}; rename it"
    return f"unknown key{nearest(name, allowed)}; allowed: {', '.join(allowed)}"


def _said(error: ValidationError, key: str) -> str:
    value = error.instance
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in value]
        return f"{key}: the key {missing[0]!r} is missing; add it (config/README.md describes it)"
    if error.validator in ("enum", "const"):
        allowed = error.validator_value if error.validator == "enum" else [error.validator_value]
        return (
            f"{key}: {value!r} is not allowed{nearest(value, allowed)}; allowed: "
            f"{', '.join(name if isinstance(name, str) else json.dumps(name) for name in allowed)}"
        )
    if error.validator == "type":
        allowed = (
            error.validator_value
            if isinstance(error.validator_value, list)
            else [error.validator_value]
        )
        hint = (
            "; write 1.0e-3 with a dot and a sign, because YAML reads 1e-3 as text"
            if isinstance(value, str) and "number" in allowed
            else ""
        )
        return f"{key}: {value!r} has the wrong type; allowed: {' or '.join(allowed)}{hint}"
    if error.validator == "pattern":
        allowed = error.schema.get(
            "title", "letters, digits, '_' and '-', beginning with a letter or digit"
        )
        return f"{key}: {value!r} is not a valid name; allowed: {allowed}"
    limits = {"minimum": ">=", "maximum": "<=", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
    if error.validator in limits:
        return (
            f"{key}: {value!r} is out of range; allowed: {limits[error.validator]} "
            f"{error.validator_value}"
        )
    sizes = {
        "minLength": "at least {} characters",
        "maxLength": "at most {} characters",
        "minItems": "at least {} entries",
    }
    sizes |= {"maxItems": "at most {} entries", "minProperties": "at least {} entries"}
    if error.validator in sizes:
        return (
            f"{key}: {value!r} has the wrong size; allowed: "
            f"{sizes[error.validator].format(error.validator_value)}"
        )
    return f"{key}: {error.message}"
