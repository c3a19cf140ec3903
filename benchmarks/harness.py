"""Measure a row: our side and its peers take turns, each time in a fresh process.

A side of a row is a command. If its last line is JSON with `seconds` and `amount` (as with `call`),
the command has timed itself, without start and loading. Otherwise the whole process is timed as one
unit of work. Peak memory is that of the whole process: interpreter, libraries and model. It counts
from the parent's size, so this module imports nothing heavy.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent
OURS = "pollination"


class Absent(Exception):
    """A row lacks data; the message names it and the place where it was expected."""


@dataclass(frozen=True)
class Row:
    """One path and its peers.

    `sides` returns their commands, ours under OURS. It raises Absent if data are missing.
    """

    name: str
    work: str
    unit: str  # of the amount of work: tokens, jobs, starts
    target: float  # lower bound wanted for our rate over the best peer's
    sides: Callable[[], dict[str, list[str]]]
    agreement: Callable[[Any, Any], str] | None = None  # compares our result with the peer's


@dataclass
class Measurement:
    """One run of one side: `amount` units in `seconds`; `agreement` of the row reads `result`."""

    seconds: float
    peak_mib: float
    amount: float = 1.0
    result: Any = None

    @property
    def rate(self) -> float:
        return self.amount / self.seconds


@dataclass
class Outcome:
    """A row's measurements by side and round, or the reason for none (`failed`: an error)."""

    row: Row
    measured: dict[str, list[Measurement]] = field(default_factory=dict)
    reason: str = ""
    failed: bool = False

    def rate(self, side: str) -> float:
        return median(m.rate for m in self.measured[side])

    @property
    def peer(self) -> str:
        """The peer with the highest median rate."""
        return max((side for side in self.measured if side != OURS), key=self.rate)

    @property
    def ratio(self) -> float:
        """Our median rate over the best peer's: above 1, we are faster."""
        return self.rate(OURS) / self.rate(self.peer)

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest ratio of a single round."""
        ratios = [
            a.rate / b.rate
            for a, b in zip(self.measured[OURS], self.measured[self.peer], strict=True)
        ]
        return min(ratios), max(ratios)

    @property
    def agreement(self) -> str:
        if not self.row.agreement:
            return ""
        ours, peer = self.measured[OURS][-1], self.measured[self.peer][-1]
        return self.row.agreement(ours.result, peer.result)


def call(function: Callable[..., dict], *arguments: Any) -> list[str]:
    """Return the command that prints the dict of `function(*arguments)`; arguments are text."""
    words = [function.__module__, function.__qualname__, *map(str, arguments)]
    return [sys.executable, "-m", "benchmarks.worker", *words]


def measure(command: list[str], threads: int) -> Measurement:
    """Run one side in a fresh process and an empty folder.

    RuntimeError: it failed; the message is its last line.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark.") as folder:
        offline = dict.fromkeys(
            ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1"
        )
        limits = dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), str(threads)
        )
        # Its own cache, so that it reads nothing from an earlier run.
        caches = {
            "HF_HOME": f"{folder}/huggingface",
            "TOKENIZERS_PARALLELISM": "true",
            "PYTHONPATH": str(ROOT),
        }
        work = Path(folder) / "work"
        work.mkdir()
        with open(f"{folder}/out", "w+") as out, open(f"{folder}/err", "w+") as err:
            begun_s = time.perf_counter()
            process = subprocess.Popen(
                command,
                cwd=work,
                env=os.environ | offline | limits | caches,
                stdout=out,
                stderr=err,
            )
            try:
                # usage covers the peak memory of the process and of its largest child.
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                process.wait()
                raise
            seconds = time.perf_counter() - begun_s
            process.returncode = os.waitstatus_to_exitcode(status)
            lines, errors = (file.seek(0) or file.read().splitlines() for file in (out, err))
    if process.returncode:
        raise RuntimeError(
            f"exit status {process.returncode}: "
            f"{next((line for line in reversed(errors) if line.strip()), 'no message')}"
        )
    peak_mib = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    if lines and lines[-1].startswith('{"seconds"'):
        return Measurement(peak_mib=peak_mib, **json.loads(lines[-1]))
    return Measurement(seconds, peak_mib, result=lines)


def run(
    row: Row,
    rounds: int,
    measure_side: Callable[[list[str]], Measurement],
    say: Callable[[str], None] = print,
) -> Outcome:
    """Measure each side once per round; the order alternates, so that drift cancels out."""
    outcome = Outcome(row)
    try:
        sides = row.sides()
        for turn in range(rounds):
            for side in list(sides)[:: -1 if turn % 2 else 1]:
                measurement = measure_side(sides[side])
                outcome.measured.setdefault(side, []).append(measurement)
                rate = f"{measurement.rate:,.3g} {row.unit}/s"
                say(
                    f"{row.name}, round {turn + 1} of {rounds}, {side}: {measurement.seconds:.2f} "
                    f"s, {rate}, {measurement.peak_mib:,.0f} MiB"
                )
    except Absent as reason:
        outcome.reason = str(reason)
    except RuntimeError as error:
        outcome.reason, outcome.failed = str(error), True
    return outcome
