"""Find the tasks, groups and tags that a folder of YAML files defines, and refuse unsupported ones.

A task is refused if pollination would not score it as lm-eval does.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pollination.plan import task_metrics
from pollination.plan.benchmark_yaml import Function, entries, files_below, inside, merged
from pollination.plan.config.values import nearest

GROUP_KEYS = ("group", "group_alias", "task", "aggregate_metric_list", "metadata", "tag", "include")
UNSUPPORTED = {  # keys that change the requests or scores of lm-eval -> what to do instead
    "class": "write the task as YAML keys",
    "use_prompt": "write the prompt as doc_to_text",
    "doc_to_image": "delete it; the models read only text",
    "doc_to_audio": "delete it; the models read only text",
    "custom_dataset": "write the questions to a file and name it in dataset_kwargs.data_files",
    "unsafe_code": "delete it; code written by a model is never run",
}


@dataclass(frozen=True)
class Definition:
    """A task or a group, as its YAML file defines it."""

    yaml: str
    """Its YAML file, relative to the folder."""
    config: dict
    """Its keys, merged with those of the included files."""
    read: list[str]
    """The YAML file and its included files of the folder, relative to the folder."""


@dataclass(frozen=True)
class Folder:
    """The tasks and groups of a folder."""

    path: str
    named: dict[str, list[Definition]]
    """Definitions by the name of the task or group."""
    unreadable: dict[str, str]
    """Why a YAML file is not readable, by its path in the folder."""


def read_folder(path: str) -> Folder:
    """Read the YAML files of a folder. ValueError: it is missing, too large or without any."""
    if not os.path.isdir(path):
        raise ValueError(f"{path!r}: there is no such folder; correct the path")
    yamls = files_below(path, ".yaml")
    if not yamls:
        raise ValueError(f"{path!r}: the folder has no YAML file (*.yaml); correct the path")
    folder = Folder(path, {}, {})
    for name in yamls:
        read: list[Path] = []
        try:
            config = merged(Path(path, name), Path(path), read)
        except ValueError as error:
            folder.unreadable[name] = str(error)
            continue
        task = config.get("group", config.get("task"))
        if isinstance(task, str):
            own = [os.path.relpath(one, path) for one in read if inside(one, Path(path))]
            folder.named.setdefault(task, []).append(Definition(name, config, own))
    return folder


def expand(
    folder: Folder, name: str, overrides: dict, used: dict[str, None], above: tuple[str, ...]
) -> Iterator[tuple[Definition, str, dict]]:
    """Yield (definition, name, overriding keys) of the leaf tasks of a name.

    `used` collects their YAML files. `above` holds the groups and tags that lead to the name.
    ValueError: the name has no definition or several, or a group of them is refused.
    """
    if name in above:
        raise ValueError(f"{folder.path!r}: group {name!r} contains itself; correct its key `task`")
    definitions = folder.named.get(name, [])
    if not definitions:
        tagged = sorted(task for task, (one, *_) in folder.named.items() if _has_tag(one, name))
        if not tagged:
            raise ValueError(_unknown(folder, name, above))
        for task in tagged:
            yield from expand(folder, task, overrides, used, (*above, name))
        return
    if len(definitions) > 1:
        files = ", ".join(one.yaml for one in definitions)
        raise ValueError(f"{folder.path!r}: {files} all define {name!r}; rename all but one")
    used |= dict.fromkeys(definitions[0].read)
    if "group" not in definitions[0].config:
        yield definitions[0], name, overrides
        return
    for member, shared, extra in _members(folder, definitions[0]):
        # lm-eval's order: keys of the group, of its parent groups, then of the member
        yield from expand(folder, member, shared | overrides | extra, used, (*above, name))


def _has_tag(definition: Definition, tag: str) -> bool:
    return "group" not in definition.config and tag in entries(definition.config.get("tag"))


def _unknown(folder: Folder, name: str, above: tuple[str, ...]) -> str:
    names = sorted(folder.named)
    group = f", which group {above[-1]!r} names" if above else ""
    reasons = " | ".join(list(folder.unreadable.values())[:3])
    said = f"; not readable: {reasons}" if reasons else ""
    return (
        f"{folder.path!r} has no task {name!r}{group}{nearest(name, names)}; "
        f"allowed: {', '.join(names) or '(none)'}{said}"
    )


def _members(folder: Folder, group: Definition) -> Iterator[tuple[str, dict, dict]]:
    """Yield (name, keys that the group sets for all members, keys for this member)."""
    where = os.path.join(folder.path, group.yaml)
    if reason := aggregate_refusal(group.config):
        raise ValueError(f"{where}: {reason}")
    shared = {key: value for key, value in group.config.items() if key not in GROUP_KEYS}
    for member in entries(group.config.get("task")):
        extra = dict(member) if isinstance(member, dict) else {"task": member}
        name = extra.pop("task", None)
        if not isinstance(name, str) or "group" in extra:
            raise ValueError(
                f"{where}: task: {member!r} is not the name of a task; define the task in a file"
            )
        for key, value in (shared | extra).items():
            if _holds_function(value):
                raise ValueError(
                    f"{where}: {key}: a group cannot set a !function; set it in the task"
                )
        yield name, shared, extra


def _holds_function(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_function, value.values()))
    return isinstance(value, Function) or (
        isinstance(value, list) and any(map(_holds_function, value))
    )


def aggregates(folder: Folder, name: str) -> list[dict]:
    """Return how lm-eval aggregates the metrics of a group; empty if it does not."""
    definition = folder.named.get(name, [Definition("", {}, [])])[0]
    return entries(definition.config.get("aggregate_metric_list"))


def aggregate_refusal(group: dict) -> str | None:
    """Return why lm-eval could not aggregate the metrics of a group; None if it could."""
    for entry in entries(group.get("aggregate_metric_list")):
        if not isinstance(entry, dict) or not isinstance(entry.get("metric"), str):
            return "aggregate_metric_list: an entry has no metric; write - metric: acc"
        if unknown := set(entry) - {"metric", "aggregation", "weight_by_size", "filter_list"}:
            return f"aggregate_metric_list: unknown key {min(unknown)!r}; remove it"
        if entry.get("aggregation", "mean") != "mean":
            return (
                f"aggregate_metric_list: aggregation {entry['aggregation']!r} of "
                f"{entry['metric']!r} is not supported; allowed: mean"
            )
    return None


def refusal(config: dict) -> str | None:
    """Return why pollination would not score a task as lm-eval does; None if it would."""
    if reason := unsupported(config):
        return reason
    shots = config.get("num_fewshot")
    if shots is not None and (type(shots) is not int or shots < 0):
        return f"num_fewshot {shots!r} is not allowed; allowed: an integer of 0 or more"
    if (repeats := config.get("repeats", 1)) is not None and (
        type(repeats) is not int or repeats < 1
    ):
        return f"repeats {repeats!r} is not allowed; allowed: an integer of 1 or more"
    return task_metrics.refusal(config)


def unsupported(config: dict) -> str | None:
    """Return which key of a task is not supported, and what to do; None if there is none."""
    for key, instead in UNSUPPORTED.items():
        if config.get(key):
            return f"{key} is not supported; {instead}"
    return None
