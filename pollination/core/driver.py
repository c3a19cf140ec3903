"""One driver at a time on a run's folder. Snakemake locks only the folder it is typed in."""

import atexit
import logging
import sys
from pathlib import Path

from pollination.core.lease import MISSED, Lease, describe, here, newest

FOLDER = ".driver"


class Alive:
    """True once the holder of a lease is alive: its process is here, or its count has moved."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first: tuple[int, float | None] | None = None

    def __bool__(self) -> bool:
        number, holder = newest(self.folder)
        seen = (number, holder.get("beat"))
        if self.first is None:
            self.first = seen
        return here(holder) or seen != self.first


def hold(results: str) -> None:
    """Hold a run's folder until this process ends; exit 1 if another driver works on it.

    A driver on another machine is watched until its count moves or MISSED beats are over.
    """
    # Absolute: Snakemake returns to the folder it was typed in before this process ends.
    folder = Path(results, FOLDER).absolute()
    log = logging.getLogger("pollination.driver")
    log.handlers, log.propagate = [logging.StreamHandler(sys.stderr)], False
    lease = Lease(folder, log)
    holder = newest(folder)[1]
    if holder and not holder["released"] and not here(holder):
        log.warning(
            "%s was at work on %s; watching for %.0f s whether it still is",
            describe(holder),
            results,
            MISSED * holder["beat_s"],
        )
    if not lease.wait(Alive(folder)):
        sys.exit(
            f"error: {results}: {describe(newest(folder)[1])} is at work on this run; wait for it, "
            "stop it there, or give this run another name (run:)"
        )
    atexit.register(lease.release)
