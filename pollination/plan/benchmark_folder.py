"""Read a user's own benchmark: a folder of YAML files in lm-eval's format.

`tasks.{name}.include_path` names the folder. The plan reads only the YAML: the tasks that the
folder defines, the files that a task depends on, and whether pollination scores the task as lm-eval
does. It runs no code of the folder and does not import lm-eval. Staging
(pollination/evaluation/template_source.py) then loads the functions too.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from pollination.core import sanitize
from pollination.plan import task_metrics
from pollination.plan.config.loading import unusable
from pollination.plan.config.values import listed, nearest

IGNORED = ("__pycache__", ".ipynb_checkpoints")  # as in lm-eval
MAX_FILES = 20_000  # in a folder; parsing more YAML would delay each start of snakemake
LOADERS = ("json", "csv", "parquet")  # values of dataset_path for local files
GROUP_KEYS = ("group", "group_alias", "task", "aggregate_metric_list", "metadata", "tag", "include")
UNSUPPORTED = {  # keys that change the requests or scores of lm-eval -> what to do instead
    "class": "write the task as YAML keys",
    "use_prompt": "write the prompt as doc_to_text",
    "doc_to_image": "delete it; the models read only text",
    "doc_to_audio": "delete it; the models read only text",
    "custom_dataset": "write the questions to a file and name it in dataset_kwargs.data_files",
    "unsafe_code": "delete it; code written by a model is never run",
}


class Function(str):
    """`!function module.name` of a YAML file, not loaded."""


@dataclass(frozen=True)
class Leaf:
    """One task of a benchmark; a group or a tag has several."""

    name: str
    yaml: str
    """Its YAML file, relative to the folder."""
    overrides: dict
    """Keys that a parent group sets."""
    data: dict[str, list[str]] | None
    """Local files by split; None if they come from the hub or from the config's `data`."""


@dataclass(frozen=True)
class Benchmark:
    """A task of a folder, with all files that it depends on."""

    folder: str
    leaves: list[Leaf]
    aggregates: list[dict]
    """How lm-eval aggregates the metrics of the tasks; empty: it does not."""
    files: list[str]
    """YAML files, and all Python files if a YAML file names a function; relative to the folder."""

    def paths(self) -> list[str]:
        """Return the local files that staging reads, without URLs."""
        data = [
            path for leaf in self.leaves for paths in (leaf.data or {}).values() for path in paths
        ]
        paths = [os.path.normpath(os.path.join(self.folder, name)) for name in self.files]
        return list(dict.fromkeys(path for path in paths + data if "://" not in path))


@dataclass(frozen=True)
class _Definition:
    yaml: str
    config: dict
    read: list[str]


@dataclass(frozen=True)
class _Folder:
    path: str
    named: dict[str, list[_Definition]]
    unreadable: dict[str, str]


def built_in_template(task: dict) -> str | None:
    """Return the lm-eval template that an entry of `tasks` names; None for other benchmarks."""
    return None if task.get("include_path") else task.get("template")


def benchmark_files(task: dict) -> list[str]:
    """Return the files of a user's benchmark, the inputs of its staging.

    If they cannot be read, return the folder: `check_files` reports the reason, and a finished run
    can be inspected without the folder.
    """
    try:
        return read_benchmark(task).paths()
    except ValueError:
        return [_place(task)]


def _place(task: dict) -> str:
    return os.path.normpath(os.path.expanduser(task["include_path"]))


