"""Read the time limit of the Slurm job that this process runs in."""

import os
import re
import subprocess
import time

# A job stops this long before its time limit, or at 90 % of the limit if that comes first.
MARGIN_S = 120.0


def parse_duration(text: str) -> float | None:
    """Return the seconds of Slurm's [days-][hours:]minutes:seconds; None for UNLIMITED etc."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def seconds_left() -> float | None:
    """Return the seconds until Slurm ends this job; None if unknown, unlimited or no Slurm job."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None
    try:  # ask each time, because the limit can be extended
        words = ("squeue", "--noheader", "--jobs", job, "--format", "%L")
        return parse_duration(
            subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout
        )
    except (OSError, subprocess.SubprocessError):
        end = os.environ.get("SLURM_JOB_END_TIME")
        return float(end) - time.time() if end else None


class Deadline:
    """Truthy shortly before the job's time limit, after asking Slurm once more."""

    def __init__(self) -> None:
        left_s = seconds_left()
        self.margin_s = min(MARGIN_S, (left_s or 0.0) / 10)
        self._set(left_s)

    def _set(self, left_s: float | None) -> None:
        self.at_s = None if left_s is None else time.monotonic() + left_s - self.margin_s

    def __bool__(self) -> bool:
        if self.at_s is not None and time.monotonic() >= self.at_s:
            self._set(seconds_left())
            return self.at_s is not None and time.monotonic() >= self.at_s
        return False
