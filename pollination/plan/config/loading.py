"""Load a config from YAML, and reject values that no config can have."""

import math
import os
import re
from pathlib import Path
from typing import Any

import yaml

from pollination import ROOT
from pollination.core.sanitize import line, reason

LARGEST = 2**63 - 1  # the libraries use 64-bit integers
MAX_VALUES = 1_000_000  # values behind an anchor count at each use
DEEPEST = 100
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
UNUSABLE = re.compile("[\0\ud800-\udfff]")  # not possible in a file name or a UTF-8 file


def read_yaml(path: str | Path) -> dict:
    """Return the content of a config file.

    Raises ValueError if it cannot be read, is not YAML, has a key twice in one mapping, or no keys.
    """
    try:
        loader = yaml.SafeLoader(Path(path).read_text(encoding="utf-8"))
        try:
            node = loader.get_single_node()
            _check_keys(node)
            content = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        said = "there is no such file" if missing else reason(error)
        raise ValueError(
            line(f"{path}: {said}; name a config file, e.g. config/config.yaml")
        ) from None
    # ValueError: an impossible number or date. RecursionError: nesting too deep for LibYAML.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else path
        raise ValueError(
            line(f"{place}: not readable as YAML: {' '.join(str(error).split())}")
        ) from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: no keys at the top level; write `key: value` lines, beginning with "
            "`run: NAME`"
        )
    return content


def _check_keys(root: yaml.Node | None) -> None:
    """Raise YAMLError if a key appears twice, where YAML would silently keep the last."""
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
                    number = key.start_mark.line + 1
                    twice = yaml.YAMLError(
                        f"line {number}: the key {key.value!r} appears twice in one mapping; "
                        "delete one"
                    )
                    twice.problem_mark = key.start_mark  # as the parser's own errors have
                    raise twice
                names.add(name)
                waiting.append(value)
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def is_file(path: str) -> bool:
    """Return whether a path of a config is a file; also False if the path is impossible."""
    try:
        return Path(path).expanduser().is_file()
    except (OSError, RuntimeError):
        return False


def is_absent_folder(source: str) -> bool:
    """Return whether `source` can only be a folder, not a name on the hub, and does not exist."""
    is_path = source.startswith((".", "-")) or not HUB_NAME.fullmatch(source)
    return is_path and not os.path.isdir(os.path.expanduser(source))


def preset(path: str) -> str:
    """Return `path`, or the checkout's file of that name if the current folder has none.

    So presets can be named config/... from any folder.
    """
    beside = str(ROOT / path)
    return beside if is_file(beside) and not is_file(path) else path


def unusable(raw: Any) -> list[str]:
    """Return one line for each value that no key of a config may have.

    Not allowed are keys that are not text, values that JSON does not have, NaN and infinity,
    integers beyond 64 bits, text that no file can contain, and anchors that make the config endless
    or huge.
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
            return [
                f"{where}: the config is endless or huge: {limits}; correct its anchors (& and *)"
            ]
        if isinstance(value, dict):
            for key, item in value.items():
                where = f"{place}.{key}" if place else str(key)
                is_old_value = place.startswith("overlay.map.")
                if not isinstance(key, str) and not is_old_value:
                    mistakes.append(
                        f"{where}: the key {key!r} is not text; write it in quotes: '{key}'"
                    )
                elif isinstance(key, str) and UNUSABLE.search(key):
                    mistakes.append(
                        f"{where}: the key {key!r} contains a NUL or half of a surrogate pair; "
                        "remove it"
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
            f"'{line(value, 100)}' contains a NUL or half of a surrogate pair; remove it"
            if UNUSABLE.search(value)
            else ""
        )
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{value} is not allowed; write a finite number"
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, int):
        return (
            ""
            if abs(value) <= LARGEST
            else f"the integer has more than 64 bits; allowed: -{LARGEST} to {LARGEST}"
        )
    return (
        f"{value!r} has the type {type(value).__name__}; allowed: text (in quotes), numbers, "
        "true, false, null, lists and mappings"
    )
