"""A config as YAML gives it, and the values that no config can hold."""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from pollination import ROOT
from pollination.core.sanitize import line

LARGEST = 2**63 - 1  # what 64-bit integers of the libraries below hold
MAX_VALUES = 1_000_000  # values, those behind an anchor counted wherever it is used
DEEPEST = 100
UNUSABLE = re.compile("[\0\ud800-\udfff]")  # no file name or UTF-8 file can hold these


def read_yaml(path: str | Path) -> dict:
    """A config file as it stands.

    ValueError where it is no YAML, holds a key twice in one mapping, or no keys at all.
    """
    try:
        loader = yaml.SafeLoader(Path(path).read_text(encoding="utf-8"))
        try:
            node = loader.get_single_node()
            _check_keys(node)
            content = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    # ValueError: an impossible number or date. RecursionError: nesting too deep for LibYAML.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(
            line(f"{path}: not readable as YAML: {' '.join(str(error).split())}")
        ) from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: no keys at the top level; it needs `key: value` lines, `run: NAME` the first "
            "of them"
        )
    return content


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
                    raise ValueError(
                        f"line {key.start_mark.line + 1}: the key {key.value!r} stands twice in "
                        "one mapping; drop one"
                    )
                names.add(name)
                waiting.append(value)
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def is_file(path: str) -> bool:
    """Whether a path of a config is a file; too long a name, or an unknown user's, is none."""
    try:
        return Path(path).expanduser().is_file()
    except (OSError, RuntimeError):
        return False


def preset(path: str) -> str:
    """`path`, or the checkout's file of that name where the current folder has none.

    So presets are called config/... from any folder.
    """
    beside = str(ROOT / path)
    return beside if is_file(beside) and not is_file(path) else path


def unusable(raw: Any) -> list[str]:
    """Mistakes that no key of a config may have, a line each.

    These are keys that are no text, values that JSON does not know, NaN and infinity, integers
    beyond 64 bits, text that no file can hold, and anchors that make the config endless or huge.
    """
    mistakes: list[str] = []
    counted = 0
    waiting = [("", raw, 0)]
    while waiting:
        place, value, depth = waiting.pop()
        counted += 1
        if counted > MAX_VALUES or depth > DEEPEST:
            limits = f"more than {MAX_VALUES:,} values or {DEEPEST} levels"
            where = place[:100] or "top level"
            return [f"{where}: the config is endless: {limits}; mend its anchors (& and *)"]
        if isinstance(value, dict):
            for key, item in value.items():
                where = f"{place}.{key}" if place else str(key)
                is_old_value = place.startswith("overlay.map.")
                if not isinstance(key, str) and not is_old_value:
                    mistakes.append(
                        f"{where}: the key {key!r} is no text; write it in quotes: '{key}'"
                    )
                elif isinstance(key, str) and UNUSABLE.search(key):
                    mistakes.append(
                        f"{where}: the key {key!r} holds a NUL or half of a surrogate pair; take "
                        "it out"
                    )
                waiting.append((where, item, depth + 1))
        elif isinstance(value, list):
            waiting += [(f"{place}.{number}", item, depth + 1) for number, item in enumerate(value)]
        elif said := _said(value):
            mistakes.append(f"{place or 'top level'}: {said}")
    return mistakes


def _said(value: Any) -> str:
    if isinstance(value, str):
        return (
            f"'{line(value, 100)}' holds a NUL or half of a surrogate pair; take it out"
            if UNUSABLE.search(value)
            else ""
        )
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{value} is no finite number; write one"
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, int):
        return (
            ""
            if abs(value) <= LARGEST
            else f"an integer of more than 64 bits; allowed: up to {LARGEST}"
        )
    return (
        f"{value!r} is a {type(value).__name__}; allowed: text (in quotes), numbers, true, false, "
        "null, lists and mappings"
    )
