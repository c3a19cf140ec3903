"""Expand `sweep` of an experiment into one experiment for each combination of values.

A variant's name is that of the experiment, then each swept key and its value, such as
`noise.mutate-scale0.01.population9`. It depends on values alone, so a value that is added later
reruns nothing.
"""

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from math import prod
from typing import Any

from pollination.core.settings import definition, resolved
from pollination.plan.config.schema import merge, schema
from pollination.plan.config.values import nearest, runs_of

MAX_VARIANTS = 1_000  # of one sweep
MAX_NAME = 200  # characters; a folder's name may have 255
RUNS = ("seed", "seeds", "replicates", "sweep")  # keys that repeat an experiment
Values = dict[str, Any]  # dotted key -> value
Sweeps = dict[str, dict[str, Values]]  # experiment -> variant -> its values


def expand_sweeps(raw: dict, mistakes: list[str]) -> tuple[dict, Sweeps]:
    """Return `raw` with each swept experiment replaced by its variants, and the sweeps."""
    sweeps: Sweeps = {}
    experiments: dict[str, dict] = {}
    if raw.get("defaults", {}).get("sweep"):
        mistakes.append(
            "defaults.sweep: an experiment has a sweep, defaults have none; move it to "
            "experiments.NAME.sweep"
        )
    for name, settings in raw.get("experiments", {}).items():
        rest = {key: value for key, value in settings.items() if key != "sweep"}
        key = f"experiments.{name}.sweep"
        if not settings.get("sweep"):
            experiments[name] = rest
            continue
        found: list[str] = []
        sweeps[name] = {}
        for values in _variants(key, settings["sweep"], rest, found):
            variant = ".".join([name, *(_word(*pair) for pair in values.items())])
            if len(variant) > MAX_NAME:
                found.append(
                    f"{key}: the name {variant[:40]}... has {len(variant)} characters; allowed: "
                    f"{MAX_NAME}; sweep fewer keys, or shorter values"
                )
            elif variant in sweeps[name]:
                found.append(
                    f"{key}: two variants have the name {variant}; list each combination once, "
                    "and give text values that differ in letters or digits"
                )
            sweeps[name][variant] = values
            experiments[variant] = rest
            for path, value in values.items():
                experiments[variant] = merge(experiments[variant], _nested(path, value))
        mistakes += found
    return raw | ({"experiments": experiments} if "experiments" in raw else {}), sweeps


def spread(names: Iterable[str], sweeps: dict) -> list[str]:
    """Return a list of experiments in which a swept one stands for all its variants."""
    found = [
        one for name in names for one in (sweeps[name]["variants"] if name in sweeps else [name])
    ]
    return list(dict.fromkeys(found))


def variants_of(raw: dict, sweeps: Sweeps) -> tuple[dict, dict]:
    """Return the variants as a config, and the part of the schema that describes it."""
    names = [variant for variants in sweeps.values() for variant in variants]
    experiments = {"additionalProperties": {"$ref": "#/$defs/experiment"}}
    return (
        {"experiments": {name: raw["experiments"][name] for name in names}},
        {"properties": {"experiments": experiments}, "$defs": schema()["$defs"]},
    )


def summary(sweeps: Sweeps, experiments: dict) -> dict:
    """Return {experiment: keys, variants: {variant: values, runs}} for figures.

    Each variant has the value of every swept key, also of one that only others set. `experiments`:
    with replicates; `runs` are those of the variant.
    """
    found, runs = {}, runs_of(experiments)
    for name, variants in sweeps.items():
        keys = list(dict.fromkeys(key for values in variants.values() for key in values))
        found[name] = {
            "keys": keys,
            "variants": {
                variant: {
                    "values": {
                        key: values.get(key, _at(experiments[runs[variant][0]], key))
                        for key in keys
                    },
                    "runs": runs[variant],
                }
                for variant, values in variants.items()
            },
        }
    return found


