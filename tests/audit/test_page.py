"""docs/audit.md names every target and claim; its functions, tests and tolerances exist."""

import ast
import re
from functools import cache
from importlib import import_module

import pytest

from pollination.plan.claims import CLAIMS
from pollination.plan.config.targets import TARGETS
from tests.audit import made
from tests.conftest import ROOT

HERE = ROOT / "tests/audit"
PAGE = (ROOT / "docs/audit.md").read_text(encoding="utf-8")


def tables() -> list[list[dict[str, str]]]:
    """The tables of the page: rows as column -> cell, without code marks."""
    found = []
    for block in re.findall(r"(?m)(?:^\|.*\n)+", PAGE):
        lines = [
            [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
            for line in block.splitlines()
        ]
        found.append([dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]])
    return found


LEVELS, *LISTED = tables()
ROWS = [row for table in LISTED for row in table]
TESTED = [row for row in ROWS if row["test"] != "–"]


def test_every_target_and_claim_has_a_row():
    assert {row["target"] for row in ROWS if row.get("target")} - {"a drawing"} == set(TARGETS)
    assert {row["claim"] for row in ROWS if row.get("claim")} - {"all"} == {c.id for c in CLAIMS}
    for claim in CLAIMS:
        rows = [row["function"] for row in ROWS if row.get("claim") == claim.id]
        assert f"analysis.claims.{claim.test}" in rows, claim.id


def test_every_figure_and_table_of_the_papers_has_a_row():
    """Numbers without a gap: study A has figures 1 to 12 and tables 1 to 5, study B 21 and 1."""
    for study, figures, count in (("A", 12, 5), ("B", 21, 1)):
        for kind, last in (("figures", figures), ("tables", count)):
            part = re.split(r"(?m)^## ", PAGE)
            (section,) = [text for text in part if text.startswith(f"Study {study}: {kind}\n")]
            numbers = {int(n) for n in re.findall(rf"(?m)^\| {kind[:-1]} (\d+) \|", section)}
            assert numbers == set(range(1, last + 1))


@pytest.mark.parametrize("name", sorted({row["function"] for row in TESTED}))
def test_functions_exist(name):
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        path = ROOT.joinpath("pollination", *parts[:end])
        if path.with_suffix(".py").is_file():
            found = import_module(".".join(["pollination", *parts[:end]]))
            for attribute in parts[end:]:
                found = getattr(found, attribute)
            assert callable(found)
            return
    raise AssertionError(f"{name} has no module")


@cache
def defined(file: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


@cache
def names(file: str, function: str) -> set[str]:
    """Names in a test and in the functions of its file that it uses."""
    functions, found, left = defined(file), set(), [function]
    while left:
        for node in ast.walk(functions[left.pop()]):
            name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)
            if name and name not in found:
                found.add(name)
                left += [name] if name in functions else []
    return found


def place(row: dict[str, str]) -> tuple[str, str]:
    file, _, function = row["test"].partition("::")
    return f"test_{file}.py", f"test_{function}"


def test_tests_exist_and_are_collected(request):
    wanted = {place(row) for row in TESTED}
    collected = set()
    for file in sorted({file for file, _ in wanted}):
        module = pytest.Module.from_parent(request.session, path=HERE / file)
        collected |= {(file, item.originalname) for item in module.collect()}
    assert wanted <= collected
    assert collected <= wanted, "these tests have no row"
    assert {path.name for path in HERE.glob("test_*.py")} - {"test_page.py"} == {
        file for file, _ in wanted
    }


def test_tolerances_are_those_of_the_tests():
    levels = {row["level"]: row for row in LEVELS}
    for row in LEVELS:
        if row["constant"]:
            assert float(row["value"]) == getattr(made, row["constant"])
    for row in TESTED:
        for level in row["tolerance"].split(", "):
            constant = levels[level]["constant"]
            assert not constant or constant in names(*place(row)), row
