"""Faults of files: full disks, quotas, damaged artifacts and leases, an edited config."""

import json
import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from pollination.core import artifacts
from tests.chaos.campaign import Campaign
from tests.chaos.registry import fault


@fault
def fail_rename(campaign: Campaign) -> str | None:
    """A folder with something in it lies where a file is to be renamed to."""
    absent = [path for path in sorted(campaign.results.rglob(".*.work")) if path.is_dir()]
    names = {".train.work": "model.safetensors", ".evaluate.work": "scores.json"}
    targets = [path.parent / names[path.name] for path in absent if path.name in names]
    targets = [path for path in targets if not path.exists()]
    if not targets:
        return None
    target = campaign.chance.choice(targets)
    with suppress(OSError):
        (target / "in the way").mkdir(parents=True)
    campaign.later(
        1, 10, lambda: shutil.rmtree(target, ignore_errors=True) if target.is_dir() else None
    )
    return f"{target.relative_to(campaign.results)} is a folder"


@fault
def flip_byte(campaign: Campaign) -> str | None:
    """In a finished artifact, and its time stamp stays: whoever reads it must notice, and verify
    must name it.
    """
    files = []
    for record in campaign.results.rglob("*run.json"):
        with suppress(OSError, ValueError):
            files += [
                record,
                *(record.parent / name for name in artifacts.read_record(record)["outputs"]),
            ]
    files = sorted(path for path in files if path.is_file() and path.stat().st_size)
    if not files:
        return None
    path = campaign.chance.choice(files)
    place = campaign.chance.randrange(path.stat().st_size)
    with suppress(OSError):
        times = path.stat()
        with open(path, "r+b") as file:
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([byte[0] ^ 0x40]))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return f"byte {place:,} of {path.relative_to(campaign.results)}"


@fault
def fill_disk(campaign: Campaign) -> str | None:
    filler = campaign.results.parent / "filler"
    with suppress(OSError), open(filler, "wb") as file:
        while True:
            file.write(bytes(1 << 20))
            file.flush()
    campaign.later(1, 10, lambda: filler.unlink(missing_ok=True))
    size = filler.stat().st_size if filler.exists() else 0
    return f"{size / 2**20:,.0f} MiB written: the disk is full"


@fault
def exceed_quota(campaign: Campaign) -> str:
    """Each write to the folder of the results fails with EDQUOT."""
    quota = campaign.able.quota
    quota.limit("4K")
    campaign.later(1, 10, lambda: quota.limit("none"))
    return "the quota of the results is exceeded"


def damage(campaign: Campaign, lease: Path) -> str:
    """As a crash of the machine, a network file system, or an editor leaves it."""
    how, text = campaign.chance.choice(("empty", "cut", "copied")), lease.read_bytes()
    if how == "copied":
        (lease.parent / "lease.0~").write_bytes(text)
        return f"{lease.relative_to(campaign.results)} has a copy lease.0~"
    with open(lease, "r+b") as file:  # in place, so that nobody sees another file
        file.truncate(0 if how == "empty" else len(text) // 2)
    return f"{lease.relative_to(campaign.results)} is {how}"


def newest(leases: Iterable[Path]) -> Path | None:
    numbered = [path for path in leases if path.suffix[1:].isdigit()]
    return max(numbered, key=lambda path: int(path.suffix[1:]), default=None)


@fault
def break_lease(campaign: Campaign) -> str | None:
    """Half of the time the job is killed first, so that nobody repairs the file."""
    folders = sorted({path.parent for path in campaign.results.rglob(".*.work/lease.*")})
    if not folders:
        return None
    lease, killed = newest(campaign.chance.choice(folders).glob("lease.*")), "its holder lives"
    if lease is None:
        return None
    if campaign.chance.random() < 0.5:
        with suppress(OSError, ValueError, KeyError, TypeError):
            pid = json.loads(lease.read_text())["pid"]
            for job in campaign.jobs():
                if job.pid == pid:
                    job.kill()
                    with suppress(psutil.TimeoutExpired):
                        job.wait(10)
            killed = "its holder is dead"
    return f"{damage(campaign, lease)}; {killed}"


@fault
def break_driver_lease(campaign: Campaign) -> str | None:
    lease = newest((campaign.results / ".driver").glob("lease.*"))
    if lease is None:
        return None
    alive = campaign.chance.random() < 0.5
    if not alive:
        campaign.kill_driver()
    return f"{damage(campaign, lease)}; the driver {'lives' if alive else 'is dead'}"


@fault
def edit_config(campaign: Campaign) -> str | None:
    """Another learning rate, or a file that an editor has half written. Jobs that start meanwhile
    must not use it. Later, and before the next driver starts, the edit is undone.
    """
    text = campaign.original.read_text()
    edited = re.sub(
        r"(learning_rate: )([\d.e+-]+)", lambda rate: f"{rate[1]}{5 * float(rate[2]):.3e}", text
    )
    how = "has five times the learning rates"
    if edited == text or campaign.chance.random() < 0.3:
        edited, how = text[: campaign.chance.randrange(len(text) // 4, len(text))], "is cut"
    campaign.configfile.write_text(edited)
    pause_s = campaign.later(5, 25, campaign.restore_config)
    return f"the config {how} for up to {pause_s:.0f} s"
