"""Allow one job at a time on an artifact, and keep finished files after their deletion.

Two copies of a job can be alive at once, for example after a driver was killed and restarted, or
after a node lost contact. Each artifact of a long job has a work folder beside it:

    .{name}.work/lease.{n}         the lease: the highest n holds it and deletes the lower ones
    .{name}.work/{key}/            work in progress; the key is the digest of inputs and settings
    .{name}.work/{key}/finished/   hard links to the finished files, which outlive a deletion

A job takes the lease by creating lease.{n+1} with link(2), which is atomic on network file systems
too. The holder rewrites the file with a new count every BEAT_S seconds. A waiting job times that
count by its own clock, so hosts need not agree on the time. It treats the holder as dead if the
count does not change for MISSED beats, or at once if the holder's process is visible and has ended.
"""

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from pollination.core import artifacts, causes
from pollination.core.holder import MISSED, beat_s, describe, entries, newest, place, process, runs


def _awake_s() -> float:
    """Return a clock that also counts the time in which the machine was suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """The right to work on one artifact.

    `wait` takes the lease; `lost` says whether another copy of the job has taken it since. The
    thread that renews the lease calls `on_lost` once it finds that. `about` is added to the file.
    """

    def __init__(
        self, folder: Path, log, on_lost: Callable[[], None] | None = None, **about: str
    ) -> None:
        self.folder, self.log, self.on_lost = folder, log, on_lost
        self.number: int | None = None
        self.beat_s = beat_s()
        own = process(os.getpid())
        self.me: dict[str, Any] = about | {
            "token": uuid4().hex,
            "job": os.environ.get("SLURM_JOB_ID"),
            "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
            "place": place(),
            "pid": os.getpid(),
            "started": own[1] if own else None,
            "beat_s": self.beat_s,
        }
        self.beat, self.beaten_s, self.taken, self.ended = 0, 0.0, False, False
        self.writing, self.bell = threading.Lock(), threading.Event()

    def wait(self, stop=None) -> bool:
        """Take the lease once its holder is done or dead; return False if `stop` is true first."""
        pause_s, quiet_s, looked_s = min(1.0, self.beat_s), 0.0, time.monotonic()
        seen, told = None, None
        while True:
            # Listed before the holder is judged: another copy may take the lease in between.
            free_number = max(entries(self.folder), default=-1) + 1
            number, holder = newest(self.folder)
            # Time in which this process itself was frozen says nothing about the holder.
            quiet_s += min(time.monotonic() - looked_s, 2 * pause_s)
            looked_s = time.monotonic()
            if (number, holder.get("beat")) != seen:
                seen, quiet_s = (number, holder.get("beat")), 0.0
            free = not holder or holder["released"] or runs(holder) is False
            if free or quiet_s > MISSED * holder["beat_s"]:
                if self._create(free_number):
                    if holder and not holder["released"]:
                        self.log.warning(
                            "taking over from %s, %s",
                            describe(holder),
                            f"whose lease has not changed for {quiet_s:.0f} s"
                            if holder.get("unreadable")
                            else "which died without releasing its lease",
                        )
                    return True
            elif number != told:
                self.log.info("waiting for %s, which holds the lease", describe(holder))
                told = number
            if stop:
                return False
            time.sleep(pause_s)

    def _create(self, number: int) -> bool:
        """Create the lease of a number; return False if another copy was faster."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".lease.{self.me['token']}.tmp"
        target = self.folder / f"lease.{number}"
        self.me["since"] = round(time.time())
        try:
            _write(temporary, self._text())
            try:
                os.link(temporary, target)
            except (FileExistsError, FileNotFoundError):
                raise
            except OSError:  # a file system without hard links
                _write(target, self._text(), "x")
        except (FileExistsError, FileNotFoundError):
            return False  # another copy was faster and may have deleted this temporary file
        finally:
            temporary.unlink(missing_ok=True)
        if max(entries(self.folder), default=number) > number:
            target.unlink(missing_ok=True)  # the copy that took this number has come and gone
            return False
        self.number, self.beaten_s = number, _awake_s()
        for lower in (n for n, is_lease in entries(self.folder).items() if is_lease):
            if lower < number:
                with suppress(OSError):  # another user's
                    (self.folder / f"lease.{lower}").unlink()
        for path in self.folder.glob(".lease.*.tmp"):  # left by copies killed while writing
            with suppress(OSError):
                path.unlink()
        threading.Thread(target=self._keep_beating, daemon=True).start()
        return True

    def _text(self, released: bool = False) -> str:
        return json.dumps(self.me | {"beat": self.beat, "released": released}) + "\n"

    def _renew(self, released: bool = False) -> None:
        with self.writing:
            if self.ended:
                return
            self.ended = released
            self.beat += 1
            temporary = self.folder / f".lease.{self.me['token']}.tmp"
            _write(temporary, self._text(released))
            os.replace(temporary, self.folder / f"lease.{self.number}")
            self.beaten_s = _awake_s()

    def _mine(self) -> bool:
        """Return whether this copy still holds the lease. Raises OSError if that is not known."""
        # Opening the own file first makes a network file system ask its server.
        with suppress(FileNotFoundError), open(self.folder / f"lease.{self.number}", "rb"):
            number, holder = newest(self.folder)
            # Nobody else writes a file of this number. If it is damaged, the next beat mends it.
            return number == self.number and holder["token"] in (self.me["token"], None)
        return False

    def _keep_beating(self) -> None:
        # The short pause notices within a second that the machine was suspended.
        pause_s = min(1.0, self.beat_s)
        while not self.bell.wait(pause_s):
            if _awake_s() - self.beaten_s > self.beat_s - pause_s / 2:
                # The file system may be unavailable for a while; `lost` checks again.
                with suppress(OSError):
                    if self.confirm():
                        return
                    self._renew()

    def confirm(self) -> bool:
        """Read now whether another process has taken over, and call `on_lost` if so."""
        if self.number is None or self.ended:
            return False
        self.taken = self.taken or not self._mine()
        if self.taken and self.on_lost:
            self.on_lost()
        return self.taken

    def lost(self) -> bool:
        """Return whether another copy of the job has taken over.

        Read the file only after a pause so long that others may have assumed this holder dead.
        """
        quiet_s = _awake_s() - self.beaten_s
        if not self.taken and quiet_s > MISSED * self.beat_s / 2:
            try:
                self.taken = not self._mine()
            except OSError:  # unknown, so assume the worst once others may have taken over
                return quiet_s > MISSED * self.beat_s
            if not self.taken:
                # Another copy may take over and delete the file at this moment.
                with suppress(FileNotFoundError):
                    self._renew()
        return self.taken

    def release(self) -> None:
        """Release the lease, so that a waiting copy starts at once."""
        self.bell.set()
        with suppress(OSError):
            if self.number is not None and self._mine():
                self._renew(released=True)


