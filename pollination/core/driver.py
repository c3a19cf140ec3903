"""Allow one driver (one snakemake process) at a time to work on a run's folder.

Snakemake itself locks only the folder where it was started.
"""

import atexit
import logging
import os
import shlex
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

from pollination.core import sanitize
from pollination.core.holder import MISSED, describe, newest, runs, suspended
from pollination.core.lease import Lease

FOLDER = ".driver"
SAY_S = 5.0
_held: list[Lease] = []
_ending = threading.RLock()


class Alive:
    """True once a lease's holder proves alive: its process is visible, or its count changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first: tuple[int, float | None] | None = None

    def __bool__(self) -> bool:
        number, holder = newest(self.folder)
        seen = (number, holder.get("beat"))
        if self.first is None:
            self.first = seen
        return bool(holder and runs(holder)) or seen != self.first


def hold(results: str) -> None:
    """Hold a run's folder until this process ends; exit 1 if another driver holds it.

    A holder on another machine is watched until its count changes or MISSED beats have passed.
    SIGTERM and Ctrl-C end the wait.
    """
    # Absolute, because Snakemake changes the working folder back before this process ends.
    folder = Path(results, FOLDER).absolute()
    log = logging.getLogger("pollination.driver")
    log.handlers, log.propagate = [logging.StreamHandler(sys.stderr)], False
    command = shlex.join(["snakemake", *sys.argv[1:]])
    try:
        lease = Lease(folder, log, lambda: _stop(results, folder), command=command)
        holder = newest(folder)[1]
        if holder and not holder["released"] and runs(holder) is None:
            log.warning(
                "%s has not released its lease on %s; waiting up to %.0f s to see whether it is "
                "alive",
                describe(holder),
                results,
                MISSED * holder["beat_s"],
            )
        with _ended_by_signals(results):
            held = lease.wait(Alive(folder))
        if not held:
            holder = newest(folder)[1]
            frozen = f" (it is suspended; to resume it, type kill -CONT {holder['pid']} there)"
            sys.exit(
                f"error: {results}: {describe(holder)} is already working on this run"
                f"{frozen if suspended(holder) else ''}; wait for it, stop it there, or give this "
                "run another name (run:)"
            )
    except (OSError, ValueError) as error:
        said = str(error)
        if isinstance(error, OSError) and error.filename:
            said = f"{error.filename}: {sanitize.reason(error)}"
        sys.exit(f"error: {results}: this driver cannot take the lease of the run: {said}")
    _held.append(lease)
    # Python runs the handler before the main thread, just woken, can start or clean up a job.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCONT, lambda *_: confirm())
    atexit.register(lease.release)


def confirm() -> None:
    """End this process if another driver has taken over the run."""
    for lease in _held:
        with suppress(OSError):  # the beating thread looks again
            lease.confirm()


@contextmanager
def _ended_by_signals(results: str):
    """Let SIGTERM and Ctrl-C end a wait, which Snakemake's own handler would only note."""

    def end(number: int, _frame: object) -> None:
        sys.exit(
            f"error: {results}: stopped by {signal.Signals(number).name} while waiting for the "
            "lease of the run; no job was started"
        )

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(results: str, folder: Path) -> None:
    """End this process at once; its jobs go on.

    The other driver's copies of these jobs wait for their leases and use their files. A normal
    exit would cancel jobs on a cluster and delete their scripts, the files of failed jobs, and
    Snakemake's locks, which are the other driver's by now.
    """
    _ending.acquire()  # another thread that comes here too waits for the end
    # A terminal or pipe that takes no text must not keep this process alive.
    speaker = threading.Thread(target=_say_taken, args=(results, folder), daemon=True)
    speaker.start()
    speaker.join(SAY_S)
    os._exit(1)


def _say_taken(results: str, folder: Path) -> None:
    holder = newest(folder)[1]
    said = f"{describe(holder)} has taken over this run" if holder else f"{folder} was deleted"
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(
        f"{clear}error: {results}: {said} while this driver was frozen or without its disk; this "
        "driver stops and leaves all jobs to the other one",
        file=sys.stderr,
        flush=True,
    )
