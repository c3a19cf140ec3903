"""Values of the config that name a user's own function: their form, their file, and whether the
function is in it. Nothing of the file runs here.
"""

import ast
from collections.abc import Iterable

from pollination.core.artifacts import digest
from pollination.core.userfile import FORM, is_own, split
from pollination.plan.config.loading import is_file
from pollination.plan.config.values import nearest


def code_digests(paths: Iterable[str]) -> dict[str, str]:
    """Digest of each file of a user's code, for the params of the job that runs it.

    Snakemake compares times of inputs first: a file may be replaced by an older one.
    """
    return {path: digest(path) for path in paths if is_file(path)}


def check_form(key: str, value: str, table: dict, what: str, mistakes: list[str]) -> bool:
    """Whether a value is an entry of `table` or of the form path/to/file.py:function."""
    if value in table or is_own(value):
        return check_braces(key, value, mistakes)
    allowed = ", ".join([*sorted(table), FORM])
    mistakes.append(
        f"{key}: {value!r} is no {what}{nearest(value, list(table))}; allowed: {allowed}"
    )
    return False


def check_braces(key: str, path: str, mistakes: list[str]) -> bool:
    """Whether a path of the config can be an input: in Snakemake braces enclose a wildcard."""
    if set(path) & set("{}"):
        mistakes.append(f"{key}: {path!r} holds a brace; rename the file or folder")
    return not set(path) & set("{}")


def check_file(key: str, value: str, mistakes: list[str]) -> None:
    """The file of an own function is there, and it defines the function."""
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
        mistakes.append(f"{key}: {path} is not readable as Python: {error}; correct the file")
    else:
        if function not in names and "*" not in names:
            mistakes.append(
                f"{key}: {path} holds no function {function!r}{nearest(function, sorted(names))}; "
                "add it or name another"
            )


def _names(tree: ast.Module) -> set[str]:
    """All names that a module defines; '*' where it imports names that it does not list."""
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
