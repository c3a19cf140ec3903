"""Find where a key of a config was set: a line of a file, or `--config`.

The files are parsed for this only after a mistake was found.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from pollination.core.sanitize import line
from pollination.core.settings import resolved, schema

GIVEN = "--config"
MERGE = "tag:yaml.org,2002:merge"  # the key <<
REPLICATE = re.compile(r"^s\d+(\.|$)")  # `experiments.NAME.s3` is a run of the entry NAME


@dataclass(frozen=True)
class Spot:
    """Where a value was set. `text`: the value, if it is a scalar; `children`: the keys below."""

    place: str
    text: str = ""
    children: Mapping[str, "Spot"] = field(default_factory=dict)

    def over(self, below: "Spot") -> "Spot":
        """Return the spots after this value was merged over `below`, as Snakemake merges them."""
        if not self.children or not below.children:
            return self
        merged = dict(below.children)
        for key, child in self.children.items():
            merged[key] = child.over(merged[key]) if key in merged else child
        return replace(below, children=merged)

    def changed(self, path: tuple[str, ...], spot: "Spot | None") -> "Spot":
        """Return a copy in which `spot` is at `path`; None removes the key there."""
        key, below = path[0], path[1:]
        children = dict(self.children)
        if below:
            children[key] = children.get(key, Spot(self.place)).changed(below, spot)
        elif spot is None:
            children.pop(key, None)
        else:
            children[key] = spot
        return replace(self, children=children)

    def find(self, key: str) -> tuple["Spot", str]:
        """Return the spot of the longest known part of a dotted key, and the rest of the key."""
        spot, rest = self, key
        while rest:
            # a key may contain dots: overlay.set has paths as keys
            known = [name for name in spot.children if f"{rest}.".startswith(f"{name}.")]
            if not known:
                break
            name = max(known, key=len)
            spot, rest = spot.children[name], rest[len(name) + 1 :]
        return spot, rest


@dataclass(frozen=True)
class Change:
    """A change that an overlay made: the path in the base, and the key of the overlay."""

    path: tuple[str, ...]
    key: str


class Places:
    """The sources of a config: its files in their order, then the values of `--config`."""

    def __init__(self, files: Iterable[str | Path], given: Mapping[str, Any] | None = None) -> None:
        self.files = [_shown(path) for path in files]
        self.given = dict(given or {})
        self.base: str | None = None
        self.changes: list[Change] = []

    def __str__(self) -> str:
        return ", ".join(self.files)

    def overlaid(self, base: str, changes: list[Change]) -> None:
        """Note that the sources change the config `base`."""
        self.base, self.changes = base, changes

    @cached_property
    def spots(self) -> Spot:
        """Return where each key was set."""
        merged = Spot(str(self))
        for path in self.files:
            merged = _file(path).over(merged) if merged.children else _file(path)
        if self.given:
            given = Spot(GIVEN, children={key: _given(value) for key, value in self.given.items()})
            merged = given.over(merged) if merged.children else given
        if self.base is None:
            return replace(merged, place=str(self))
        spots = _file(_shown(self.base))
        for change in self.changes:
            set_by = None if change.key == "overlay.drop" else merged.find(change.key)[0]
            spots = spots.changed(change.path, set_by)
        own = {key: spot for key, spot in merged.children.items() if key != "overlay"}
        return Spot(str(self), children={**spots.children, **own})

    def of(self, mistake: str) -> str:
        """Return the place of a mistake, `key: what is wrong`: `FILE:LINE` or `--config`.

        A key that no source sets has the schema's default. Its place is the entry that it belongs
        to, and says so.
        """
        key, _, said = mistake.partition(": ")
        spot, rest = self._find(key)
        below, beyond = spot.find(said.partition(": ")[0])  # `tasks.x: num_fewshot: 5: ...`
        if not rest and not beyond and below is not spot:
            return below.place
        for name, child in spot.children.items():  # a message begins with the value, if it has one
            values = [text for text in (name, child.text) if text]
            if any(said.startswith((f"'{text}'", f"{text} ")) for text in values):
                return child.place
        is_default = rest and not said.startswith(("the key", "this key", "unknown key"))
        return f"{spot.place} (default)" if is_default and _has_default(key) else spot.place

    def _find(self, key: str) -> tuple[Spot, str]:
        """Return the spot that sets a key, and the part of the key that no source sets."""
        section, _, below = key.partition(".")
        spot, rest = self.spots.find(key)
        if swept := _of_sweep(self.spots, key):
            return swept, ""
        if section not in ("experiments", "founders") or not rest or spot is self.spots:
            return spot, rest
        entries = self.spots.children[section]
        name = next(
            (n for n in sorted(entries.children, key=len) if f"{below}.".startswith(f"{n}.")), ""
        )
        entry, below = entries.children.get(name, entries), below[len(name) + 1 :]
        below = REPLICATE.sub("", below) if name else below
        found = [entry.find(below)]
        if section == "experiments" and name and "defaults" in self.spots.children:
            default = self.spots.children["defaults"].find(below)
            found += [default] if len(default[1]) < len(below) else []
        return min(found, key=lambda one: len(one[1]))


def _of_sweep(config: Spot, key: str) -> Spot | None:
    """Return the spot of `experiments.NAME.sweep.KEY`, whose values are its children.

    KEY may stand below zip, or in several entries of a list.
    """
    section, name, sweep, path = [*key.split(".", 3), "", "", "", ""][:4]
    node = config
    for part in (section, name, sweep):
        node = node.children.get(part, Spot(""))
    if section != "experiments" or sweep != "sweep" or path in node.children:
        return None
    zipped = node.children.get("zip", Spot("")).children
    entries = [entry.children[path] for entry in node.children.values() if path in entry.children]
    if path in zipped or not entries:
        return zipped.get(path)
    return replace(entries[0], children={str(n): entry for n, entry in enumerate(entries)})


def _has_default(key: str) -> bool:
    """Return whether the schema has a default for a dotted key."""
    node = schema()
    for part in key.split("."):
        node = resolved(node)
        children = node.get("properties", {})
        below = node.get("items") if part.isdigit() else node.get("additionalProperties")
        node = children[part] if part in children else below if isinstance(below, dict) else {}
    return "default" in node


def _shown(path: str | Path) -> str:
    """Return a path relative to the current folder if it lies there."""
    path = Path(path)
    try:
        return str(path.relative_to(Path.cwd())) if path.is_absolute() else str(path)
    except (ValueError, OSError):
        return str(path)


def _given(value: Any) -> Spot:
    if isinstance(value, Mapping):
        return Spot(GIVEN, children={str(key): _given(item) for key, item in value.items()})
    if isinstance(value, list):
        return Spot(GIVEN, children={str(n): _given(item) for n, item in enumerate(value)})
    return Spot(GIVEN, str(value))


def _file(path: str) -> Spot:
    """Return where a file sets its keys; without lines if it cannot be read."""
    try:
        node = yaml.compose(Path(path).read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
        return Spot(path) if node is None else _spot(path, node, node, {})
    # RecursionError: nesting too deep
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return Spot(path)


def _spot(path: str, key: yaml.Node, value: yaml.Node, known: dict[int, dict]) -> Spot:
    """Return the spot of a value that stands at `key`.

    `known` holds the children by node: an anchor has one node, and may contain itself.
    """
    text = value.value if isinstance(value, yaml.ScalarNode) else ""
    if id(value) not in known:
        known[id(value)] = {}  # what an anchor that contains itself finds
        children: dict[str, Spot] = {}
        if isinstance(value, yaml.SequenceNode):
            for number, item in enumerate(value.value):
                children[str(number)] = _spot(path, item, item, known)
        elif isinstance(value, yaml.MappingNode):
            for name, item in value.value:
                if name.tag == MERGE:
                    merged = item.value if isinstance(item, yaml.SequenceNode) else [item]
                    for part in reversed(merged):  # the first of several mappings counts
                        children |= _spot(path, part, part, known).children
            for name, item in value.value:
                if name.tag != MERGE and isinstance(name, yaml.ScalarNode):
                    children[name.value] = _spot(path, name, item, known)
        known[id(value)] = children
    return Spot(f"{line(path)}:{key.start_mark.line + 1}", text, known[id(value)])
