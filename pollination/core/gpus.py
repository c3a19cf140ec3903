"""Share the GPUs of one machine among jobs, so that each job computes on GPUs of its own.

A job takes a GPU by binding a socket whose name holds the GPU's UUID. The name lies in Linux's
abstract namespace: it exists once on a machine, for all its users, and ends with its process. Then
the job sets CUDA_VISIBLE_DEVICES for itself.
"""

import errno
import os
import re
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
JOBS_PER_GPU = "POLLINATION_JOBS_PER_GPU"
MOST_JOBS = 64
NONE = ("", "-1", "NoDevFiles")  # end the list of CUDA_VISIBLE_DEVICES
PAUSE_S = 1.0
LISTED = re.compile(r"^(?:GPU \d+|\s+MIG ).*\(UUID: ([^)\s]+)\)", re.M)

_locks: list[socket.socket] = []
_keys: list[str] = []  # UUIDs of the GPUs that this process holds
_names: list[str] = []  # and their names in CUDA_VISIBLE_DEVICES
_found = False  # whether this process found its GPUs without the user's CUDA_VISIBLE_DEVICES


@dataclass(frozen=True)
class Gpu:
    """A GPU, or an instance of one (MIG). `key` is the same for all names of the GPU."""

    name: str
    key: str


def listed(text: str) -> list[list[str]]:
    """Return the GPUs that `nvidia-smi -L` lists: each has its UUID, then those of its MIG parts.

    A GPU that is divided is no device of its own.
    """
    found: list[list[str]] = []
    for uuid in LISTED.findall(text):
        if uuid.startswith("MIG") and found:
            found[-1].append(uuid)
        else:
            found.append([uuid])
    return found


def _machine() -> list[list[str]] | None:
    """Return the GPUs as `listed`; None if nvidia-smi does not say."""
    try:
        return listed(
            subprocess.run(
                ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True
            ).stdout
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _torch_has_cuda() -> bool:
    """Return whether torch is built for CUDA, without its import of seconds."""
    torch = find_spec("torch")
    library = Path(torch.origin).parent / "lib" if torch and torch.origin else Path("none")
    return any(library.glob("libtorch_cuda*"))


def named(given: str, machine: list[list[str]] | None) -> list[Gpu]:
    """Return the GPUs that a value of CUDA_VISIBLE_DEVICES names: indices, UUIDs, MIG names.

    `machine` is as in `listed`, or None.
    ValueError: the machine has no such GPU.
    """
    names = list(takewhile(lambda name: name not in NONE, map(str.strip, given.split(","))))
    gpus = [Gpu(name, _key(name, machine)) for name in names]
    return list({gpu.key: gpu for gpu in reversed(gpus)}.values())[::-1]


def _key(name: str, machine: list[list[str]] | None) -> str:
    """Return the UUID of a GPU; for a divided GPU that of its first part, which CUDA chooses."""
    if machine is None or name.startswith("MIG-GPU-"):  # the names of parts before R470
        return name.lower()
    if name.isdecimal():
        meant = [gpu[0] for gpu in machine[int(name) :][:1]]
    else:
        every = [uuid for gpu in machine for uuid in gpu]
        meant = [uuid for uuid in every if uuid.lower().startswith(name.lower())]
    first_parts = {gpu[0]: gpu[1] for gpu in machine if gpu[1:]}
    if len(meant) != 1:
        raise ValueError(
            f"{VISIBLE}: {name!r} is not the name of one GPU of this machine; allowed: the indices "
            f"below {len(machine)} and the UUIDs that nvidia-smi -L lists. Correct it, or type "
            f"unset {VISIBLE}"
        )
    return first_parts.get(meant[0], meant[0]).lower()


def visible() -> list[Gpu]:
    """Return the GPUs that this process may use, without starting CUDA. ValueError: as `named`."""
    given = os.environ.get(VISIBLE)
    if given is not None:
        is_empty = given.split(",")[0].strip() in NONE
        return [] if is_empty else named(given, _machine())
    if not _torch_has_cuda():
        return []
    return [Gpu(uuid, uuid.lower()) for gpu in _machine() or [] for uuid in gpu[1:] or gpu]


def jobs_per_gpu() -> int:
    """Return how many jobs share a GPU. ValueError: the environment variable is wrong."""
    text = os.environ.get(JOBS_PER_GPU, "1")
    if not text.isdecimal() or not 1 <= int(text) <= MOST_JOBS:
        raise ValueError(
            f"{JOBS_PER_GPU}: {text!r} is not a number of jobs; allowed: 1 to {MOST_JOBS}; unset "
            "the variable for the default, 1"
        )
    return int(text)


def slots() -> int:
    """Return how many GPU jobs this machine runs at once; 0: it has no GPU that torch can use.

    The process ends with one line if an environment variable is wrong.
    """
    try:
        return len(visible()) * jobs_per_gpu()
    except ValueError as error:
        sys.exit(f"error: {error}")


def take(count: int, log) -> None:
    """Take `count` GPUs for this process, and wait until so many are free.

    Without a GPU, nothing happens. Slurm may have given the job no more than these GPUs; then a GPU
    that another job uses is only reported.
    ValueError: there are fewer GPUs, or as in `visible`.
    """
    global _found
    if _names:  # from an earlier job of this process; CUDA would see no other GPU now
        os.environ[VISIBLE] = ",".join(_names)
        log.info("this job keeps GPU %s", os.environ[VISIBLE])
        return
    gpus, share = visible(), jobs_per_gpu()
    if not gpus or sys.platform != "linux":
        return
    if count > len(gpus):
        raise ValueError(
            f"this job needs {count} GPUs, but it may use {len(gpus)} "
            f"({', '.join(gpu.name for gpu in gpus)}); use a machine or an allocation with more"
        )
    by_slurm = "SLURM_JOB_ID" in os.environ and count == len(gpus)
    told = False
    while not (mine := _take_free(gpus, count, share)):
        users = "; ".join(f"{gpu.name}: {_users(gpu.key, share)}" for gpu in gpus)
        if by_slurm:
            log.warning("other jobs use the GPUs that Slurm gave to this job too (%s)", users)
            return
        if not told:
            log.warning("waiting for %d of %d GPUs (%s)", count, len(gpus), users)
        told = True
        time.sleep(PAUSE_S)
    _found = VISIBLE not in os.environ
    _keys[:] = [gpu.key for gpu in mine]
    _names[:] = [gpu.name for gpu in mine]
    os.environ[VISIBLE] = ",".join(_names)
    log.info("this job has GPU %s", os.environ[VISIBLE])


def held() -> bool:
    """Return whether this process has a GPU, has started CUDA, or has opened a file of a GPU."""
    open_files = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            open_files.append(os.readlink(f"/proc/self/fd/{name}"))
    cuda = sys.modules.get("torch.cuda")
    started = cuda and (cuda.is_initialized() or cuda._is_in_bad_fork())
    return taken() or bool(started) or any("/dev/nvidia" in one for one in open_files)


def taken() -> bool:
    """Return whether this process holds GPUs."""
    return bool(_keys)


def allocated() -> bool:
    """Return whether the user or Slurm gave GPUs to this process."""
    by_slurm = any(
        os.environ.get(name, "") not in NONE
        for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "SLURM_GPUS")
    )
    return by_slurm or (not _found and os.environ.get(VISIBLE, "") not in NONE)