def read_benchmark(task: dict) -> Benchmark:
    """Return the benchmark `template` in the folder `include_path` of an entry of `tasks`.

    Raises ValueError if the folder, its YAML, the task or a file of the task is missing or
    unreadable, or if pollination would not score the task as lm-eval does.
    """
    folder = _read_folder(_place(task))
    used: dict[str, None] = {}
    leaves = []
    for definition, name, overrides in _expand(folder, task["template"], {}, used, ()):
        config, where = definition.config | overrides, os.path.join(folder.path, definition.yaml)
        # A remaining include is a file of lm-eval, which is not installed here.
        whole = "include" not in config
        if whole and (reason := refusal(config)):
            raise ValueError(f"{where}: task {name!r}: {reason}")
        data = _local_data(config, folder.path, where) if whole and not task.get("data") else None
        leaves.append(Leaf(name, definition.yaml, overrides, data))
    names = [leaf.name for leaf in leaves]
    if not names:
        raise ValueError(f"{folder.path!r}: group {task['template']!r} has no task; add one")
    if again := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(
            f"{folder.path!r}: {task['template']!r} names task {again!r} twice; remove one"
        )
    texts = [Path(folder.path, name).read_text(encoding="utf-8") for name in used]
    code = _files(folder.path, ".py") if any("!function" in text for text in texts) else []
    definition = folder.named.get(task["template"], [_Definition("", {}, [])])[0]
    aggregates = _entries(definition.config.get("aggregate_metric_list"))
    return Benchmark(folder.path, leaves, aggregates, [*used, *code])


def metric_mistakes(task: dict, selects: bool) -> list[str]:
    """Return why a task's metric (`tasks.*.metric`) cannot be used, one line per reason.

    `selects`: whether an experiment selects by it. A built-in template is read only if a metric or
    selection needs it; an unknown one is left to its staging.
    """
    if task.get("method") == "generate":
        return []
    folder = _read_folder(_place(task)) if task.get("include_path") else None
    if folder is None and (selects or task.get("metric")):
        folder = _built_in_folder(task["template"])
    if folder is None:
        return []
    asked, mistakes, keys = task.get("metric"), [], []
    for definition, name, overrides in _expand(folder, task["template"], {}, {}, ()):
        config = definition.config | overrides
        if "include" in config:  # a file of lm-eval, which is not installed here
            return []
        if reason := refusal(config):
            mistakes.append(f"task {name!r}: {reason}")
            continue
        try:
            metric = task_metrics.chosen(config, asked)
        except ValueError as error:
            mistakes.append(f"task {name!r}: {error}")
            continue
        keys.append(metric.name)
        if selects and (reason := task_metrics.unfit(metric)):
            others = task_metrics.rankable(config)
            remedy = f"set metric: {' or '.join(others)}, or " if others else ""
            mistakes.append(
                f"task {name!r}: selection cannot choose by its metric {metric.name!r}: {reason}; "
                f"{remedy}select on another task"
            )
    group = folder.named.get(task["template"], [_Definition("", {}, [])])[0].config
    for entry in _entries(group.get("aggregate_metric_list")):
        weighted = entry.get("weight_by_size", True)
        if selects and not mistakes and {*keys} == {entry.get("metric")} and not weighted:
            mistakes.append(
                f"group {task['template']!r}: selection cannot choose by its metric {keys[0]!r}: "
                "it weights each task equally, not each question (weight_by_size: false); select "
                "on one of its tasks"
            )
    return mistakes[:1]


def _built_in_folder(template: str) -> _Folder | None:
    """Return the folder of lm-eval that defines a template; None if there is none."""
    root = _built_in_tasks()
    if root is None:
        return None
    line = re.compile(
        rf"^[\"']?(?:task|group)[\"']?\s*:\s*[\"']?{re.escape(template)}[\"']?\s*$", re.MULTILINE
    )
    likely = [root / template, root / template.split("_")[0], root]
    for place in likely:
        for file in sorted(place.glob("**/*.yaml")):
            if line.search(file.read_text(encoding="utf-8", errors="replace")):
                return _read_folder(str(file.parent))
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


# YAML files


