"""One job at a time on an artifact, and finished files that outlive their deletion.

Two copies of a job can be alive at once (a driver killed and started again, a node that lost
contact). Each artifact that takes long has a work folder beside it:

    .{name}.work/lease.{n}         the lease: the highest n holds it and deletes the lower ones
    .{name}.work/{key}/            work in progress; the key is the digest of inputs and settings
    .{name}.work/{key}/finished/   hard links to the finished files, which outlive a deletion

A lease is taken by creating lease.{n+1} with link(2), which is atomic on network file systems too.
The holder rewrites it every BEAT_S seconds with a count. Whoever waits watches that count by its
own clock, so hosts need not agree on the time. A holder is dead when its count stands still MISSED
beats long, or at once where its process can be looked for and is gone.
"""

import json
import os
import shutil
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from pollination.core import artifacts

BEAT_S = 10.0  # POLLINATION_BEAT_S replaces it
MISSED = 9


def _place() -> str | None:
    """Where process numbers mean the same: this boot and namespace; None if it is not known."""
    try:
        return (
            f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} "
            f"{os.readlink('/proc/self/ns/pid')}"
        )
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None if it has ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else words[19]


class Lease:
    """The right to work on one artifact.

    `wait` takes it, `lost` says whether another copy has taken it since.
    """

    def __init__(self, folder: Path, log) -> None:
        self.folder, self.log = folder, log
        self.number: int | None = None
        self.beat_s = float(os.environ.get("POLLINATION_BEAT_S", BEAT_S))
        self.me = {
            "token": uuid4().hex,
            "job": os.environ.get("SLURM_JOB_ID"),
            "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
            "place": _place(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "beat_s": self.beat_s,
        }
        self.beat, self.beaten_s, self.taken, self.ended = 0, 0.0, False, False
        self.writing, self.bell = threading.Lock(), threading.Event()

    def wait(self, stop=None) -> bool:
        """Take the lease after its live holder; False if `stop` becomes true first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        seen, since_s, told = None, time.monotonic(), False
        while True:
            number, holder = newest(self.folder)
            if (number, holder.get("beat")) != seen:
                seen, since_s = (number, holder.get("beat")), time.monotonic()
            quiet_s = time.monotonic() - since_s
            if not _alive(holder) or quiet_s > MISSED * holder["beat_s"]:
                if self._create(number + 1):
                    if holder and not holder["released"]:
                        self.log.warning(
                            "taking over from %s, which has ended without a word", describe(holder)
                        )
                    return True
                continue
            if not told:
                self.log.info("%s is at work on this; waiting for it", describe(holder))
                told = True
            if stop:
                return False
            time.sleep(min(1.0, self.beat_s))

    def _create(self, number: int) -> bool:
        temporary = self.folder / f".lease.{self.me['token']}.tmp"
        temporary.write_text(self._text())
        try:
            try:
                os.link(temporary, self.folder / f"lease.{number}")
            except PermissionError:  # a file system without hard links
                with open(self.folder / f"lease.{number}", "x") as file:
                    file.write(self._text())
        except (FileExistsError, FileNotFoundError):
            return False  # another copy was faster, and may have removed this one's file
        finally:
            temporary.unlink(missing_ok=True)
        self.number, self.beaten_s = number, time.monotonic()
        for path in self.folder.glob("lease.*"):
            if int(path.suffix[1:]) < number:
                path.unlink(missing_ok=True)
        for path in self.folder.glob(".lease.*.tmp"):  # of copies that were killed while they wrote
            path.unlink(missing_ok=True)
        threading.Thread(target=self._keep_beating, daemon=True).start()
        return True

    def _text(self, released: bool = False) -> str:
        return json.dumps(self.me | {"beat": self.beat, "released": released}) + "\n"

    def _write(self, released: bool = False) -> None:
        with self.writing:
            if self.ended:
                return
            self.ended = released
            self.beat += 1
            temporary = self.folder / f".lease.{self.me['token']}.tmp"
            temporary.write_text(self._text(released))
            os.replace(temporary, self.folder / f"lease.{self.number}")
            self.beaten_s = time.monotonic()

    def _mine(self) -> bool:
        return newest(self.folder)[1].get("token") == self.me["token"]

    def _keep_beating(self) -> None:
        while not self.bell.wait(self.beat_s):
            with suppress(OSError):  # a file system that is away for a while: `lost` looks again
                if not self._mine():
                    self.taken = True
                    return
                self._write()

    def lost(self) -> bool:
        """Whether another copy has taken over.

        Looks at the file only after a silence that others may have taken for death.
        """
        if not self.taken and time.monotonic() - self.beaten_s > MISSED * self.beat_s / 2:
            self.taken = not self._mine()
            if not self.taken:
                with suppress(FileNotFoundError):  # taken over, and cleared away, at this moment
                    self._write()
        return self.taken

    def release(self) -> None:
        """Let the next copy start at once."""
        self.bell.set()
        with suppress(OSError):
            if self.number is not None and self._mine():
                self._write(released=True)


def newest(folder: Path) -> tuple[int, dict]:
    """Number and content of the lease that counts; (-1, {}) where there is none."""
    while True:
        numbers = [int(path.suffix[1:]) for path in folder.glob("lease.*")]
        if not numbers:
            return -1, {}
        # A lease may be taken over, or half written, at this moment.
        with suppress(FileNotFoundError, json.JSONDecodeError):
            return max(numbers), json.loads((folder / f"lease.{max(numbers)}").read_text())


def here(holder: dict) -> bool:
    """Whether a holder's process can be looked for from this one."""
    return holder["place"] is not None and holder["place"] == _place()


def _alive(holder: dict) -> bool:
    """Whether a holder may be at work, as far as can be known without waiting."""
    if not holder or holder["released"]:
        return False
    return not here(holder) or _started(holder["pid"]) == holder["started"]


def describe(holder: dict) -> str:
    job = f"Slurm job {holder['job']}" if holder["job"] else f"process {holder['pid']}"
    return f"{job} on {holder['node']}"


def _link(source: Path, target: Path) -> None:
    """Put a hard link of a file, or a copy, in place of `target`, atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex[:8]}.tmp")
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # of two names of the same file rename(2) leaves both


def keep(folder: Path, outputs: list[Path]) -> None:
    """Keep finished files in the work folder {key}/, the record last; remove all other work."""
    finished = folder / "finished"
    for path in outputs:
        _link(path, finished / path.name)
    for path in [*folder.parent.iterdir(), *folder.iterdir()]:
        if path.is_dir() and path not in (folder, finished):
            shutil.rmtree(path, ignore_errors=True)
        elif path.parent == folder and path != finished:
            path.unlink(missing_ok=True)


def restore(folder: Path, outputs: list[Path]) -> bool:
    """Put kept files back in their places; False if one is absent or differs from its record."""
    kept = [folder / "finished" / path.name for path in outputs]
    try:
        for path in kept:
            artifacts.check(path)
    except (OSError, ValueError):
        shutil.rmtree(folder / "finished", ignore_errors=True)
        return False
    for path, target in zip(kept, outputs, strict=True):
        _link(path, target)
        os.utime(target)  # younger than its inputs, also where it was made long ago
    return True


def kept_copies(path: str) -> list[str]:
    """The kept second names of an output: to recompute it, delete these too."""
    return [
        str(kept)
        for kept in sorted(Path(path).parent.glob(f".*.work/*/finished/{Path(path).name}"))
    ]
