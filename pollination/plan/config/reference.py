"""Write the lists of keys in config/README.md from the schema (part of `make docs`)."""

import re
import sys
import textwrap
from pathlib import Path

from pollination import ROOT
from pollination.plan.config.schema import schema

PAGE = ROOT / "config" / "README.md"
HEADINGS = {  # heading of a section -> definition of the schema
    "Top level": "",
    "corpora.{name}": "corpus",
    "corpora.{name}.shares": "shares",
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
KEYS = re.compile(r"(?m)^(?:- `\w+` \(.*\n(?:  .*\n)*)+")
MARKER = re.compile(r" (?=(?:[-+*>]|#+|\d+[.)]) )")  # a space before what would begin a list item


def page(text: str) -> str:
    """Return the page with its lists of keys replaced by those of the schema."""
    parts = re.split(r"(?m)^(## .*\n)", text)
    for place in range(1, len(parts), 2):
        node = _node(parts[place][3:].strip())
        if node and "properties" in node:
            listed = bullets(node)
            parts[place + 1] = KEYS.sub(lambda _, listed=listed: listed, parts[place + 1], count=1)
    return "".join(parts)


def _node(heading: str) -> dict | None:
    if heading == "figures":
        return schema()["properties"]["figures"]
    name = HEADINGS.get(heading, heading)
    return schema()["$defs"].get(name) if name else schema()


def bullets(node: dict) -> str:
    """Return one list item per key: its type, unit and default, and its description."""
    required = node.get("required", [])
    items = []
    for key, child in node["properties"].items():
        about = [_type(child), *_default(child), *(["required"] if key in required else [])]
        items.append(_wrap(f"- `{key}` ({'; '.join(about)}): {child.get('description', '')}"))
    return "".join(items)


def _wrap(item: str) -> str:
    lines = textwrap.wrap(
        MARKER.sub("\0", item),
        width=100,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace("\0", " ") + "\n"


def _default(child: dict) -> list[str]:
    value = child.get("default", {})
    return [] if isinstance(value, dict) else [f"default `{_written(value)}`"]


def _written(value: object) -> str:
    """Return a value as YAML reads it: 1.0e-08, because YAML reads 1e-08 as text."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    return re.sub(r"^(\d+)e", r"\1.0e", str(value)) if isinstance(value, float) else str(value)


def _type(child: dict) -> str:
    if "enum" in child:
        return _either([f"`{_written(value)}`" for value in child["enum"]])
    if "anyOf" in child:
        return _either([_type(part) for part in child["anyOf"]])
    if link := _section(child):
        return f"{'list' if 'items' in child else 'mapping'}, see {link}"
    if "$ref" in child:
        return "mapping"
    kinds: list[str] = child["type"] if isinstance(child["type"], list) else [child["type"]]
    unit = f", in {child['unit']}" if "unit" in child else ""
    return _either([TYPES.get(kind, kind) for kind in kinds]) + unit


def _either(choices: list[str]) -> str:
    return " or ".join([", ".join(choices[:-1]), choices[-1]] if choices[1:] else choices)


def _section(child: dict) -> str:
    """Return a link to the section of a mapping's keys, or of its entries' keys; "" if none."""
    entries = child.get("items", child.get("additionalProperties"))
    node = entries if isinstance(entries, dict) and "$ref" in entries else child
    name = node.get("$ref", "").removeprefix("#/$defs/")
    if "properties" not in schema()["$defs"].get(name, {}):
        return ""
    heading = {value: key for key, value in HEADINGS.items()}.get(name, name)
    anchor = re.sub(r"[^\w\- ]", "", heading).replace(" ", "-").lower()
    return f"[{heading}](#{anchor})"


if __name__ == "__main__":
    Path(sys.argv[1] if sys.argv[1:] else PAGE).write_text(page(PAGE.read_text()))