def confirm(uuids: list[str], log) -> None:
    """Check that CUDA computes on the GPUs that this process has taken, by their UUIDs.

    CUDA may count in another order than nvidia-smi where GPUs differ.
    ValueError: another job has the GPU that an index means to CUDA.
    """
    held = {key.removeprefix("gpu-") for key in _keys}
    for uuid in (uuid.lower().removeprefix("gpu-") for uuid in uuids):
        if not held or uuid in held or any(key.startswith("mig") for key in held):
            continue
        fix = f"type export CUDA_DEVICE_ORDER=PCI_BUS_ID, or name GPUs by UUID in {VISIBLE}"
        if not (lock := _bind(f"gpu-{uuid}", jobs_per_gpu() - 1)):
            raise ValueError(
                f"{VISIBLE}: CUDA and nvidia-smi count the GPUs of this machine in different "
                f"orders, so that this job would share GPU-{uuid} with another one; {fix}"
            )
        _locks.append(lock)
        log.warning(
            "CUDA computes on GPU-%s, which nvidia-smi counts otherwise, so this job holds two "
            "GPUs; %s",
            uuid,
            fix,
        )


def _take_free(gpus: list[Gpu], count: int, share: int) -> list[Gpu]:
    """Take free GPUs, first those that no job uses. Return none if they are fewer than `count`."""
    taken: dict[Gpu, socket.socket] = {}
    for place in range(share):
        for gpu in gpus:
            if len(taken) < count and gpu not in taken and (lock := _bind(gpu.key, place)):
                taken[gpu] = lock
    if len(taken) < count:
        for lock in taken.values():
            lock.close()
        return []
    _locks.extend(taken.values())
    return [gpu for gpu in gpus if gpu in taken]


def _address(key: str, place: int) -> str:
    return f"\0pollination-gpu-{key[:80]}-{place}"


def _bind(key: str, place: int) -> socket.socket | None:
    """Return the socket of a place on a GPU; None if another process holds it."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        lock.bind(_address(key, place))
        lock.listen(64)
    except OSError as error:
        lock.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return lock


def _users(key: str, share: int) -> str:
    """Return the processes that hold places on a GPU."""
    numbers = []
    for place in range(share):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker:
            asker.setblocking(False)
            if asker.connect_ex(_address(key, place)) == 0:
                packed = asker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                numbers.append(str(struct.unpack("3i", packed)[0]))
    return f"process {', '.join(numbers)}" if numbers else "no process"


def _close_in_child() -> None:
    """Close the sockets in a forked process, which would hold them after its parent's death."""
    for lock in _locks:
        lock.close()
    _locks.clear()


os.register_at_fork(after_in_child=_close_in_child)
