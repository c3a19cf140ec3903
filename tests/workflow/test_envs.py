"""pyproject.toml declares what the code imports; the lock files pin what is installed."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, version

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PLATFORMS = {
    "Linux x86_64": {"sys_platform": "linux", "platform_machine": "x86_64"},
    "Linux aarch64": {"sys_platform": "linux", "platform_machine": "aarch64"},
    "macOS arm64": {"sys_platform": "darwin", "platform_machine": "arm64"},
}

PLUGINS = {
    "snakemake_logger_plugin_pollination",
    "snakemake_executor_plugin_pollination_slurm",
}


def lines(name: str) -> list[str]:
    return [line for line in (ROOT / "envs" / name).read_text().splitlines() if "==" in line]


def locked(name: str) -> dict[str, Requirement]:
    return {canonicalize_name(one.name): one for one in map(Requirement, lines(name))}


def pin(requirement: Requirement) -> str:
    return next(iter(requirement.specifier)).version


def imported(folder: str) -> set[str]:
    """The top-level modules that the Python files and rules of a folder import."""
    names = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
    for path in (ROOT / folder).rglob("*.smk"):
        names |= set(re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE))
    own = {"pollination", *PLUGINS, "benchmarks", "tests"}
    return names - set(sys.stdlib_module_names) - own


@pytest.mark.parametrize(
    ("folders", "extras"),
    [
        (("pollination", "rules", "workflow"), ()),
        (("tests", "benchmarks", "envs"), PROJECT["optional-dependencies"]["dev"]),
    ],
)
def test_every_import_is_declared(folders, extras):
    declared = {
        canonicalize_name(Requirement(line).name) for line in [*PROJECT["dependencies"], *extras]
    }
    distributions = packages_distributions()
    for name in set().union(*map(imported, folders)):
        assert declared & set(map(canonicalize_name, distributions[name])), name


def test_the_lock_fits_the_declaration_on_every_platform():
    run, dev = locked("requirements.txt"), locked("requirements-dev.txt")
    for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        wanted = Requirement(line)
        got = (run | dev)[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(pin(got)), f"{line}: run make lock"
        for platform, values in PLATFORMS.items():
            assert got.marker is None or got.marker.evaluate(values), f"{line} on {platform}"


def test_the_lock_holds_what_packages_need_and_nothing_of_this_machine():
    pins = locked("requirements.txt")
    assert {"huggingface-hub", "typing-extensions", "jinja2"} < set(pins)
    assert not [name for name in pins if name.startswith(("nvidia-", "cuda-", "triton"))]
    assert f" torch=={pin(pins['torch'])} " in (ROOT / "Makefile").read_text()
    for name in ("requirements.txt", "requirements-dev.txt", "pollination.yaml", "vllm.yaml"):
        text = (ROOT / "envs" / name).read_text()
        assert not re.search(r"://|--hash|--index|--find-links|\+cpu|file:| @ ", text), name


def test_conda_and_pip_pin_the_same_versions():
    dependencies = yaml.safe_load((ROOT / "envs/pollination.yaml").read_text())["dependencies"]
    conda = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert conda == lines("requirements.txt")


def test_the_environment_of_vllm_differs_only_where_vllm_demands_it():
    environment = yaml.safe_load((ROOT / "envs/vllm.yaml").read_text())["dependencies"]
    assert environment[:2] == [f"python={PROJECT['requires-python'].removeprefix('>=')}", "pip"]
    found = {canonicalize_name(one.name): one for one in map(Requirement, environment[2]["pip"])}
    declared = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    submit = {"snakemake-executor-plugin-slurm", "snakemake-executor-plugin-slurm-jobstep"}
    assert declared - set(found) == submit
    assert {"vllm", "nvidia-cudnn-frontend"} < set(found)
    others = {
        name
        for name in declared & set(found)
        if pin(found[name]) != pin(locked("requirements.txt")[name])
    }
    assert others <= {"torch", "transformers", "numpy"}, "run make lock"


def test_what_is_locked_is_installed():
    for name, one in (locked("requirements.txt") | locked("requirements-dev.txt")).items():
        if one.marker is None or Marker(str(one.marker)).evaluate():
            assert version(name).split("+")[0] == pin(one), name


def test_python_is_the_one_that_is_locked_for():
    needed = PROJECT["requires-python"].removeprefix(">=")
    assert f"python={needed}" in (ROOT / "envs/pollination.yaml").read_text()
    assert f'PYTHON = "{needed}"' in (ROOT / "envs/lock.py").read_text()
