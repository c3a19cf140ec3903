"""Write the lock files of `make lock` from the dependencies that pyproject.toml declares.

requirements.txt     pins every package that a run needs, dependencies of packages included
requirements-dev.txt adds the packages of the extra `dev`, for tests and linters
pollination.yaml     is requirements.txt as a conda environment, for `snakemake --sdm conda`
vllm.yaml            is another one, for the jobs that write text with `generate.engine: vllm`

Each file serves Linux (x86_64, aarch64) and macOS (arm64), vllm.yaml only Linux: uv resolves all
platforms together and writes a marker where they differ. A locked version stays, unless
pyproject.toml excludes it or the option `--upgrade` (or `--upgrade-package NAME`) is given.

There are no pin files for each platform (pollination.linux-64.pin.txt): they list conda packages
alone, and Snakemake would then install none of the pip packages, which are all that a run needs.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import yaml

ENVS = Path(__file__).parent
PYTHON = "3.11"
COMMENT = "# Written by `make lock` from pyproject.toml. Do not edit."
# CUDA packages: torch's CUDA wheels require exact versions themselves; CPU builds need none.
CUDA = ("cuda-", "nvidia-", "triton==")
VLLM = "vllm==0.33.0"  # pollination/models/vllm_engine.py names the parts of its API that it calls
# vLLM chooses the versions of these; the two plugins, which only submit jobs, would exclude them.
SUBMIT = ("snakemake-executor-plugin-slurm", "snakemake-executor-plugin-slurm-jobstep")
NOT_WITH_VLLM = ("torch", "transformers", "numpy", *SUBMIT)


def resolve(out: Path, *options: str, source: str = "pyproject.toml") -> list[str]:
    """Return the pins without CUDA packages, as `name==version` or `name==version ; marker`.

    uv keeps the versions that are in `out`, and writes the new pins there.
    """
    command = [sys.executable, "-m", "uv", "pip", "compile", source, "--universal"]
    # One version for all Pythons and platforms, so that all of them compute the same numbers.
    versions = ["--python-version", PYTHON, "--fork-strategy", "fewest"]
    form = ["--no-header", "--no-annotate", "--quiet", "--output-file", str(out)]
    done = subprocess.run([*command, *versions, *form, *options], cwd=ENVS.parent)
    if done.returncode:
        sys.exit(f"uv could not resolve the dependencies of {source}")
    return [line for line in pins(out) if not line.startswith(CUDA)]


def pins(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1].isalnum()]


def write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join([COMMENT, *lines, ""]), encoding="utf-8")


def with_vllm() -> list[str]:
    """Return the dependencies of pyproject.toml and vLLM."""
    declared = tomllib.loads((ENVS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    dependencies = declared["project"]["dependencies"]
    kept = (one for one in dependencies if re.split("[=<>]", one)[0] not in NOT_WITH_VLLM)
    return [*kept, VLLM]


def write_environment(path: Path, packages: list[str]) -> None:
    """Write a conda environment."""
    environment = {
        "channels": ["conda-forge", "nodefaults"],
        "dependencies": [f"python={PYTHON}", "pip", {"pip": packages}],
    }
    write(path, yaml.safe_dump(environment, sort_keys=False, width=1000).splitlines())


def main(*options: str) -> None:
    """Write the lock files; uv receives `options`."""
    run, dev = ENVS / "requirements.txt", ENVS / "requirements-dev.txt"
    with tempfile.TemporaryDirectory() as folder:
        everything = Path(folder, "everything.txt")
        write(everything, pins(run) + pins(dev))
        for_dev = resolve(everything, "--extra", "dev", *options)
        for_run = resolve(Path(folder, "run.txt"), "--constraints", str(everything))
        source, for_vllm = Path(folder, "vllm.in"), Path(folder, "vllm.txt")
        write(source, with_vllm())
        write(for_vllm, for_run)
        resolve(for_vllm, *options, source=str(source))
        write_environment(ENVS / "vllm.yaml", pins(for_vllm))  # CUDA too: vLLM needs it
    write(run, for_run)
    write(dev, ["-r requirements.txt", *(pin for pin in for_dev if pin not in for_run)])
    write_environment(ENVS / "pollination.yaml", for_run)


if __name__ == "__main__":
    main(*sys.argv[1:])
