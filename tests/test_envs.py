"""The pip and conda pins agree, and they are what is installed."""

from importlib.metadata import version

import yaml

from tests.conftest import ROOT


def pins(lines: list[str]) -> dict[str, str]:
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def test_conda_and_pip_pin_the_same_versions():
    pip = pins((ROOT / "envs/requirements.txt").read_text().splitlines())
    dependencies = yaml.safe_load((ROOT / "envs/pollination.yaml").read_text())["dependencies"]
    conda = pins(next(entry["pip"] for entry in dependencies if isinstance(entry, dict)))
    assert conda == pip
    assert all(version(name).split("+")[0] == pin for name, pin in pip.items())
