"""How the process of a job ended: its exit status, or the signal that killed it and why."""

import re
import signal
from contextlib import suppress
from pathlib import Path

COMMAND = re.compile(r"Command '(.*)' (returned non-zero exit status|died with \D*) ?(\d+)", re.S)
LESS_MEMORY = (
    "start fewer jobs at once (--cores), lower batch_size, or use a machine with more memory"
)
WHY = {
    signal.SIGBUS: "often because a disk is full or a file that it was reading was cut; free some "
    "space and check the disk",
    signal.SIGXCPU: "because it reached the limit of processor time; raise the limit (ulimit -t)",
    signal.SIGILL: "because a library needs another processor; install it for this one",
}


class Kernel:
    """The kernel's counters of processes that it killed because memory ran out."""

    def __init__(self) -> None:
        self.own, self.all = _own_kills(), _all_kills()

    def why(self) -> str:
        """Return why a job was killed by SIGKILL, and what to type. Each kill is used once."""
        own, every = _own_kills(), _all_kills()
        if own is not None and self.own is not None and own > self.own:
            self.own += 1
            self.all = None if self.all is None else self.all + 1
            limit = _limit()
            return f"because memory ran out{f' ({limit})' if limit else ''}; {LESS_MEMORY}"
        if every is not None and self.all is not None and every > self.all:
            self.all += 1
            return f"probably because memory ran out; {LESS_MEMORY}"
        if every is None:
            return f"often because memory ran out; {LESS_MEMORY}"
        return "but not because memory ran out; a user or a service of this machine killed it"


def how_it_ended(exception: str, kernel: Kernel | None = None) -> str:
    """Return how the process of a job ended, from Snakemake's message."""
    match = COMMAND.search(exception)
    if match is None:
        return ""
    status = int(match.group(3)) + (128 if match.group(2).startswith("died") else 0)
    try:
        name = signal.Signals(status - 128)
    except ValueError:
        return f"exit status {status}"
    if name == signal.SIGKILL and kernel is not None:
        return f"killed by SIGKILL, {kernel.why()}"
    return f"killed by {name.name}" + (f", {WHY[name]}" if name in WHY else "")


def _cgroup() -> list[Path]:
    """Return the folders with the memory controls of this process, the innermost first.

    A machine may have both versions of control groups; the other one's folders lack the files.
    """
    places = []
    with suppress(OSError):
        for row in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, path = row.split(":", 2)
            if kinds == "" or "memory" in kinds.split(","):
                root = Path("/sys/fs/cgroup") / ("memory" if kinds else "")
                inner = root / path.lstrip("/")
                places += [inner, *inner.parents][: len(inner.relative_to(root).parts) + 1]
    return places


def _own_kills() -> int | None:
    for place in _cgroup():
        for name in ("memory.events", "memory.oom_control"):
            if (count := _count(place / name)) is not None:
                return count
    return None


def _all_kills() -> int | None:
    return _count(Path("/proc/vmstat"))


def _count(path: Path) -> int | None:
    with suppress(OSError, ValueError):
        for row in path.read_text().splitlines():
            if row.startswith("oom_kill "):
                return int(row.split()[1])
    return None


def _limit() -> str:
    """Return the smallest limit of memory that holds for this process; "" without one."""
    limits = []
    for place in _cgroup():
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                limits.append(int((place / name).read_text()))
    least = min(limits, default=1 << 60)
    return f"the limit here is {least / 2**30:.1f} GiB" if least < 1 << 50 else ""
