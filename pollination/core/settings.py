"""Fill in the defaults of workflow/schemas/config.schema.yaml, and keep params lean.

A key added to the schema may declare `absent`: the value that leaves all results as they were
before the key existed. At that value, rules omit the key from a job's params (`lean`), and the job
adds it back (`whole`). So a release that adds a key reruns no finished job. In all other cases the
key is a param, and changing it reruns the jobs that read it.
"""

import copy
import json
from functools import cache
from typing import Any

import yaml

from pollination import ROOT

SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
SECTIONS = {  # param of a rule -> its definition in the schema, if the names differ
    "training": "experiment",
    "entry": "perplexity",
    "settings": "count",
}

# Keys of params that no job reads; earlier versions recorded their values. `device` (rules/
# common.smk), and what only another rule reads of a corpus (plan/inputs.py).
UNREAD = ("device", "config.device", "corpus.max_overlap")


@cache
def schema() -> dict:
    """Return the JSON schema of a config, as in the file."""
    # Each job reads it, and the loader in C takes a tenth of the time.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(SCHEMA.read_text(encoding="utf-8"), Loader=loader)


def definition(name: str) -> dict:
    """Return one of the schema's definitions."""
    return schema()["$defs"][name]


def resolved(node: dict) -> dict:
    """Return a node of the schema, or the definition that it refers to."""
    return definition(node["$ref"].rsplit("/", 1)[1]) if "$ref" in node else node


def node_at(path: list[str]) -> dict:
    """Return the schema node of a path of config keys."""
    node = schema()
    for key in path:
        node = resolved(node)
        children = node.get("properties", {})
        node = children[key] if key in children else node["additionalProperties"]
    return resolved(node)


def with_defaults(value: Any, node: dict) -> Any:
    """Return a copy of `value` with the schema's defaults filled in, recursively.

    Keys follow the schema's order, and other keys are sorted. Snakemake compares settings as text,
    so a different order in the config file must not look like a change.
    """
    node = resolved(node)
    if isinstance(value, dict) and node.get("type") in ("object", ["object", "null"]):
        children = node.get("properties", {})
        filled = {
            key: with_defaults(value.get(key, copy.deepcopy(child.get("default"))), child)
            for key, child in children.items()
            if key in value or "default" in child
        }
        named = node.get("additionalProperties")
        if isinstance(named, dict):
            # The order of experiments and similar sections has a meaning; others have none.
            order = value if "$ref" in named else sorted(value)
            return filled | {
                key: with_defaults(value[key], named) for key in order if key not in children
            }
        return filled | {key: value[key] for key in sorted(value) if key not in children}
    if isinstance(value, list) and "items" in node:
        return [with_defaults(item, node["items"]) for item in value]
    return value


def lean(value: Any, node: dict) -> Any:
    """Return `value` without the keys that have the schema's `absent` value."""
    return _walk(value, node, _without_absent)


def whole(value: Any, node: dict) -> Any:
    """Return `value` with the keys that `lean` left out."""
    return _walk(value, node, _with_absent)


def whole_params(params: dict[str, Any]) -> dict[str, Any]:
    """Return a rule's params with the keys that `lean` left out."""
    nodes = {"config": schema()} | schema()["$defs"]
    return {
        name: whole(value, nodes.get(SECTIONS.get(name, name), {}))
        for name, value in params.items()
    }


def differing(first: Any, second: Any, path: str = "") -> dict[str, list]:
    """Return key path -> [first, second] where two configs differ; None for an absent key."""
    if isinstance(first, dict) and isinstance(second, dict):
        differences: dict[str, list] = {}
        for key in dict.fromkeys([*first, *second]):
            differences |= differing(
                first.get(key), second.get(key), f"{path}.{key}" if path else str(key)
            )
        return differences
    return {} if first == second else {path: [first, second]}


def _walk(value: Any, node: dict, change) -> Any:
    node = resolved(node)
    if isinstance(value, dict):
        children, named = node.get("properties", {}), node.get("additionalProperties")
        value = change(value, children)
        nodes = {key: children.get(key, named) for key in value}
        return {
            key: _walk(item, nodes[key], change) if isinstance(nodes[key], dict) else item
            for key, item in value.items()
        }
    if isinstance(value, list) and isinstance(node.get("items"), dict):
        return [_walk(item, node["items"], change) for item in value]
    return value


def _without_absent(value: dict, children: dict) -> dict:
    return {
        key: item
        for key, item in value.items()
        if key not in children
        or "absent" not in children[key]
        or json.dumps(item) != json.dumps(children[key]["absent"])  # 0 is not false
    }


def _with_absent(value: dict, children: dict) -> dict:
    missing = {
        key: copy.deepcopy(child["absent"])
        for key, child in children.items()
        if "absent" in child and key not in value
    }
    return value | missing
