"""The nine packages: which of them may import which, what the rules see, and what they never load.

Imports are read from the source (`ast`), so a lazy import counts too.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "pollination"
LAYERS = ("core", "plan", "data", "models", "evolution", "evaluation", "analysis", "figures", "cli")
MAY_IMPORT = {  # docs/design.md
    "core": (),
    "plan": ("core",),
    "data": ("core", "plan"),
    "models": ("core", "plan", "data"),
    "evolution": ("core", "plan", "data", "models"),
    "evaluation": ("core", "plan", "data", "models", "evolution"),
    "analysis": ("core", "plan", "data"),
    "figures": ("core", "plan", "analysis"),
    "cli": LAYERS,
}
HEAVY = ("torch", "transformers", "datasets", "lm_eval", "pandas", "matplotlib")


def imported(path: Path) -> set[str]:
    """The modules of this project that a file imports, by dotted name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports are not used here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "pollination"}


def modules(package: str) -> dict[str, Path]:
    files = (PACKAGE / package).rglob("*.py")
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


def test_the_package_is_these_nine_folders():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == set(LAYERS) == set(MAY_IMPORT)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("package", LAYERS)
def test_no_import_runs_upwards(package):
    allowed = {package, *MAY_IMPORT[package]}
    upwards = {
        f"{name} imports {target}"
        for name, path in modules(package).items()
        for target in imported(path)
        if target.split(".")[1] in LAYERS and target.split(".")[1] not in allowed
    }
    assert not upwards


def test_no_module_imports_another_in_a_loop():
    every = {name: path for package in LAYERS for name, path in modules(package).items()}
    plain = {name.removesuffix(".__init__"): name for name in every}
    graph = {}
    for name, path in every.items():
        targets = {
            plain.get(target) or plain.get(target.rpartition(".")[0]) for target in imported(path)
        }
        graph[name] = targets - {None, name}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " imports ".join([*way[way.index(name) :], name])
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_rules_import_core_and_plan_alone():
    for path in [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))]:
        lines = path.read_text().splitlines()
        ours = [
            line.split()[1]
            for line in lines
            if line.startswith(("from pollination", "import pollination"))
        ]
        assert all(name.split(".")[1] in ("core", "plan") for name in ours), path


def test_core_and_plan_load_nothing_heavy():
    names = [
        name.removesuffix(".__init__") for package in ("core", "plan") for name in modules(package)
    ]
    code = f"import sys, {', '.join(names)}; print(*({HEAVY} & sys.modules.keys()))"
    code = code.replace(str(HEAVY), str(set(HEAVY)))
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (loaded.returncode, loaded.stdout.strip()) == (0, ""), loaded.stderr


def test_tests_mirror_the_package():
    for path in (ROOT / "tests").rglob("test_*.py"):
        folder = path.relative_to(ROOT / "tests").parts[0]
        assert folder in (*LAYERS, "audit", "docs", "workflow", "test_layout.py"), path
