"""Slurm's commands with a time limit, and the queue that squeue lists."""

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

FORMAT = "JobID:|,State:|,RestartCnt:|,Comment:|,Reason:|"
ANSWER_S = 60.0


class NoAnswer(Exception):
    """A command of Slurm failed, or did not end in time; the message is one line."""


@dataclass(frozen=True)
class Entry:
    """A job as squeue lists it."""

    state: str
    restarts: int
    comment: str
    reason: str


def call(
    command: str | Sequence[str], answer_s: float = ANSWER_S, script: str | None = None
) -> str:
    """Return what a command prints. Raises NoAnswer.

    The command runs in a session of its own: Ctrl-C does not break off a submission.
    """
    name = (command.split() if isinstance(command, str) else command)[0]
    try:
        process = subprocess.Popen(
            command,
            shell=isinstance(command, str),
            text=True,
            errors="replace",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise NoAnswer(f"{name}: {error.strerror or error}") from None
    try:
        out, err = process.communicate(script, timeout=answer_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise NoAnswer(f"{name} did not answer within {answer_s:.0f} s") from None
    if process.returncode or "submission failed" in err:
        raise NoAnswer(one_line(err or out) or f"{name} ended with status {process.returncode}")
    return out


def one_line(text: str) -> str:
    """Return the messages of a Slurm command in one line, without repeated prefixes."""
    lines = [line.removeprefix("error: ") for line in map(_bare, text.splitlines()) if line]
    return "; ".join(dict.fromkeys(lines))


def _bare(line: str) -> str:
    for name in ("sbatch: ", "squeue: ", "scancel: "):
        line = line.removeprefix(name)
    return line.strip()


def queue(name: str) -> dict[str, Entry]:
    """Return the jobs of a name by their id, ended jobs included. Raises NoAnswer."""
    words = ("squeue", "--noheader", "--states=all", f"--name={name}", f"--Format={FORMAT}")
    entries = {}
    for line in call(words).splitlines():
        try:
            job, state, restarts, comment, reason = line.split("|", 4)
            reason = reason.strip("| ").replace("_", " ")
            entries[job.strip()] = Entry(state.strip(), int(restarts), comment, reason)
        except ValueError:
            raise NoAnswer(f"squeue printed a line of another form: {line[:100]!r}") from None
    return entries
