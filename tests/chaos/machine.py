"""Abilities of this machine that faults need. Each `prepare` function says why it has none."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from tests.packages import install

ON_A_DISK_THAT_FILLS = 3  # times the size of a finished run
LEAST_BTRFS = 256 << 20  # bytes
BOOT = "/proc/sys/kernel/random/boot_id"
# Python's own sleep is an error under libfaketime.
SLEEP = (
    "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and "
    "None\n"
)
FIRST_SUBVOLUME = "0/256"  # its group, in each btrfs
ROOT_ONLY = "needs root on Linux"


def root() -> bool:
    return sys.platform.startswith("linux") and os.geteuid() == 0


def told(*words: str) -> str | None:
    """Run a command; why it failed, or None."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.strip().splitlines() or [f"{words[0]} failed"]
    return lines[-1] if done.returncode else None


class Clock:
    """The time of drivers and jobs, which libfaketime moves by what the file `offset` says."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder, self.library, self.offset = folder, library, folder / "offset"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(SLEEP)
        self.move("+0")

    def move(self, offset: str) -> None:
        self.offset.write_text(f"{offset}\n")

    def environment(self) -> dict[str, str]:
        # Files have the times that the file system gives them (FAKE_UTIME undoes what the library
        # else does to "now"), and waits last as long as they should.
        switches = dict.fromkeys(
            ("NO_FAKE_STAT", "FAKE_UTIME", "DONT_FAKE_MONOTONIC", "FAKETIME_DONT_FAKE_MONOTONIC"),
            "1",
        )
        return switches | {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.offset),
            "FAKETIME_CACHE_DURATION": "1",
        }


@dataclass
class Quota:
    """The quota of subvolume `results` on the btrfs that is mounted at `top`."""

    top: Path

    def limit(self, size: str) -> None:
        # Through `results` itself, a limit that is exceeded could not be lifted.
        reason = told("btrfs", "qgroup", "limit", size, FIRST_SUBVOLUME, str(self.top))
        assert reason is None, f"btrfs qgroup limit {size}: {reason}"


class MemoryGroup:
    """A control group whose processes the kernel kills as soon as they allocate memory."""

    def __init__(self, folder: Path, limit: str) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / limit).write_text(str(1 << 20))

    def take(self, pid: int) -> None:
        (self.folder / "cgroup.procs").write_text(str(pid))

    def killed(self) -> int:
        """How many processes the kernel killed here for want of memory."""
        for name in ("memory.events", "memory.oom_control"):  # cgroup v2, v1
            if (self.folder / name).exists():
                words = (self.folder / name).read_text().split()
                return int(words[words.index("oom_kill") + 1])
        return 0


@dataclass
class Abilities:
    """`commands`: the folder of the wrappers of
    Slurm's commands. `boot`: a file that stands for the identity of another machine.
    """

    quota: Quota | None = None
    clock: Clock | None = None
    memory: MemoryGroup | None = None
    commands: Path | None = None
    boot: Path | None = None

    def elsewhere(self, words: list[str]) -> list[str]:
        """The command in a mount namespace where the machine's boot has another identity."""
        if self.boot is None:
            return words
        script = f'mount --bind "$0" {BOOT} && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", script, str(self.boot), *words]


def prepare_disk(folder: Path, size_bytes: int) -> str | None:
    """Put the results of `folder` on a tmpfs of `size_bytes`."""
    folder.joinpath("results").mkdir()
    if not root():
        return f"a disk that can be filled is a tmpfs, which {ROOT_ONLY}"
    options = ("-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs")
    return told("mount", *options, str(folder / "results"))


def prepare_quota(able: Abilities, folder: Path, size_bytes: int) -> str | None:
    """Put the results of `folder` on a btrfs of `size_bytes` or more.

    Its quotas hold for root too, unlike those of ext4 and XFS.
    """
    if not root():
        return f"a quota is one of btrfs, which {ROOT_ONLY}"
    if "btrfs" not in Path("/proc/filesystems").read_text().split():
        return "a quota is one of btrfs, which this kernel does not have"
    if not shutil.which("mkfs.btrfs") and (reason := install("btrfs-progs")):
        return reason
    results, image, quota = folder / "results", folder / "disk.img", Quota(folder / "disk")
    results.mkdir()
    quota.top.mkdir()
    with open(image, "wb") as file:
        file.truncate(max(size_bytes, LEAST_BTRFS))
    for words in (
        ("mkfs.btrfs", "--quiet", "--mixed", str(image)),
        ("mount", "-o", "loop", str(image), str(quota.top)),
        ("btrfs", "quota", "enable", str(quota.top)),
        ("btrfs", "subvolume", "create", str(quota.top / "results")),
        ("mount", "--bind", str(quota.top / "results"), str(results)),
    ):
        if reason := told(*words):
            unmount(folder)
            results.rmdir()
            image.unlink()
            return reason
    able.quota = quota
    return None


def prepare_clock(able: Abilities, folder: Path) -> str | None:
    def found() -> Path | None:
        return next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)

    if found() is None and (reason := install("faketime")):
        return reason
    able.clock = Clock(folder / "clock", found())
    return None


def prepare_memory(able: Abilities) -> str | None:
    """A group directly below the root of cgroup v1's memory controller, or of cgroup v2."""
    if not root():
        return f"a control group {ROOT_ONLY}"
    reason = "there is no /sys/fs/cgroup with a memory controller"
    for place, limit in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
    ):
        group = Path(place, f"pollination-chaos-{uuid4().hex[:8]}")
        if not Path(place, "cgroup.procs").exists():
            continue
        try:
            able.memory = MemoryGroup(group, limit)
            return None
        except OSError as error:
            reason = str(error)
            if group.is_dir():
                group.rmdir()
    return reason


def prepare_elsewhere(able: Abilities, folder: Path) -> None:
    """Without it, the second driver is one of the same machine."""
    boot = folder / "boot_id"
    boot.write_text(f"{uuid4()}\n")
    if root() and told("unshare", "--mount", "mount", "--bind", str(boot), BOOT) is None:
        able.boot = boot


def unmount(folder: Path) -> None:
    for name in ("results", "disk"):
        told("umount", "-l", str(folder / name))


def clean(folder: Path, able: Abilities) -> None:
    """Remove what the `prepare` functions made."""
    unmount(folder)
    if able.memory:
        for pid in able.memory.folder.joinpath("cgroup.procs").read_text().split():
            told("kill", "-9", pid)
        told("rmdir", str(able.memory.folder))
    shutil.rmtree(folder, ignore_errors=True)
