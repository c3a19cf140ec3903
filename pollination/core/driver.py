"""Allow one driver (one snakemake process) at a time to work on a run's folder.

Snakemake itself locks only the folder where it was started.
"""

import atexit
import logging
import sys
from pathlib import Path

from pollination.core.lease import MISSED, Lease, describe, here, newest

FOLDER = ".driver"


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
        return here(holder) or seen != self.first


def hold(results: str) -> None:
    """Hold a run's folder until this process ends; exit 1 if another driver holds it.

    A holder on another machine is watched until its count changes or MISSED beats have passed.
    """
    # Absolute, because Snakemake changes the working folder back before this process ends.
    folder = Path(results, FOLDER).absolute()
    log = logging.getLogger("pollination.driver")
    log.handlers, log.propagate = [logging.StreamHandler(sys.stderr)], False
    lease = Lease(folder, log)
    holder = newest(folder)[1]
    if holder and not holder["released"] and not here(holder):
        log.warning(
            "%s has not released its lease on %s; waiting up to %.0f s to see whether it is alive",
            describe(holder),
            results,
            MISSED * holder["beat_s"],
        )
    if not lease.wait(Alive(folder)):
        sys.exit(
            f"error: {results}: {describe(newest(folder)[1])} is already working on this run; wait "
            "for it, stop it there, or give this run another name (run:)"
        )
    atexit.register(lease.release)
