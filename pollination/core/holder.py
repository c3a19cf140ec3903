"""Read leases (lease.py): who holds an artifact, and whether the holder lives.

A lease may be unreadable: empty after a power loss, of another version, or of another user. Then
its holder is unknown. Any change of the file counts as a beat of that holder.
"""

import json
import os
import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pollination.core import sanitize
from pollination.core.environment import number

BEAT_S = 10.0  # the environment variable POLLINATION_BEAT_S overrides it
BEATS_S = (0.01, 600.0)  # its range
MISSED = 9
NAME = re.compile(r"lease\.(0|[1-9][0-9]{0,17})")  # a longer number is no lease of ours
LONGEST = 1 << 16  # bytes of a lease that are read
TRIES = 5  # readings of a file that is replaced at this moment


def beat_s() -> float:
    """Return the seconds between two beats. Raises ValueError if the environment is wrong."""
    return number("POLLINATION_BEAT_S", BEAT_S, *BEATS_S)


def place() -> str | None:
    """Return the boot and namespace within which process ids are unique; None if unknown."""
    try:
        return (
            f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} "
            f"{os.readlink('/proc/self/ns/pid')}"
        )
    except OSError:
        return None


def process(pid: int) -> tuple[str, str] | None:
    """Return a process's state and its start in kernel ticks; None if /proc does not show it."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return words[0], words[19]


def entries(folder: Path) -> dict[int, bool]:
    """Return the numbers of all entries lease.{n}, and whether each is a file, hence a lease."""
    try:
        with os.scandir(folder) as found:
            return {
                int(match[1]): entry.is_file(follow_symlinks=False)
                for entry in found
                if (match := NAME.fullmatch(entry.name))
            }
    except (FileNotFoundError, NotADirectoryError):
        return {}


def newest(folder: Path) -> tuple[int, dict]:
    """Return the number and content of the valid lease; (-1, {}) if there is none.

    The content of an unreadable lease has `unreadable`, the reason, and nulls for what it hides.
    Raises OSError if the folder cannot be listed.
    """
    number = -1
    for _ in range(TRIES):
        number = max((n for n, is_lease in entries(folder).items() if is_lease), default=-1)
        if number < 0:
            return -1, {}
        with suppress(FileNotFoundError):  # replaced at this moment
            return number, _read(folder / f"lease.{number}")
    return number, _unknown(folder / f"lease.{number}", "the file vanishes while it is read", b"")


def _read(path: Path) -> dict:
    """Return the content of a lease. Raises FileNotFoundError."""
    raw = b""
    try:
        # Not blocking and not following links, in case that a pipe or a link replaces the file.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
            raw = file.read(LONGEST)
        return _checked(raw)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = sanitize.reason(error) if isinstance(error, OSError) else _reason(error)
        return _unknown(path, reason, raw)


def _reason(error: Exception) -> str:
    known = type(error) is ValueError and not str(error).startswith("Exceeds")
    return str(error) if known else "it is not the JSON text of a lease"


def _unknown(path: Path, reason: str, raw: bytes) -> dict:
    """Return the content that stands for an unreadable lease. Raises FileNotFoundError."""
    try:
        status = path.lstat()
        beat = [status.st_ino, status.st_size, status.st_mtime_ns, zlib.crc32(raw)]
    except FileNotFoundError:
        beat = []
    return dict.fromkeys(FIELDS) | {
        "unreadable": f"{path}: {reason}",
        "beat": beat,
        "beat_s": beat_s(),
        "released": False,
    }


FIELDS: dict[str, Callable[[Any], bool]] = {  # the fields of a lease, and their allowed values
    "token": lambda value: isinstance(value, str),
    "job": lambda value: value is None or isinstance(value, str),
    "node": lambda value: isinstance(value, str),
    "place": lambda value: value is None or isinstance(value, str),
    "pid": lambda value: type(value) is int and 0 < value < 2**31,
    "started": lambda value: value is None or isinstance(value, str),
    "beat": lambda value: type(value) is int,
    "beat_s": lambda value: type(value) in (int, float) and BEATS_S[0] <= value <= BEATS_S[1],
    "released": lambda value: isinstance(value, bool),
}


def _checked(raw: bytes) -> dict:
    """Return the content of a lease from its bytes. Raises ValueError with the reason."""
    if not raw.strip(b"\0 \r\n"):
        raise ValueError("the file is empty")
    holder = json.loads(raw.decode())
    if not isinstance(holder, dict):
        raise ValueError("it is not the JSON text of a lease")
    for key, allowed in FIELDS.items():
        if key not in holder:
            raise ValueError(f"{key} is missing")
        if not allowed(holder[key]):
            raise ValueError(f"{key} has the value {sanitize.line(holder[key], 100)}")
    return holder


def runs(holder: dict) -> bool | None:
    """Return whether a holder's process runs; None if that is not visible from this process."""
    if holder["place"] is None or holder["place"] != place():
        return None
    seen = process(holder["pid"])
    if seen:
        return seen[0] not in "ZX" and holder["started"] in (seen[1], None)
    try:  # /proc may hide the processes of other users
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return None


def suspended(holder: dict) -> bool:
    """Return whether a holder's process is visible and suspended (Ctrl-Z or SIGSTOP)."""
    seen = process(holder["pid"]) if runs(holder) else None
    return seen is not None and seen[0] in "Tt"


def describe(holder: dict) -> str:
    if holder.get("unreadable"):
        return f"an unknown process (its lease cannot be read: {holder['unreadable']})"
    job = f"Slurm job {holder['job']}" if holder["job"] else f"process {holder['pid']}"
    return sanitize.line(f"{job} on {holder['node']}", 200)


@dataclass(frozen=True)
class Seen:
    """A lease as another process sees it. `silent_s`: seconds since its file was last written."""

    holder: dict
    alive: bool
    silent_s: float


def look(folder: Path, now_s: float) -> Seen | None:
    """Return how a lease looks at the wall-clock time `now_s`, without waiting; None without one.

    A holder whose process is not visible counts as alive if its file was written lately.
    """
    path = folder
    try:
        number, holder = newest(folder)
        if not holder:
            return None
        path = folder / f"lease.{number}"
    except OSError as error:  # the folder may not be listed, but each beat changes its time
        holder = _unknown(folder, sanitize.reason(error), b"")
    try:
        written_s = path.lstat().st_mtime
    except OSError:  # another copy takes the lease at this moment
        written_s = now_s
    silent_s = max(0.0, now_s - written_s)
    running = runs(holder)
    if running is None:
        running = silent_s < 2 * MISSED * holder["beat_s"]
    return Seen(holder, running and not holder["released"], silent_s)