def parse(path: Path) -> dict:
    """Return the keys of one YAML file in lm-eval's format, with functions by name.

    Includes are not followed. Raises ValueError if the file is not YAML or not a mapping, or if it
    names a function whose file is not beside it.
    """
    functions = []

    class Loader(yaml.SafeLoader):
        pass

    def function(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Function:
        functions.append(str(loader.construct_scalar(node)))
        return Function(functions[-1])

    Loader.add_constructor("!function", function)
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        reason = " ".join(sanitize.reason(error).split())
        raise ValueError(f"{path}: not readable as YAML: {reason}; correct the file") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: the file has no keys; write `key: value` lines")
    if endless := [said for said in unusable(config) if "endless" in said]:
        raise ValueError(f"{path}: {endless[0]}")
    for name in functions:
        _check_function(name, path)
    return config


def _check_function(name: str, path: Path) -> None:
    """Refuse code from outside the folder and the pinned lm-eval: records do not cover it."""
    module, _, function = name.rpartition(".")
    if not module or not all(part.isidentifier() for part in [*module.split("."), function]):
        raise ValueError(f"{path}: !function {name!r} is not allowed; write FILE.FUNCTION")
    file = f"{module.replace('.', '/')}.py"
    if module.split(".")[0] != "lm_eval" and not (path.parent / file).is_file():
        raise ValueError(f"{path}: !function {name}: there is no {file} beside it; add the file")


def merged(
    path: Path, folder: Path, read: list[Path], load: Callable[[Path], dict] = parse
) -> dict:
    """Return the keys of a YAML file and its included files, merged as lm-eval merges them.

    `read` collects all files; `load` reads one. An included file must be in the folder or among
    lm-eval's own tasks. If lm-eval is not installed, the names of its files stay under `include`.
    """
    if path in read:
        raise ValueError(
            f"{path}: the file is included twice, which lm-eval refuses; include it once"
        )
    read.append(path)
    config = load(path)
    result: dict[str, Any] = {}
    unknown: list[str] = []
    for name in _entries(config.pop("include", None)):
        target = _included(str(name), path, folder)
        part = merged(target, folder, read, load) if target else {"include": [str(name)]}
        part.pop("task_list", None)
        unknown += part.pop("include", [])
        result |= part
    return result | config | ({"include": unknown} if unknown else {})


def _included(name: str, path: Path, folder: Path) -> Path | None:
    """Return the file of `include: name`; None for a file of lm-eval, if it is not installed.

    Absolute paths into the folder are refused, because jobs unpack a copy elsewhere.
    """
    built_in, relative = _built_in_tasks(), not os.path.isabs(name)
    beside = Path(os.path.normpath(path.parent / name))
    if relative and beside.is_file() and _inside(beside, folder):
        return beside
    if built_in is None and relative and not beside.exists():
        return None
    if built_in is not None:
        for target in (beside, Path(os.path.normpath(built_in / name))):
            if target.is_file() and _inside(target, built_in):
                return target
    raise ValueError(
        f"{path}: include {name!r} is neither a file of {str(folder)!r} nor one of lm-eval's tasks"
        "; copy it into the folder, and write its path relative to the including file"
    )


def _inside(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def _built_in_tasks() -> Path | None:
    """Return lm-eval's folder of tasks without importing lm-eval."""
    spec = find_spec("lm_eval")
    return Path(spec.origin).parent / "tasks" if spec and spec.origin else None


def _entries(value: Any) -> list:
    """Return the entries of an lm-eval key that takes one entry or a list."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _files(folder: str, ending: str) -> list[str]:
    """Return the files below a folder, relative to it."""
    paths, seen = [], 0
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in IGNORED]
        seen += len(names)
        if seen > MAX_FILES:
            raise ValueError(
                f"{folder!r}: the folder has more than {MAX_FILES:,} files; name a folder that has "
                "only the benchmark"
            )
        paths += [
            os.path.relpath(os.path.join(place, name), folder)
            for name in names
            if name.endswith(ending)
        ]
    return sorted(paths)


# Tasks, groups and tags


def _read_folder(path: str) -> _Folder:
    if not os.path.isdir(path):
        raise ValueError(f"{path!r}: there is no such folder; correct the path")
    yamls = _files(path, ".yaml")
    if not yamls:
        raise ValueError(f"{path!r}: the folder has no YAML file (*.yaml); correct the path")
    folder = _Folder(path, {}, {})
    for name in yamls:
        read: list[Path] = []
        try:
            config = merged(Path(path, name), Path(path), read)
        except ValueError as error:
            folder.unreadable[name] = str(error)
            continue
        task = config.get("group", config.get("task"))
        if isinstance(task, str):
            own = [os.path.relpath(one, path) for one in read if _inside(one, Path(path))]
            folder.named.setdefault(task, []).append(_Definition(name, config, own))
    return folder


def _expand(
    folder: _Folder, name: str, overrides: dict, used: dict[str, None], above: tuple[str, ...]
) -> Iterator[tuple[_Definition, str, dict]]:
    """Yield (definition, name, overriding keys) of the leaf tasks of a name.

    `used` collects their YAML files.
    """
    if name in above:
        raise ValueError(f"{folder.path!r}: group {name!r} contains itself; correct its key `task`")
    definitions = folder.named.get(name, [])
    if not definitions:
        tagged = sorted(task for task, (one, *_) in folder.named.items() if _has_tag(one, name))
        if not tagged:
            raise ValueError(_unknown(folder, name, above))
        for task in tagged:
            yield from _expand(folder, task, overrides, used, (*above, name))
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
        yield from _expand(folder, member, shared | overrides | extra, used, (*above, name))


def _has_tag(definition: _Definition, tag: str) -> bool:
    return "group" not in definition.config and tag in _entries(definition.config.get("tag"))


def _unknown(folder: _Folder, name: str, above: tuple[str, ...]) -> str:
    names = sorted(folder.named)
    group = f", which group {above[-1]!r} names" if above else ""
    reasons = " | ".join(list(folder.unreadable.values())[:3])
    said = f"; not readable: {reasons}" if reasons else ""
    return (
        f"{folder.path!r} has no task {name!r}{group}{nearest(name, names)}; "
        f"allowed: {', '.join(names) or '(none)'}{said}"
    )


def _members(folder: _Folder, group: _Definition) -> Iterator[tuple[str, dict, dict]]:
    """Yield (name, keys that the group sets for all members, keys for this member)."""
    where = os.path.join(folder.path, group.yaml)
    if reason := aggregate_refusal(group.config):
        raise ValueError(f"{where}: {reason}")
    shared = {key: value for key, value in group.config.items() if key not in GROUP_KEYS}
    for member in _entries(group.config.get("task")):
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


def aggregate_refusal(group: dict) -> str | None:
    """Return why lm-eval could not aggregate the metrics of a group; None if it could."""
    for entry in _entries(group.get("aggregate_metric_list")):
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


def _holds_function(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_function, value.values()))
    return isinstance(value, Function) or (
        isinstance(value, list) and any(map(_holds_function, value))
    )


# Data


def _local_data(config: dict, folder: str, where: str) -> dict[str, list[str]] | None:
    """Return the local files of a template by split; None for a data set from the hub."""
    source, options = config.get("dataset_path"), config.get("dataset_kwargs") or {}
    if not isinstance(source, str):
        raise ValueError(
            f"{where}: dataset_path is missing; write json, csv, parquet or a hub name"
        )
    if source not in LOADERS:
        if os.path.exists(os.path.join(folder, source)):
            raise ValueError(
                f"{where}: dataset_path {source!r} is a local path; write dataset_path: json, csv "
                "or parquet, and dataset_kwargs: {data_files: ...}"
            )
        return None
    files = options.get("data_files") if isinstance(options, dict) else None
    if not files or "data_dir" in options:
        raise ValueError(
            f"{where}: dataset_path {source} needs dataset_kwargs: {{data_files: {{SPLIT: FILE}}}} "
            "and no data_dir"
        )
    by_split = files if isinstance(files, dict) else {"train": files}  # as datasets names it
    for split, names in by_split.items():
        paths = names if isinstance(names, list) else [names]
        if not paths or not all(isinstance(path, str) and path for path in paths):
            raise ValueError(f"{where}: data_files: {split}: {names!r} is not a file; name one")
    return {
        str(split): [path for name in listed(names) for path in _matches(str(name), folder, where)]
        for split, names in by_split.items()
    }


def _matches(name: str, folder: str, where: str) -> list[str]:
    """Return a file of the folder, or all files that a glob matches; a URL stays as it is."""
    path = os.path.normpath(os.path.join(folder, os.path.expanduser(name)))
    if "://" in name:
        return [name]
    if os.path.isfile(path):
        return [path]
    matches = [one for one in sorted(glob(path, recursive=True)) if os.path.isfile(one)]
    if not matches:
        raise ValueError(f"{where}: data_files: {path!r}: there is no such file; correct the path")
    return matches