def _write(path: Path, text: str, mode: str = "w") -> None:
    """Write a file so that a power loss leaves it whole once it has its final name."""
    with open(path, mode) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise


def replace_by_link(source: Path, target: Path, links: bool = True) -> None:
    """Replace `target` with a hard link to `source`, or a copy of it, atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex[:8]}.tmp")
    with suppress(OSError):
        if links:
            os.link(source, temporary)
    if not temporary.exists():
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # rename(2) does nothing if both are the same file


def keep(folder: Path, outputs: list[Path]) -> None:
    """Link finished files into the work folder {key}/, the record last; delete all other work."""
    finished = folder / "finished"
    for path in outputs:
        replace_by_link(path, finished / path.name)
    for path in [*folder.parent.iterdir(), *folder.iterdir()]:
        if path.is_dir() and path not in (folder, finished):
            shutil.rmtree(path, ignore_errors=True)
        elif path.parent == folder and path != finished:
            path.unlink(missing_ok=True)


def restore(folder: Path, outputs: list[Path]) -> bool:
    """Restore kept files; return False if one is missing or differs from its record."""
    kept = [folder / "finished" / path.name for path in outputs]
    try:
        for path in kept:
            artifacts.check(path)
    except (OSError, ValueError) as error:
        if causes.of_system(error):  # the files may be whole
            raise
        shutil.rmtree(folder / "finished", ignore_errors=True)
        return False
    for path, target in zip(kept, outputs, strict=True):
        replace_by_link(path, target)
        os.utime(target)  # newer than its inputs, even if it was made long ago
    return True


def kept_copies(path: str) -> list[str]:
    """Return the kept links of an output; to recompute the output, delete these too."""
    return [
        str(kept)
        for kept in sorted(Path(path).parent.glob(f".*.work/*/finished/{Path(path).name}"))
    ]
