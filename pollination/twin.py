"""The same study at another size: a config that is another config with some values changed, `twin: {of, drop, set, map}`.

Paths are keys joined by dots; a part with `*`, `?` or `[...]` stands for every key that it matches (as file names do).
"""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pollination.printable import line
from pollination.yamlfile import is_file, read_yaml

ROOT = Path(__file__).parent.parent


def expand(raw: dict) -> dict:
    """`raw` with its twin's config laid under it; a config without `twin` as it is.

    `drop`: paths of keys to leave out. `set`: path -> value put there; the last part may be a new key. `map`: path -> {old value: new value};
    what is not listed stays. Later lines win; all other keys of `raw` replace those of the twin. Raises ValueError, one line a mistake.
    """
    twin = raw.get("twin")
    if twin is None:
        return raw
    base, mistakes = _read(twin), []

    def places(what: str, path: str, new: bool) -> list[tuple[dict, str]]:
        found = list(_places(base, str(path).split("."), new))
        if not found:
            mistakes.append(f"twin.{what}: {path!r} matches nothing in {twin['of']}; correct the path")
        return found

    for path in twin.get("drop", []):
        for node, key in places("drop", path, new=False):
            del node[key]
    for path, value in twin.get("set", {}).items():
        for node, key in places("set", path, new=True):
            node[key] = _unshared(value)
    for path, change in twin.get("map", {}).items():
        for node, key in places("map", path, new=False):
            node[key] = node[key] if isinstance(node[key], (dict, list)) else change.get(node[key], node[key])
    if mistakes:
        raise ValueError("\n".join(map(line, mistakes)))
    return base | {key: value for key, value in raw.items() if key != "twin"}


def _read(twin: Any) -> dict:
    kinds = {"of": str, "drop": list, "set": dict, "map": dict}
    sound = isinstance(twin, dict) and "of" in twin and all(isinstance(value, kinds.get(key, ())) for key, value in twin.items())
    if not sound or not all(isinstance(change, dict) for change in twin.get("map", {}).values()):
        raise ValueError(
            f"twin: {line(repr(twin), 300)} is not allowed; allowed: {{of: CONFIG, drop: [path], set: {{path: value}}, map: {{path: {{old: new}}}}}}"
        )
    path = next((place for place in (Path(twin["of"]), ROOT / twin["of"]) if is_file(place)), None)
    if path is None:
        raise ValueError(f"twin.of: {twin['of']!r}: there is no such file; name a config, e.g. config/paper/data_pollination.yaml")
    try:
        base = read_yaml(path)
    except ValueError as error:
        raise ValueError(f"twin.of: {error}") from None
    if "twin" in base:
        raise ValueError(f"twin.of: {twin['of']!r} is no config of its own; name one that is not a twin itself")
    return _unshared(base)


def _unshared(value: Any) -> Any:
    """A copy in which no two places are one object: YAML's anchors make them so."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def _places(node: Any, parts: list[str], new: bool):
    """(mapping, key) of every place that a path matches; with `new`, the last part may be a key that is not there yet."""
    if not isinstance(node, dict):
        return
    first, rest = parts[0], parts[1:]
    found = [key for key in node if fnmatchcase(str(key), first)]
    if not rest:
        yield from ((node, key) for key in found or ([first] if new and not set(first) & set("*?[") else []))
        return
    for key in found:
        yield from _places(node[key], rest, new)
