"""Parse YAML files in lm-eval's format, and merge each file with the files that it includes.

No code of the folder runs: a function stays a name. The module does not import lm-eval.
"""

import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from pollination.core import sanitize
from pollination.plan.config.loading import unusable

IGNORED = ("__pycache__", ".ipynb_checkpoints")  # as in lm-eval
MAX_FILES = 20_000  # in a folder; parsing more YAML would delay each start of snakemake


class Function(str):
    """`!function module.name` of a YAML file, not loaded."""


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
    for name in entries(config.pop("include", None)):
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
    built_in, relative = built_in_tasks(), not os.path.isabs(name)
    beside = Path(os.path.normpath(path.parent / name))
    if relative and beside.is_file() and inside(beside, folder):
        return beside
    if built_in is None and relative and not beside.exists():
        return None
    if built_in is not None:
        for target in (beside, Path(os.path.normpath(built_in / name))):
            if target.is_file() and inside(target, built_in):
                return target
    raise ValueError(
        f"{path}: include {name!r} is neither a file of {str(folder)!r} nor one of lm-eval's tasks"
        "; copy it into the folder, and write its path relative to the including file"
    )


def inside(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def built_in_tasks() -> Path | None:
    """Return lm-eval's folder of tasks without importing lm-eval."""
    spec = find_spec("lm_eval")
    return Path(spec.origin).parent / "tasks" if spec and spec.origin else None


def definition_line(name: str) -> re.Pattern[str]:
    """Return the pattern of the line by which a YAML file defines a task or group."""
    return re.compile(
        rf"^[\"']?(?:task|group)[\"']?\s*:\s*[\"']?{re.escape(name)}[\"']?\s*$", re.MULTILINE
    )


def entries(value: Any) -> list:
    """Return the entries of an lm-eval key that takes one entry or a list."""
    return value if isinstance(value, list) else [] if value is None else [value]


def files_below(folder: str, ending: str) -> list[str]:
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
