"""Wrappers of Slurm's commands, first in the PATH of the driver, that fail or wait on demand."""

import shutil
import stat
from pathlib import Path

STATUS = ("squeue", "sacct", "scontrol")
COMMANDS = (*STATUS, "sbatch")
SLOW_S = 5
UNREACHABLE = "error: Unable to contact slurm controller (connect failure)"
REFUSALS = (
    "Batch job submission failed: Job violates accounting/QOS policy (job submit limit)",
    "Batch job submission failed: Resource temporarily unavailable",
    "Batch job submission failed: Unable to contact slurm controller (connect failure)",
)

# rmdir and mkdir are atomic, so exactly every second call fails.
WRAPPER = """\
#!/bin/sh
if [ -e "{folder}/fails.{name}" ]; then cat "{folder}/fails.{name}" >&2; exit 1; fi
if [ -e "{folder}/slow" ]; then
  sleep {slow_s}
  if rmdir "{folder}/odd" 2> /dev/null; then echo "{name}: {unreachable}" >&2; exit 1; fi
  mkdir "{folder}/odd" 2> /dev/null
fi
exec "{real}" "$@"
"""


def wrap(folder: Path, commands: tuple[str, ...] = COMMANDS, slow_s: float = SLOW_S) -> None:
    """Write the wrappers. A command that this machine lacks gets none."""
    folder.mkdir()
    for name in commands:
        if real := shutil.which(name):
            path = folder / name
            path.write_text(
                WRAPPER.format(
                    folder=folder, name=name, real=real, slow_s=slow_s, unreachable=UNREACHABLE
                )
            )
            path.chmod(path.stat().st_mode | stat.S_IXUSR)


def fail(folder: Path, commands: tuple[str, ...], message: str) -> None:
    for name in commands:
        (folder / f"fails.{name}").write_text(f"{name}: {message}\n")


def slow(folder: Path) -> None:
    (folder / "slow").touch()


def heal(folder: Path) -> None:
    """All commands work again at once, but for calls that wait already."""
    for path in (*folder.glob("fails.*"), folder / "slow"):
        path.unlink(missing_ok=True)
