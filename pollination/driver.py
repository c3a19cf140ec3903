"""One driver at a time on a run's folder, from wherever it was started: Snakemake's own lock knows only the folder it is typed in."""

import atexit
import logging
import sys
from pathlib import Path

from pollination.lease import MISSED, Lease, describe, here, newest

FOLDER = ".driver"


class Alive:
    """True once it is known that the holder of a lease is alive: its process is on this machine, or its count has moved."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.first = folder, None

    def __bool__(self) -> bool:
        number, holder = newest(self.folder)
        seen = (number, holder.get("beat"))
        if self.first is None:
            self.first = seen
        return here(holder) or seen != self.first


def hold(results: str) -> None:
    """Hold a run's folder until this process ends; one line and exit 1 where another driver is at work on it.

    A driver of another machine is watched until its count moves, or has stood still for as long as no living one does.
    """
    folder = Path(results, FOLDER).absolute()  # Snakemake goes back to where it was typed before this process ends
    log = logging.getLogger("pollination.driver")
    log.handlers, log.propagate = [logging.StreamHandler(sys.stderr)], False
    lease = Lease(folder, log)
    holder = newest(folder)[1]
    if holder and not holder["released"] and not here(holder):
        log.warning("%s was at work on %s; watching for %.0f s whether it still is", describe(holder), results, MISSED * holder["beat_s"])
    if not lease.wait(Alive(folder)):
        sys.exit(
            f"error: {results}: {describe(newest(folder)[1])} is at work on this run; wait for it, stop it there, or give this run another name (run:)"
        )
    atexit.register(lease.release)
