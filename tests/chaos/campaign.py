"""The loop of a campaign: inject faults in the seed's order, remove them, complete, compare."""

import errno
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.chaos.comparison import Reference
from tests.chaos.tally import Hang, Tally
from tests.chaos.workflow import Workflow
from tests.slurm import until

CALM_SHARE = 1 / 3  # of the faults of Slurm's commands


@dataclass
class Campaign(Workflow):
    """`healing`: (when, what) for faults that pass. `outage_s`: the longest time for which Slurm's
    commands or its controller fail.
    """

    interval_s: tuple[float, float] = (3.0, 15.0)
    outage_s: float = 300.0
    say: Callable[[str], None] = print
    healing: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def later(self, low_s: float, high_s: float, heal: Callable[[], None]) -> float:
        """Remove a fault after a random time, which is returned in seconds."""
        pause_s = self.chance.uniform(low_s, max(low_s, high_s))
        self.healing.append((time.monotonic() + pause_s, heal))
        return pause_s

    def heal(self, everything: bool = False) -> None:
        due = [entry for entry in self.healing if everything or entry[0] <= time.monotonic()]
        self.healing = [entry for entry in self.healing if entry not in due]
        for _, heal in due:
            heal()

    def settle(self) -> None:
        """Add no fault until all have passed and the driver has logged something or has ended.

        Hang: it does neither, for example because it has forgotten its jobs.
        """
        while self.healing:
            time.sleep(0.5)
            self.heal()
        log, end = self.folder / "driver.log", time.monotonic() + self.end_s
        size = log.stat().st_size
        while self.driver.poll() is None and log.stat().st_size == size:
            if time.monotonic() > end:
                raise Hang(
                    f"the driver has done nothing for {self.end_s:.0f} s after all faults had "
                    f"passed; its last words:\n{self.last_words()}"
                )
            time.sleep(0.5)

    def complete(self) -> None:
        self.heal(everything=True)
        if self.cluster:
            until(self.cluster.answers, self.end_s, "Slurm answers")
        super().complete()

    def run_through(
        self,
        faults: dict[str, Callable[["Campaign"], str | None]],
        calm: set[str],
        order: Iterator[str],
        reference: Reference,
        enough: Callable[[Tally], bool],
    ) -> None:
        """Break things in this order until `enough(tally)`, then complete and compare. After some
        faults of the kinds in `calm`, the driver must show that it lives.
        """
        begun_s = time.monotonic()

        def tell(line: str) -> None:
            self.say(f"{time.monotonic() - begun_s:7.0f} s  {self.tally.place:4}  {line}")

        while not enough(self.tally):
            if self.driver is None or self.driver.poll() is not None:
                if self.driver and self.driver.returncode == 0:
                    self.complete()
                    self.compare(reference)
                    tell("a run is complete and equals the reference; begun anew")
                    self.begin_anew()
                self.heal(everything=True)
                self.repair()
                self.start()
            time.sleep(self.chance.uniform(*self.interval_s))
            self.heal()
            if self.driver.poll() is not None:
                continue
            kind, told = next(order), None
            self.tally.place += 1
            try:
                told = faults[kind](self)
            except OSError as error:
                # The workflow deleted what was to break, or an earlier fault fills the disk.
                if error.errno not in (errno.ENOENT, errno.ENOSPC, errno.EDQUOT):
                    raise
            if told:
                self.tally.faults[kind] += 1
                tell(f"{kind}: {told}")
            if told and kind in calm and self.chance.random() < CALM_SHARE:
                self.settle()
        self.complete()
        self.compare(reference)
        tell("completed undisturbed: equal to the reference")
