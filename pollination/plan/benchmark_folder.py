"""Read a user's own benchmark: a folder of YAML files in lm-eval's format.

`tasks.{name}.include_path` names the folder. The plan reads only the YAML: the tasks that the
folder defines, the files that a task depends on, and whether pollination scores the task as lm-eval
does. It runs no code of the folder and does not import lm-eval. Staging
(pollination/evaluation/template_source.py) then loads the functions too.
"""

import os
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from pollination.plan.benchmark_tasks import aggregates, expand, read_folder, refusal
from pollination.plan.benchmark_yaml import files_below
from pollination.plan.config.values import listed

LOADERS = ("json", "csv", "parquet")  # values of dataset_path for local files


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
        return [folder_of(task)]


def folder_of(task: dict) -> str:
    """Return the path of the folder that an entry of `tasks` names."""
    return os.path.normpath(os.path.expanduser(task["include_path"]))


def read_benchmark(task: dict) -> Benchmark:
    """Return the benchmark `template` in the folder `include_path` of an entry of `tasks`.

    Raises ValueError if the folder, its YAML, the task or a file of the task is missing or
    unreadable, or if pollination would not score the task as lm-eval does.
    """
    folder = read_folder(folder_of(task))
    used: dict[str, None] = {}
    leaves = []
    for definition, name, overrides in expand(folder, task["template"], {}, used, ()):
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
    code = files_below(folder.path, ".py") if any("!function" in text for text in texts) else []
    how = aggregates(folder, task["template"])
    return Benchmark(folder.path, leaves, how, [*used, *code])


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
