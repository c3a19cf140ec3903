"""Settings as workflow/schemas/config.schema.yaml declares them: defaults, and lean params.

A key that is added to the schema may declare `absent`: the value under which all results are what
they were before the key existed. At that value, rules leave the key out of a job's params (`lean`)
and the job reads it all the same (`whole`). So a release that adds a key reruns no finished job.
A key without `absent`, or with another value, is a param, and a change of it reruns what reads it.
"""

import copy
import json
from functools import cache
from typing import Any

import yaml

from pollination import ROOT

SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
SECTIONS = {  # param of a rule -> its definition in the schema, where their names differ
    "training": "experiment",
    "entry": "perplexity",
    "settings": "count",
}


@cache
def schema() -> dict:
    """The JSON schema of a config, as the file has it."""
    return yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))


def definition(name: str) -> dict:
    """One of the schema's definitions."""
    return schema()["$defs"][name]


def resolved(node: dict) -> dict:
    """A node of the schema, or the definition that it refers to."""
    return definition(node["$ref"].rsplit("/", 1)[1]) if "$ref" in node else node


def node_at(path: list[str]) -> dict:
    """The node of the schema behind a path of keys of a config."""
    node = schema()
    for key in path:
        node = resolved(node)
        children = node.get("properties", {})
        node = children[key] if key in children else node["additionalProperties"]
    return resolved(node)


def with_defaults(value: Any, node: dict) -> Any:
    """`value` with the schema's defaults filled in, recursively; the input is left alone.

    Keys come in the schema's order (free ones sorted), because Snakemake compares settings as text:
    another order in the file is no other setting.
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
            # The first experiment and its like count; other orders do not.
            order = value if "$ref" in named else sorted(value)
            return filled | {
                key: with_defaults(value[key], named) for key in order if key not in children
            }
        return filled | {key: value[key] for key in sorted(value) if key not in children}
    if isinstance(value, list) and "items" in node:
        return [with_defaults(item, node["items"]) for item in value]
    return value


def lean(value: Any, node: dict) -> Any:
    """`value` without the keys that stand at the value that the schema calls `absent`."""
    return _walk(value, node, _without_absent)


def whole(value: Any, node: dict) -> Any:
    """`value` with the keys that `lean` left out."""
    return _walk(value, node, _with_absent)


def whole_params(params: dict[str, Any]) -> dict[str, Any]:
    """The params of a rule as its job reads them."""
    nodes = {"config": schema()} | schema()["$defs"]
    return {
        name: whole(value, nodes.get(SECTIONS.get(name, name), {}))
        for name, value in params.items()
    }


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
