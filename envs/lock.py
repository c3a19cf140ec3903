"""Write the lock files of `make lock` from the dependencies that pyproject.toml declares.

requirements.txt     pins every package that a run needs, dependencies of packages included
requirements-dev.txt adds the packages of the extra `dev`, for tests and linters
pollination.yaml     is requirements.txt as a conda environment, for `snakemake --sdm conda`

Each file serves Linux (x86_64, aarch64) and macOS (arm64): uv resolves all platforms together and
writes a marker where they differ. A locked version stays, unless pyproject.toml excludes it or the
option `--upgrade` (or `--upgrade-package NAME`) is given.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ENVS = Path(__file__).parent
PYTHON = "3.11"
COMMENT = "# Written by `make lock` from pyproject.toml. Do not edit."
# CUDA packages: torch's CUDA wheels require exact versions themselves; CPU builds need none.
CUDA = ("cuda-", "nvidia-", "triton==")


def resolve(out: Path, *options: str) -> list[str]:
    """Return the pins without CUDA packages, as `name==version` or `name==version ; marker`.

    uv keeps the versions that are in `out`, and writes the new pins there.
    """
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--universal"]
    # One version for all Pythons and platforms, so that all of them compute the same numbers.
    versions = ["--python-version", PYTHON, "--fork-strategy", "fewest"]
    form = ["--no-header", "--no-annotate", "--quiet", "--output-file", str(out)]
    done = subprocess.run([*command, *versions, *form, *options], cwd=ENVS.parent)
    if done.returncode:
        sys.exit("uv could not resolve the dependencies of pyproject.toml")
    return [line for line in pins(out) if not line.startswith(CUDA)]


def pins(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1].isalnum()]


def write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join([COMMENT, *lines, ""]), encoding="utf-8")


def main(*options: str) -> None:
    """Write the three lock files; uv receives `options`."""
    run, dev = ENVS / "requirements.txt", ENVS / "requirements-dev.txt"
    with tempfile.TemporaryDirectory() as folder:
        everything = Path(folder, "everything.txt")
        write(everything, pins(run) + pins(dev))
        for_dev = resolve(everything, "--extra", "dev", *options)
        for_run = resolve(Path(folder, "run.txt"), "--constraints", str(everything))
    write(run, for_run)
    write(dev, ["-r requirements.txt", *(pin for pin in for_dev if pin not in for_run)])
    environment = {
        "channels": ["conda-forge", "nodefaults"],
        "dependencies": [f"python={PYTHON}", "pip", {"pip": for_run}],
    }
    text = yaml.safe_dump(environment, sort_keys=False, width=1000)
    write(ENVS / "pollination.yaml", text.splitlines())


if __name__ == "__main__":
    main(*sys.argv[1:])
