"""Load a user's own function, which the config names as `path/to/file.py:function`.

The path is relative to the folder where snakemake starts. Only jobs run the file. The file is an
input of the job, so the job's record has its digest. Files that it imports are not recorded.
"""

import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pollination.core import sanitize

FORM = "path/to/file.py:function"
PATTERN = re.compile(r"(?P<path>.+\.py):(?P<function>[^\W\d]\w*)")


def is_own(text: str) -> bool:
    """Return whether a config value names a user's function."""
    return PATTERN.fullmatch(text) is not None


def split(text: str) -> tuple[str, str]:
    """Return (path, function) of a value that `is_own`, with '~' replaced by the home folder."""
    match = PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} does not name a function; allowed: {FORM}")
    return os.path.expanduser(match["path"]), match["function"]


@dataclass(frozen=True)
class UserFunction:
    """A user's function. A failed call raises ValueError with key, file, line and reason."""

    key: str
    """The config key that names it."""
    text: str
    """The value of that key."""
    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        try:
            return self.function(*arguments)
        except (Exception, SystemExit) as error:
            raise ValueError(_failure(self.key, self.text, error)) from error

    def refuse(self, returned: Any, allowed: str) -> ValueError:
        """Return the error for a call that returned an unusable value."""
        try:
            shown = f"{returned!r:.200}"
        except Exception:  # a class of the user may have a faulty __repr__
            shown = f"a {type(returned).__name__}"
        return ValueError(
            f"{self.key}: {self.text} returned {shown}; allowed: {allowed}; correct the "
            "file and run snakemake again"
        )


def load(key: str, text: str) -> UserFunction:
    """Return the function that a config value names.

    Raises ValueError if the file cannot be read or run, or does not define the function.
    """
    path, name = split(text)
    try:
        module = _module(path)
    except (Exception, SystemExit) as error:
        raise ValueError(_failure(key, text, error)) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(
            f"{key}: {text}: {path} does not define a function {name!r}; add it or name another "
            "function"
        )
    return UserFunction(key, text, function)


def _module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path, path)
    if spec is None or spec.loader is None:
        raise ValueError("Python cannot load the file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path] = module  # dataclasses look up a class's module there
    # Python's bytecode cache would confuse two versions saved within one second.
    code = compile(Path(path).read_bytes(), path, "exec", dont_inherit=True)
    exec(code, module.__dict__)
    return module


def _failure(key: str, text: str, error: BaseException) -> str:
    path, _ = split(text)
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == path
    ]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines.append(error.lineno)
    where = f", line {lines[-1]}" if lines else ""
    reason = error.msg if isinstance(error, SyntaxError) else sanitize.reason(error)
    return (
        f"{key}: {text}{where}: {type(error).__name__}: {reason}; correct the file and run "
        "snakemake again"
    )