def equal_variants(sweeps: dict, experiments: dict) -> Iterator[str]:
    """Yield one line for each variant that is the same experiment as an earlier one.

    `sweeps`: as `summary` returns it. `experiments`: with replicates.
    """
    for name, one in sweeps.items():
        known: dict[str, str] = {}
        for variant, entry in one["variants"].items():
            settings = experiments[entry["runs"][0]]
            if not settings["mutate"]["scale"]:
                settings = merge(settings, {"mutate": {"per": ""}})  # then it has no effect
            same = known.setdefault(json.dumps(settings, sort_keys=True), variant)
            if same != variant:
                yield (
                    f"experiments.{name}.sweep: the variants {same} and {variant} are the same "
                    "experiment; remove one of them"
                )


def written(config: dict) -> Sweeps:
    """Return the sweeps of a resolved config."""
    return {
        name: {variant: entry["values"] for variant, entry in one["variants"].items()}
        for name, one in config.get("sweeps", {}).items()
    }


def blamed(mistakes: list[str], sweeps: Sweeps) -> list[str]:
    """Return the mistakes, with the keys that the config has instead of those of the variants.

    A mistake in a swept key has the key `experiments.NAME.sweep.KEY`. One in another key is the
    experiment's if all variants make it, else the sweep's, with the values of the first variant.
    """
    owner = {variant: name for name, variants in sweeps.items() for variant in variants}
    if not owner:
        return mistakes
    either = "|".join(map(re.escape, sorted(owner, key=len, reverse=True)))
    of_variant = re.compile(rf"experiments\.({either})(?:\.s\d+)?(?:\.([\w.]+))?: (.*)", re.S)
    inside = re.compile(rf"\bexperiments\.({either})(?:\.s\d+)?(?=[.:\s,;])")
    found: dict[tuple[str, str, str], list[str]] = {}  # (experiment, key, text) -> its variants
    for mistake in mistakes:
        match = of_variant.fullmatch(mistake)
        variant, key, said = match.groups() if match else ("", mistake, "")
        said = inside.sub(lambda one: f"experiments.{owner[one[1]]}", said)
        said = re.sub(rf"\b{re.escape(variant)}\b(?!\.)", owner[variant], said) if match else said
        found.setdefault((owner.get(variant, ""), key or "", said), []).append(variant)
    lines = []
    for (name, key, said), variants in found.items():
        if not name:
            lines.append(inside.sub(lambda one: f"experiments.{owner[one[1]]}", key))
            continue
        values = sweeps[name][variants[0]]
        swept = next((one for one in values if f"{key}.".startswith(f"{one}.")), None)
        if swept:
            lines.append(f"experiments.{name}.sweep.{swept}: {said}")
        elif set(variants) == set(sweeps[name]):
            lines.append(
                f"experiments.{name}.{key}: {said}" if key else f"experiments.{name}: {said}"
            )
        else:
            given = ", ".join(f"{one}: {value}" for one, value in values.items())
            lines.append(f"experiments.{name}.sweep: {key}: {said} (the variant with {given})")
    return lines


