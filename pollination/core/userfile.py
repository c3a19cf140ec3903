"""A user's own function, which a config names as `path/to/file.py:function`.

The path is relative to the folder that snakemake is started in. A job loads the file; planning only
reads its name. The file is an input of the job, so its digest is part of the job's record. A file
that it imports in turn is not.
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

from pollination.core.job import Stopped

FORM = "path/to/file.py:function"
PATTERN = re.compile(r"(?P<path>.+\.py):(?P<function>[^\W\d]\w*)")


def is_own(text: str) -> bool:
    """Whether a value of the config names a user's function."""
    return PATTERN.fullmatch(text) is not None


def split(text: str) -> tuple[str, str]:
    """(path, function) of a value that `is_own`; '~' in the path is replaced by the user's home."""
    match = PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not of the form {FORM}")
    return os.path.expanduser(match["path"]), match["function"]


@dataclass(frozen=True)
class UserFunction:
    """A user's function. A call that fails raises ValueError: key, file, function, line, reason."""

    key: str
    """The key of the config that names it."""
    text: str
    """The value of that key."""
    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        try:
            return self.function(*arguments)
        except Stopped:
            raise
        except (Exception, SystemExit) as error:
            raise ValueError(_failure(self.key, self.text, error)) from error

    def refuse(self, returned: Any, allowed: str) -> ValueError:
        """The error of a call that returned what cannot be used."""
        try:
            shown = f"{returned!r:.200}"
        except Exception:  # of the user's own class
            shown = f"a {type(returned).__name__}"
        return ValueError(
            f"{self.key}: {self.text} returned {shown}; allowed: {allowed}; correct the "
            "file and run snakemake again"
        )


def load(key: str, text: str) -> UserFunction:
    """The function that a value of the config names.

    ValueError: the file cannot be read or run, or it holds no such function.
    """
    path, name = split(text)
    try:
        module = _module(path)
    except Stopped:
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(_failure(key, text, error)) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(
            f"{key}: {text}: {path} holds no function {name!r}; add it or name another"
        )
    return UserFunction(key, text, function)


def _module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path, path)
    if spec is None or spec.loader is None:
        raise ValueError("Python cannot load the file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path] = module  # where dataclasses look for a class's module
    # The bytes are compiled here: Python's cache takes two versions of one second for the same.
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
    reason = error.msg if isinstance(error, SyntaxError) else error
    return (
        f"{key}: {text}{where}: {type(error).__name__}: {reason}; correct the file and run "
        "snakemake again"
    )
