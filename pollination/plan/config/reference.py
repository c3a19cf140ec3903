"""The tables of keys in config/README.md, written from the schema: `make docs`."""

import re
import sys
from pathlib import Path

from pollination import ROOT
from pollination.plan.config.schema import schema

PAGE = ROOT / "config" / "README.md"
HEADINGS = {  # heading of a section -> definition of the schema
    "Top level": "",
    "corpora.{name}": "corpus",
    "corpora.{name}.held_out": "held_out",
    "models.{name}": "model",
    "models.{name}.tokenizer": "tokenizer",
    "founders.{name}": "pool",
    "tasks.{name}": "task",
    "evaluate.perplexity[]": "perplexity",
    "evaluate.disagreement": "disagreement",
    "evaluate.samples": "samples",
    "evaluate.semantics": "semantics",
    "defaults, experiments.{name}": "experiment",
    "train (founders and experiments)": "train",
    "theory.grid": "grid",
    "theory.bound": "bound",
    "fingerprint.{name}": "survey",
    "fingerprint.{name}.count": "count",
    "fingerprint.{name}.compare": "compare",
    "fingerprint.{name}.collect": "collect",
}
TYPES: dict[str, str] = {"object": "mapping", "array": "list", "null": "null"}


def page(text: str) -> str:
    """The page with its tables as the schema has them; all other text is left alone."""
    parts = re.split(r"(?m)^(## .*\n)", text)
    for place in range(1, len(parts), 2):
        heading = parts[place][3:].strip()
        name = HEADINGS.get(heading, heading)
        node = schema() if name == "" else schema()["$defs"].get(name)
        if heading == "figures":
            node = schema()["properties"]["figures"]
        if node and "properties" in node:
            parts[place + 1] = _with_rows(parts[place + 1], rows(node))
    return "".join(parts)


def _with_rows(section: str, rows: str) -> str:
    head = r"(?m)(^\| Key .*\n\|---.*\n)(?:^\| .*\n)*"
    return re.sub(head, lambda match: match[1] + rows, section)


def rows(node: dict) -> str:
    return "".join(
        f"| `{key}` | {_default(child)} | {_type(child)} | {child.get('description', '')} |\n"
        for key, child in node["properties"].items()
    )


def _default(child: dict) -> str:
    value = child.get("default", {})
    if isinstance(value, dict):
        return "–"
    return f"`{_written(value)}`"


def _written(value: object) -> str:
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _type(child: dict) -> str:
    if "enum" in child:
        return ", ".join(map(str, child["enum"]))
    if "anyOf" in child:
        return " or ".join(_type(part) for part in child["anyOf"])
    if "$ref" in child:
        return "mapping"
    kinds: list[str] = child["type"] if isinstance(child["type"], list) else [child["type"]]
    unit = f" ({child['unit']})" if "unit" in child else ""
    return " or ".join(TYPES.get(kind, kind) for kind in kinds) + unit


if __name__ == "__main__":
    Path(sys.argv[1] if sys.argv[1:] else PAGE).write_text(page(PAGE.read_text()))