def _variants(
    key: str, given: dict | list, settings: dict, mistakes: list[str]
) -> Iterator[Values]:
    """Yield the values of each variant; without any, `mistakes` says why."""

    def too_many(count: int) -> bool:
        if count > MAX_VARIANTS:
            mistakes.append(
                f"{key}: {count:,} variants are too many; allowed: {MAX_VARIANTS:,}; list fewer "
                "values"
            )
        return count > MAX_VARIANTS

    if isinstance(given, list):
        if too_many(len(given)):
            return
        for number, entry in enumerate(given):
            if not isinstance(entry, dict) or not entry:
                mistakes.append(
                    f"{key}.{number}: {entry!r} is not a variant; write a mapping of dotted keys, "
                    "e.g. {mutate.scale: 0.01}"
                )
                continue
            for path, value in entry.items():
                _check(f"{key}.{path}", path, [value], settings, mistakes)
        yield from () if mistakes else given
        return
    zipped = given.get("zip", {})
    if not isinstance(zipped, dict) or ("zip" in given and not zipped):
        mistakes.append(
            f"{key}.zip: {zipped!r} is not allowed; write a mapping of dotted keys to lists of "
            "equal length"
        )
        return
    grid = {path: values for path, values in given.items() if path != "zip"}
    for path, values in [*grid.items(), *zipped.items()]:
        _check(f"{key}.{path}", path, values, settings, mistakes)
        if not mistakes and path in grid:
            words = [_word(path, value) for value in values]
            if twice := [v for v, word in zip(values, words, strict=True) if words.count(word) > 1]:
                mistakes.append(
                    f"{key}.{path}: {twice[0]!r} and {twice[1]!r} are one value; list it once"
                )
        if path in grid and path in zipped:
            mistakes.append(f"{key}.{path}: it is also a key of zip; remove one of them")
    if mistakes:
        return
    lengths = {path: len(values) for path, values in zipped.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{path} has {count}" for path, count in lengths.items())
        mistakes.append(f"{key}.zip: the lists differ in length: {listed}; make them equal")
        return
    count = prod([len(values) for values in grid.values()] + list(lengths.values())[:1])
    if too_many(count):
        return
    axes = [[{path: value} for value in values] for path, values in grid.items()]
    if zipped:  # it takes its place among the keys of the grid
        rows = [dict(zip(zipped, row, strict=True)) for row in zip(*zipped.values(), strict=True)]
        axes.insert(list(given).index("zip"), rows)
    for chosen in product(*axes):
        yield {path: value for part in chosen for path, value in part.items()}


def _check(where: str, path: str, values: Any, settings: dict, mistakes: list[str]) -> None:
    """Check a swept key and its list of values, without what the schema says of each value."""
    section = [leaf for leaf in leaves() if leaf.startswith(f"{path}.")]
    if path.partition(".")[0] in RUNS:
        mistakes.append(
            f"{where}: this key cannot be swept; write seeds or replicates beside sweep to repeat "
            "each variant"
        )
    elif section:
        mistakes.append(f"{where}: it is a section; sweep one of its keys: {', '.join(section)}")
    elif path not in leaves():
        ends = [leaf for leaf in leaves() if leaf.endswith(f".{path}")]
        close = f" (did you mean {ends[0]!r}?)" if ends else nearest(path, list(leaves()))
        mistakes.append(
            f"{where}: unknown key{close}; allowed: dotted keys of an experiment, e.g. "
            "mutate.scale, or zip"
        )
    elif not isinstance(values, list) or not values:
        mistakes.append(f"{where}: {values!r} is not allowed; write a list of values")
    elif (held := _at(settings, path)) is not None:
        own = f"{where.partition('.sweep.')[0]}.{path}"
        mistakes.append(f"{where}: {own} sets this key too (to {held!r}); remove one of them")
    elif any(isinstance(item, dict) for value in values for item in _items(value)):
        mistakes.append(
            f"{where}: a value is a mapping; allowed: numbers, text, true, false, null, lists"
        )


@cache
def leaves() -> tuple[str, ...]:
    """Return the dotted keys of an experiment that hold no further keys."""

    def below(node: dict, above: str) -> Iterator[str]:
        for key, child in resolved(node)["properties"].items():
            path = f"{above}{key}"
            nested = "properties" in resolved(child)
            yield from below(child, f"{path}.") if nested else [path]

    return tuple(key for key in below(definition("experiment"), "") if key not in RUNS)


def _word(path: str, value: Any) -> str:
    """Return the part of a variant's name for one key: population4, select-rule-random."""
    return path.replace(".", "-") + _written(value)


def _written(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(_written(item).lstrip("-") for item in value) or "-none"
    if value is None or isinstance(value, bool):
        return {None: "-null", True: "-true", False: "-false"}[value]
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < 1e15  # 1.0 is 1
        return str(int(value)) if whole else repr(value).replace("+", "")
    return str(value) if isinstance(value, int) else "-" + re.sub(r"[^A-Za-z0-9_]+", "-", value)


def _items(value: Any) -> Iterator[Any]:
    """Yield a value, or the items of a list, also of lists in it."""
    if isinstance(value, list):
        for item in value:
            yield from _items(item)
    else:
        yield value


def _nested(path: str, value: Any) -> dict:
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def _at(settings: dict, path: str) -> Any:
    """Return the value at a dotted key; None if it is absent."""
    node: Any = settings
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node
