"""Let Ctrl-C end a run without tracebacks.

A terminal sends SIGINT to the driver and to all its jobs. Python would answer with a traceback in
every process that still imports its libraries. So a job ignores SIGINT until it can handle it
(core/job.py), and the driver repeats the signal until its jobs have ended.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from pollination.core import causes
from pollination.core.warm import SCRIPTS

REPEAT_S = 1.0


def install(shell: Any) -> None:
    """Handle SIGINT in this process, the driver, and in the jobs that Snakemake's `shell` starts.

    A process that ignores SIGINT, as in the background of a script, keeps ignoring it.
    """
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        return
    prefix = shell._process_prefix or "set -euo pipefail; "
    shell.prefix(f"trap '' INT; {prefix}".replace("{", "{{").replace("}", "}}"))
    interrupts = 0

    def interrupted(number: int, frame: FrameType | None) -> Any:
        nonlocal interrupts
        interrupts += 1
        if interrupts == 1:
            threading.Thread(target=_repeat, daemon=True).start()
        else:  # this process may end now, and nobody would repeat the signal
            _end_deaf_jobs()
        return before(number, frame)

    signal.signal(signal.SIGINT, interrupted)
    shown, ignored = sys.excepthook, sys.unraisablehook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            return
        if line := causes.explain(error):
            print(f"error: {line}", file=sys.stderr)
        else:
            shown(kind, error, trace)

    def hook_of_ignored(raised: Any) -> None:
        if not issubclass(raised.exc_type, KeyboardInterrupt):
            ignored(raised)

    sys.excepthook, sys.unraisablehook = hook, hook_of_ignored


def _repeat() -> None:
    while True:
        time.sleep(REPEAT_S)
        for pid in _jobs():
            with suppress(OSError):  # it has ended
                os.kill(pid, signal.SIGINT)


def _end_deaf_jobs() -> None:
    """End the jobs that still ignore SIGINT; they have done no work yet."""
    for pid in _jobs():
        with suppress(OSError, StopIteration, ValueError):
            rows = Path(f"/proc/{pid}/status").read_text().splitlines()
            ignored = next(row.split()[1] for row in rows if row.startswith("SigIgn:"))
            if int(ignored, 16) >> (signal.SIGINT - 1) & 1:
                os.kill(pid, signal.SIGTERM)


def _jobs() -> Iterator[int]:
    """Yield the processes of this driver's jobs."""
    import psutil  # takes 0.1 s

    with suppress(psutil.Error):
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                words = process.cmdline()
                if any(SCRIPTS in word for word in words[1:2]):
                    yield process.pid
