"""A config as YAML gives it: read from a file, and held against what no config can hold whatever its keys."""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from pollination.printable import line

LARGEST = 2**63 - 1  # what 64-bit integers of the libraries below hold
MOST_VALUES = 1_000_000  # values, those behind an anchor counted wherever it is used
DEEPEST = 100
UNUSABLE = re.compile("[\0\ud800-\udfff]")  # no file name or UTF-8 file can hold these


def read_yaml(path: str | Path) -> dict:
    """A config file as it stands. ValueError where it is no YAML, holds a key twice in one mapping, or no keys at all."""
    try:
        loader = yaml.SafeLoader(Path(path).read_text(encoding="utf-8"))
        try:
            node = loader.get_single_node()
            _check_keys(node)
            found = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    # ValueError: a number or a date that cannot be; RecursionError: nested too deep, which ends LibYAML's loader with a crash
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(line(f"{path}: not readable as YAML: {' '.join(str(error).split())}")) from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: no keys at the top level; it needs `key: value` lines, `run: NAME` the first of them")
    return found


def _check_keys(root: yaml.Node | None) -> None:
    """Of a key that stands twice YAML would keep the last without a word."""
    waiting, known = [root], set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in known:
            continue
        known.add(id(node))
        if isinstance(node, yaml.MappingNode):
            names = set()
            for key, value in node.value:
                name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
                if name in names:
                    raise ValueError(f"line {key.start_mark.line + 1}: the key {key.value!r} stands twice in one mapping; drop one")
                names.add(name)
                waiting.append(value)
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def is_file(path: str) -> bool:
    """Whether a path of a config is a file; one that is too long, or of a user that is not there, is none."""
    try:
        return Path(path).expanduser().is_file()
    except (OSError, RuntimeError):
        return False


def unusable(raw: Any) -> list[str]:
    """Mistakes that no key of a config may have, a line each: keys that are no text, values that JSON does not know, NaN and infinity,
    integers beyond 64 bits, text that no file can hold, and anchors that make the config endless or enormous."""
    mistakes: list[str] = []
    counted = 0
    waiting = [("", raw, 0)]
    while waiting:
        place, value, depth = waiting.pop()
        counted += 1
        if counted > MOST_VALUES or depth > DEEPEST:
            return [
                f"{place[:100] or 'top level'}: the config is endless: more than {MOST_VALUES:,} values or {DEEPEST} levels; mend its anchors (& and *)"
            ]
        if isinstance(value, dict):
            for key, item in value.items():
                where = f"{place}.{key}" if place else str(key)
                if not isinstance(key, str) and not place.startswith("twin.map."):  # there a key is an old value
                    mistakes.append(f"{where}: the key {key!r} is no text; write it in quotes: '{key}'")
                elif isinstance(key, str) and UNUSABLE.search(key):
                    mistakes.append(f"{where}: the key {key!r} holds a NUL or half of a surrogate pair; take it out")
                waiting.append((where, item, depth + 1))
        elif isinstance(value, list):
            waiting += [(f"{place}.{number}", item, depth + 1) for number, item in enumerate(value)]
        elif said := _said(value):
            mistakes.append(f"{place or 'top level'}: {said}")
    return mistakes


def _said(value: Any) -> str:
    if isinstance(value, str):
        return f"'{line(value, 100)}' holds a NUL or half of a surrogate pair; take it out" if UNUSABLE.search(value) else ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{value} is no finite number; write one"
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, int):
        return "" if abs(value) <= LARGEST else f"an integer of more than 64 bits; allowed: up to {LARGEST}"
    return f"{value!r} is a {type(value).__name__}; allowed: text (in quotes), numbers, true, false, null, lists and mappings"
