"""The data sets that `pollination data` downloads: one table, plan/datasets.yaml."""

import os
import shlex
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import yaml

TABLE = Path(__file__).with_suffix(".yaml")


@cache
def datasets() -> dict[str, dict]:
    """Return the table: name of a data set -> source, licence, size and files."""
    return yaml.safe_load(TABLE.read_text(encoding="utf-8"))


def dataset_of(path: str, folder: str) -> str | None:
    """Return the data set that writes `path` into the data folder; None if none does.

    `path` may be a file, a folder or a glob.
    """
    if not path:
        return None
    inside = os.path.relpath(os.path.expanduser(path), os.path.expanduser(folder))
    for name, entry in datasets().items():
        for file in entry["files"]:
            folder_of_file = os.path.dirname(file)
            if (
                inside == folder_of_file
                or ("/" in inside and inside[0] != "*" and fnmatch(file, inside))
                or f"{inside}/".startswith(f"{file}/")
            ):
                return name
    return None


def remedy(path: str, folder: str) -> str:
    """Return what to do about a missing `path` of a config whose data folder is `folder`."""
    name = dataset_of(path, folder)
    if name is None:
        return "Correct the path, or set `data` to the folder that holds it"
    into = "" if os.path.normpath(folder) == "data" else f" --into {shlex.quote(folder)}"
    return f"Run `pollination data {name}{into}`, or set `data` to the folder that holds it"
