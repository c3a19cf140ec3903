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
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from pollination.core import artifacts, causes

BEAT_S = 10.0  # the environment variable POLLINATION_BEAT_S overrides it
MISSED = 9


def _place() -> str | None:
    """Return the boot and namespace within which process ids are unique; None if unknown."""
    try:
        return (
            f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} "
            f"{os.readlink('/proc/self/ns/pid')}"
        )
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """Return when a process started, in kernel ticks; None if it has ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else words[19]


class Lease:
    """The right to work on one artifact.

    `wait` takes the lease; `lost` says whether another copy of the job has taken it since.
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
        """Take the lease once its holder is done or dead; return False if `stop` is true first."""
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
                            "taking over from %s, which died without releasing its lease",
                            describe(holder),
                        )
                    return True
                continue
            if not told:
                self.log.info("waiting for %s, which holds the lease", describe(holder))
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
            return False  # another copy was faster and may have deleted this temporary file
        finally:
            temporary.unlink(missing_ok=True)
        self.number, self.beaten_s = number, time.monotonic()
        for path in self.folder.glob("lease.*"):
            if int(path.suffix[1:]) < number:
                path.unlink(missing_ok=True)
        for path in self.folder.glob(".lease.*.tmp"):  # left by copies killed while writing
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
            # The file system may be unavailable for a while; `lost` checks again.
            with suppress(OSError):
                if not self._mine():
                    self.taken = True
                    return
                self._write()

    def lost(self) -> bool:
        """Return whether another copy of the job has taken over.

        Read the file only after a pause so long that others may have assumed this holder dead.
        """
        if not self.taken and time.monotonic() - self.beaten_s > MISSED * self.beat_s / 2:
            self.taken = not self._mine()
            if not self.taken:
                # Another copy may take over and delete the file at this moment.
                with suppress(FileNotFoundError):
                    self._write()
        return self.taken

    def release(self) -> None:
        """Release the lease, so that a waiting copy starts at once."""
        self.bell.set()
        with suppress(OSError):
            if self.number is not None and self._mine():
                self._write(released=True)


def newest(folder: Path) -> tuple[int, dict]:
    """Return the number and content of the valid lease; (-1, {}) if there is none."""
    while True:
        numbers = [int(path.suffix[1:]) for path in folder.glob("lease.*")]
        if not numbers:
            return -1, {}
        # The file may be replaced or half written at this moment.
        with suppress(FileNotFoundError, json.JSONDecodeError):
            return max(numbers), json.loads((folder / f"lease.{max(numbers)}").read_text())


def here(holder: dict) -> bool:
    """Return whether a holder's process is visible from this one."""
    return holder["place"] is not None and holder["place"] == _place()


def _alive(holder: dict) -> bool:
    """Return whether a holder may be alive, as far as known without waiting."""
    if not holder or holder["released"]:
        return False
    return not here(holder) or _started(holder["pid"]) == holder["started"]


def describe(holder: dict) -> str:
    job = f"Slurm job {holder['job']}" if holder["job"] else f"process {holder['pid']}"
    return f"{job} on {holder['node']}"


def _link(source: Path, target: Path) -> None:
    """Replace `target` with a hard link to `source`, or a copy of it, atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex[:8]}.tmp")
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # rename(2) does nothing if both are the same file


def keep(folder: Path, outputs: list[Path]) -> None:
    """Link finished files into the work folder {key}/, the record last; delete all other work."""
    finished = folder / "finished"
    for path in outputs:
        _link(path, finished / path.name)
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
        _link(path, target)
        os.utime(target)  # newer than its inputs, even if it was made long ago
    return True


def kept_copies(path: str) -> list[str]:
    """Return the kept links of an output; to recompute the output, delete these too."""
    return [
        str(kept)
        for kept in sorted(Path(path).parent.glob(f".*.work/*/finished/{Path(path).name}"))
    ]
