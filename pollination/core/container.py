"""The image in which jobs run with `snakemake --sdm apptainer` (docs/howto/container.md)."""

import os
import shutil
import subprocess
from pathlib import Path

IMAGE = "envs/pollination.sif"
LOCK = "envs/requirements.txt"
BUILD = f"apptainer build {{}}{IMAGE} envs/pollination.def"
HELD = "/opt/pollination/requirements.txt"
"""Where the image holds the lock file that its packages come from."""


def image(root: Path, compare: bool) -> str:
    """Return the path of the image, from here; its jobs get the GPUs of the machine.

    A relative path lets users move the project: to Snakemake, another path is another environment.
    `compare` starts the image once. ValueError: there is none, Apptainer cannot start it, or its
    packages are not those of the lock file.
    """
    path = root / IMAGE
    program = shutil.which("apptainer") or shutil.which("singularity")
    if program is None and compare:
        raise ValueError(
            "--sdm apptainer: neither apptainer nor singularity is on the PATH; install Apptainer, "
            "or leave out --sdm apptainer"
        )
    if not path.is_file():
        raise ValueError(f"--sdm apptainer: there is no image {path}; type: {BUILD.format('')}")
    if program and compare and (root / LOCK).read_text(encoding="utf-8") != _held(path, program):
        build = BUILD.format("--force ")
        raise ValueError(f"--sdm apptainer: {path} was not built from {LOCK}; type: {build}")
    for program in ("APPTAINER", "SINGULARITY"):
        # The option --nv: without it, jobs would not see the GPU and compute on the CPU.
        os.environ.setdefault(f"{program}_NV", "1")
    return os.path.relpath(path)


def _held(path: Path, program: str) -> str:
    done = subprocess.run([program, "exec", str(path), "cat", HELD], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"--sdm apptainer: {program} cannot read {HELD} in {path}: {last}")
    return done.stdout
