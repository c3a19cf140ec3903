"""Counts of a campaign, as a table and as JSON."""

from collections import Counter
from dataclasses import dataclass, field

KILLS = (
    "kill_driver",
    "kill_driver_and_jobs",
    "kill_job",
    "end_job",
    "exhaust_memory",
    "interrupt_driver",
    "cancel_job",
    "kill_controller",
    "kill_node",
)


class Hang(AssertionError):
    """A process that does not end, or does nothing, although all faults have been removed."""


@dataclass
class Tally:
    """`place`: how many faults of the seed's order were drawn. `absent`: faults that were left out,
    and why. `seen`: tracebacks by the log's name.
    """

    faults: Counter = field(default_factory=Counter)
    place: int = 0
    drivers: int = 0
    completed: int = 0
    hangs: int = 0
    interrupted_in_vain: int = 0
    failure: str = ""
    absent: dict[str, str] = field(default_factory=dict)
    seen: dict[str, set[str]] = field(default_factory=dict)

    @property
    def kills(self) -> int:
        return sum(self.faults[name] for name in KILLS)

    @property
    def tracebacks(self) -> list[str]:
        return sorted(f"{name}: {one}" for name, found in self.seen.items() for one in found)

    def as_json(self) -> dict:
        return {
            "faults": dict(sorted(self.faults.items())),
            "kills": self.kills,
            "drivers": self.drivers,
            "completed": self.completed,
            "tracebacks": self.tracebacks,
            "hangs": self.hangs,
            "interrupted in vain": self.interrupted_in_vain,
            "failure": self.failure,
            "left out": self.absent,
            "place": self.place,
        }

    def table(self) -> str:
        """Markdown, as in docs/reliability.md."""
        rows = [("fault", "number"), ("---", "---")]
        rows += [(name, f"{count:,}") for name, count in sorted(self.faults.items())]
        rows += [(f"{name} (left out)", reason) for name, reason in self.absent.items()]
        rows += [
            ("all faults", f"{self.faults.total():,}"),
            ("of them kills", f"{self.kills:,}"),
            ("drivers started", f"{self.drivers:,}"),
            ("runs completed and compared", f"{self.completed:,}"),
            ("tracebacks", f"{len(self.tracebacks):,}"),
            ("hangs", f"{self.hangs:,}"),
            ("drivers that ran on for 60 s after SIGINT", f"{self.interrupted_in_vain:,}"),
        ]
        return "\n".join(f"| {name} | {value} |" for name, value in rows)
