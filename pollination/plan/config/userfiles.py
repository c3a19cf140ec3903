"""Check config values that name a user's own function: form, file and function.

The file is parsed here, but not run.
"""

import ast
from collections.abc import Iterable

from pollination.core.artifacts import digest
from pollination.core.sanitize import reason
from pollination.core.userfile import FORM, is_own, split
from pollination.plan.config.loading import is_file
from pollination.plan.config.values import nearest


def code_digests(paths: Iterable[str]) -> dict[str, str]:
    """Return the digest of each file of a user's code, for the params of the job that runs it.

    The params trigger a rerun even if the new file has an older time stamp than the old one.
    """
    return {path: digest(path) for path in paths if is_file(path)}


def check_form(key: str, value: str, table: dict, what: str, mistakes: list[str]) -> bool:
    """Return whether a value is an entry of `table` or has the form path/to/file.py:function."""
    if value in table or is_own(value):
        return check_braces(key, value, mistakes)
    allowed = ", ".join([*sorted(table), FORM])
    mistakes.append(
        f"{key}: {value!r} is not a {what}{nearest(value, list(table))}; allowed: {allowed}"
    )
    return False


def check_braces(key: str, path: str, mistakes: list[str]) -> bool:
    """Return whether a path contains no braces, which enclose wildcards in Snakemake."""
    if set(path) & set("{}"):
        mistakes.append(
            f"{key}: {path!r} contains a brace, which Snakemake reads as a wildcard; rename the "
            "file or folder"
        )
    return not set(path) & set("{}")


def check_file(key: str, value: str, mistakes: list[str]) -> None:
    """Check that the file of a user's function exists and defines the function."""
    path, function = split(value)
    if not is_file(path):
        mistakes.append(f"{key}: {value!r}: there is no file {path!r}; correct the path")
        return
    try:
        with open(path, "rb") as file:
            names = _names(ast.parse(file.read(), path))
    except SyntaxError as error:
        mistakes.append(f"{key}: {path}, line {error.lineno}: {error.msg}; correct the file")
    except (ValueError, OSError, RecursionError, MemoryError) as error:
        mistakes.append(
            f"{key}: {path} is not readable as Python: {reason(error)}; correct the file"
        )
    else:
        if function not in names and "*" not in names:
            mistakes.append(
                f"{key}: {path} does not define a function {function!r}"
                f"{nearest(function, sorted(names))}; add it or name another function"
            )


def _names(tree: ast.Module) -> set[str]:
    """Return all names that a module defines; '*' if it imports names by a star."""
    names = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
    return names
