"""Compare the code that a job runs with the code that its driver pinned (pin.py).

A job compares all files before it imports most of them, and each module again at its import. A
record names the digest of the code (`results`).
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from importlib.abc import MetaPathFinder
from pathlib import Path

from pollination import ROOT
from pollination.core import artifacts
from pollination.core.sanitize import reason

VARIABLE = "POLLINATION_PIN"  # an environment variable of jobs: the folder of their pin
PARTS = ("Snakefile", "rules", "workflow/scripts", "workflow/schemas", "pollination")
ENDINGS = (".py", ".smk", ".yaml")
# The module of a figure is an input of its rule, and no job imports cli.
APART = ("pollination/figures/", "pollination/cli/")
PAUSE_S = 1.0  # editors replace a file in two steps
NAMED = 3  # files that a message names
AGAIN = "let snakemake end, then type the same command again"


def files() -> dict[str, str]:
    """Return the digest of each file of the code that runs here, by its path in the checkout."""
    root, found = str(ROOT), {}
    for part in PARTS:
        path = os.path.join(root, part)
        names = [path] if os.path.isfile(path) else []
        for place, folders, inside in os.walk(path):
            folders[:] = [name for name in folders if not name.startswith((".", "__"))]
            names += [
                os.path.join(place, name)
                for name in inside
                if name.endswith(ENDINGS) and not name.startswith(".")
            ]
        for name in names:
            # A file may be deleted at this moment.
            with suppress(FileNotFoundError), open(name, "rb") as file:
                found[name[len(root) + 1 :]] = hashlib.sha256(file.read()).hexdigest()
    return found


def digest(code: dict[str, str]) -> str:
    """Return the digest of the whole code."""
    return hashlib.sha256(json.dumps(sorted(code.items())).encode()).hexdigest()


def results(code: dict[str, str]) -> str:
    """Return the digest of the code that results depend on: all but the figures and commands."""
    return digest({name: one for name, one in code.items() if not name.startswith(APART)})


def different(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Return the files that two codes do not share."""
    return sorted(name for name in first | second if first.get(name) != second.get(name))


def few(names: list[str]) -> str:
    """Return the first names, and the number of the others."""
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def read(folder: Path) -> dict:
    """Return the pin in a folder. ValueError: it is gone, or differs from the folder's name."""
    return json.loads(_whole(folder / "pin.json", folder.name))


def read_config(folder: Path) -> dict:
    """Return the config of a pin. ValueError: it is gone, or differs from its digest."""
    return json.loads(_whole(folder / "config.json", read(folder)["config"]))


def _whole(path: Path, expected: str) -> bytes:
    """Return the bytes of a file of a pin, whose digest begins with `expected`."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path}: the pinned file {expected[:12]} of this job cannot be read "
            f"({reason(error)}); {AGAIN}"
        ) from None
    actual = hashlib.sha256(text).hexdigest()
    if not actual.startswith(expected):
        raise ValueError(
            f"{path}: the pinned file was changed: its digest is {actual[:12]}, not "
            f"{expected[:12]}; {AGAIN}"
        )
    return text


def check(pinned: dict) -> None:
    """Raise ValueError if a file of the code or of the user's code differs from the pinned one."""
    if not _changed(pinned):
        return
    time.sleep(PAUSE_S)
    if names := _changed(pinned):
        raise ValueError(_said(pinned, names))


def _changed(pinned: dict) -> list[str]:
    return different(files() | digests(pinned["own"]), pinned["code"] | pinned["own"])


def digests(paths: Iterable[str]) -> dict[str, str]:
    """Return the digest of each file that exists."""
    return {path: artifacts.digest(path) for path in paths if os.path.isfile(path)}


def _said(pinned: dict, names: list[str]) -> str:
    if pinned["root"] == str(ROOT):
        text = f"the code has changed since snakemake started: {few(names)}"
    else:
        text = f"this job has other code ({ROOT}) than snakemake ({pinned['root']}): {few(names)}"
    now = digest(files() | digests(pinned["own"]))
    then = digest(pinned["code"] | pinned["own"])
    return f"{text}; its digest is {now[:12]}, the pinned one {then[:12]}; {AGAIN}"


class Guard(MetaPathFinder):
    """Compares each module of the package with the pinned code when a job imports it."""

    def __init__(self, pinned: dict) -> None:
        self.pinned = pinned

    def find_spec(self, name: str, path=None, target=None) -> None:
        """Raise ValueError if the module's file differs; else leave it to the other finders."""
        if name.split(".")[0] != "pollination":
            return
        stem = ROOT.joinpath(*name.split("."))
        for file in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")):
            place = file.relative_to(ROOT).as_posix()
            if file.is_file() and artifacts.digest(file) != self.pinned["code"].get(place):
                raise ValueError(_said(self.pinned, [place]))


def of_job() -> str:
    """Return the digest of the code that a job runs, after comparing it with the pinned code.

    ValueError: the code differs, or the pin is gone. A job that no driver started has no pin.
    """
    folder = os.environ.get(VARIABLE)
    if folder is None:
        return results(files())
    pinned = read(Path(folder))
    check(pinned)
    sys.meta_path.insert(0, Guard(pinned))
    return results(pinned["code"])
