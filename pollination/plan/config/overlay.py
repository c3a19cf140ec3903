"""Change values of another config, e.g. its sizes: `overlay: {base, drop, set, map}`.

Paths are keys joined by dots. A part with `*`, `?` or `[...]` matches keys as a shell matches file
names.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from pollination.core.sanitize import line
from pollination.plan.config.loading import is_file, preset, read_yaml
from pollination.plan.config.places import Change, Places


def expand(raw: dict, places: Places | None = None) -> dict:
    """Return the base of `raw`'s overlay with its changes; `raw` itself without an overlay.

    `drop`: paths of keys to remove. `set`: path -> new value; the last part may be a new key.
    `map`: path -> {old value: new value}; other values stay. Later lines win. All other keys of
    `raw` replace those of the base. `places` learns what came from where. Raises ValueError, one
    line per mistake.
    """
    overlay = raw.get("overlay")
    if overlay is None:
        return raw
    base, mistakes = _read(overlay), []
    changes: list[Change] = []

    def matching(what: str, path: str, new: bool) -> list[tuple[dict, str, tuple[str, ...]]]:
        matches = list(_matches(base, str(path).split("."), new))
        if not matches:
            mistakes.append(
                f"overlay.{what}: {path!r} matches nothing in {overlay['base']}; correct the path"
            )
        return matches

    for path in overlay.get("drop", []):
        for node, key, at in matching("drop", path, new=False):
            del node[key]
            changes.append(Change(at, "overlay.drop"))
    for path, value in overlay.get("set", {}).items():
        for node, key, at in matching("set", path, new=True):
            node[key] = _unshared(value)
            changes.append(Change(at, f"overlay.set.{path}"))
    for path, change in overlay.get("map", {}).items():
        matches = matching("map", path, new=False)
        unused = set(map(_typed, change)) if matches else set()
        news = {_typed(value): new for value, new in change.items()}
        for node, key, at in matches:
            old = node[key]
            if not isinstance(old, (dict, list)) and _typed(old) in news:
                unused.discard(_typed(old))
                node[key] = news[_typed(old)]
                changes.append(Change(at, f"overlay.map.{path}.{old}"))
        mistakes.extend(
            f"overlay.map.{path}: no value is {value!r} in {overlay['base']}; correct or remove it"
            for _, value in sorted(unused, key=str)
        )
    if mistakes:
        raise ValueError("\n".join(map(line, mistakes)))
    if places is not None:
        places.overlaid(preset(overlay["base"]), changes)
    return base | {key: value for key, value in raw.items() if key != "overlay"}


def _typed(value: Any) -> tuple[type, Any]:
    """Return a value with its type, because Python treats true, 1 and 1.0 as equal."""
    return type(value), value


def _read(overlay: Any) -> dict:
    if isinstance(overlay, dict) and "of" in overlay:
        raise ValueError("overlay.of: this key is now called 'base'; rename it")
    kinds = {"base": str, "drop": list, "set": dict, "map": dict}
    sound = (
        isinstance(overlay, dict)
        and "base" in overlay
        and all(isinstance(value, kinds.get(key, ())) for key, value in overlay.items())
    )
    if not sound or not all(isinstance(change, dict) for change in overlay.get("map", {}).values()):
        raise ValueError(
            f"overlay: {line(repr(overlay), 300)} is not allowed; allowed: {{base: CONFIG, "
            "drop: [path], set: {path: value}, map: {path: {old: new}}}"
        )
    path = preset(overlay["base"])
    if not is_file(path):
        raise ValueError(
            f"overlay.base: {overlay['base']!r}: there is no such file; name a config, e.g. "
            "config/paper/data_pollination.yaml"
        )
    try:
        base = read_yaml(path)
    except ValueError as error:
        raise ValueError(f"overlay.base: {error}") from None
    if "overlay" in base:
        raise ValueError(
            f"overlay.base: {overlay['base']!r} is itself an overlay; name a config without the "
            "key overlay"
        )
    return _unshared(base)


def _unshared(value: Any) -> Any:
    """Return a copy without shared objects, which YAML's anchors create."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def _matches(
    node: Any, parts: list[str], new: bool, above: tuple[str, ...] = ()
) -> Iterator[tuple[dict, str, tuple[str, ...]]]:
    """Yield (mapping, key, path) of every match of a path; with `new`, its last key may be new."""
    if not isinstance(node, dict):
        return
    first, below = parts[0], parts[1:]
    keys = [key for key in node if fnmatchcase(str(key), first)]
    if below:
        for key in keys:
            yield from _matches(node[key], below, new, (*above, str(key)))
        return
    if not keys and new and not set(first) & set("*?["):
        keys = [first]
    yield from ((node, key, (*above, str(key))) for key in keys)
