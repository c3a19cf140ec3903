"""Explain in one line why the system refused something, and what to type.

Libraries in other languages raise their own exceptions. They hold the system's error only as text,
e.g. "No space left on device (os error 28)". `explain` finds the error in both forms.
"""

import errno
import os
import pwd
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

AGAIN = "and run the same command again"
MOUNT = (
    "{path}: the network file system no longer serves this path ({name}); check that it is mounted "
    f"(ls {{folder}}) {AGAIN}"
)
BROKEN = (
    "{path}: the disk or the network file system failed ({name}); have it checked (dmesg) "
    f"{AGAIN}"
)
FILES = "{path}: too many open files; raise the limit (ulimit -n 4096) or start fewer jobs at once "
FILES += f"(--cores) {AGAIN}"
CAUSES = {
    errno.ENOSPC: f"no space left on the disk that holds {{path}}; free some space {AGAIN}",
    errno.EDQUOT: (
        "the disk quota is used up on the disk that holds {path}; free some space (quota -s shows "
        f"the use, or lfs quota -h {{folder}}) {AGAIN}"
    ),
    errno.EROFS: (
        "{path}: the file system is read-only; have it mounted read-write, or work in another "
        f"folder, {AGAIN}"
    ),
    errno.EACCES: "{path}: permission denied{owner}",
    errno.EPERM: "{path}: operation not permitted{owner}",
    errno.EMFILE: FILES,
    errno.ENFILE: FILES,
    errno.ESTALE: MOUNT,
    errno.ENOTCONN: MOUNT,
    errno.ESHUTDOWN: MOUNT,
    errno.EIO: BROKEN,
    errno.EUCLEAN: BROKEN,
    errno.ENOLCK: (
        "{path}: the file system grants no locks ({name}); work on another file system, or have "
        f"its lock service started, {AGAIN}"
    ),
    errno.EFBIG: (
        "{path}: the file exceeds the largest allowed size; raise the limit (ulimit -f unlimited) "
        f"{AGAIN}"
    ),
    errno.ENOMEM: (
        "memory ran out; start fewer jobs at once (--cores), lower batch_size, or use a machine "
        f"with more memory, {AGAIN}"
    ),
    errno.EAGAIN: (
        "the limit of processes and threads is reached; raise it (ulimit -u) or start fewer jobs "
        f"at once (--cores) {AGAIN}"
    ),
}
"""errno -> the line; its fields are path, its folder, the error's name, and the path's owner."""
# Texts without a number that name an error of CAUSES, in lower case.
TEXTS = {
    os.strerror(code).lower(): code for code in CAUSES if code not in (errno.EPERM, errno.EAGAIN)
} | {
    "can't start new thread": errno.EAGAIN,
    "can't allocate memory": errno.ENOMEM,
    "database or disk is full": errno.ENOSPC,
}
# Torch's allocator and the driver say the first. Libraries such as cuBLAS say the second.
GPU_TEXTS = re.compile(
    r"\b(cuda|hip)\b[^\n]*\bout of memory\b|\b(cu|hip)[a-z]+_(\w+_)?alloc(ation)?_failed\b", re.I
)
GPU_FULL = (
    "the memory of the GPU ran out; lower batch_size, or use a GPU with more memory (nvidia-smi "
    f"shows the processes that use it), {AGAIN}"
)
NO_TEMPORARY = (
    "no folder for temporary files is writable (tried {tried}); free some space there, or type "
    f"export TMPDIR=FOLDER with a folder that you can write, {AGAIN}"
)
UNREACHABLE = re.compile(
    r"n.t connect|ConnectError|ConnectTimeout|ConnectionError|LocalEntryNotFound|OfflineMode"
)
NUMBERED = re.compile(r"(?:os error |\[errno |os \{ code: |error code (?=\d+ \())(\d+)", re.I)
QUOTED = re.compile(r"""\[Errno \d+\] [^':]+: '([^']+)'|['"](/[^'"]+)['"]""")
# A ValueError of this project has a text of its own, which says more than these.
SAID_BETTER = (errno.EACCES, errno.EPERM, errno.ENOMEM, errno.EAGAIN)


def explain(error: BaseException, folders: Iterable[str | Path] = ()) -> str | None:
    """Return the line for an error that the system caused; None for any other error.

    `folders` are those that the job writes. If the error names no path, the line names a full one
    of these, or the first.
    """
    for one in _chain(error):
        text = str(one)
        is_ours = isinstance(one, ValueError) and not isinstance(one, OSError)
        if not is_ours and _names_full_gpu(one):
            return GPU_FULL
        if "No usable temporary directory" in text:
            return NO_TEMPORARY.format(tried=", ".join(temporary_folders()))
        code = None if is_ours else number(one)
        if code in CAUSES and not (code in SAID_BETTER and isinstance(error, ValueError)):
            return line(code, _path(one, text, code, list(folders)))
        if isinstance(one, OSError):  # a missing file, for example
            return None
    return None


def remedy(error: BaseException, otherwise: str) -> str:
    """Return what to do about something of the hub that cannot be loaded."""
    texts = (f"{type(one).__name__}: {one}" for one in _chain(error))
    if any(UNREACHABLE.search(text) for text in texts):
        return "Run this job where the hub can be reached, or name a folder with these files"
    return otherwise


def gpu_is_full(error: BaseException) -> bool:
    """Return whether a GPU's memory ran out, in torch's allocator or in a library of the GPU."""
    return any(map(_names_full_gpu, _chain(error)))


def _names_full_gpu(error: BaseException) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or bool(GPU_TEXTS.search(str(error)))


def number(error: BaseException) -> int | None:
    """Return the errno that an exception holds as a number or in its text; None without one."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if match := NUMBERED.search(text):
        return int(match[1])
    lower = text.lower()
    return next((code for name, code in TEXTS.items() if name in lower), None)


def of_system(error: BaseException) -> bool:
    """Return whether the system failed, so that the error says nothing about a file's content."""
    return number(error) in CAUSES


def line(code: int, path: str) -> str:
    """Return the line of CAUSES for an errno and the path that it concerns."""
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    if code == errno.ENOSPC and _has_no_inodes(folder):
        return (
            f"the disk that holds {path} has no room for another file (no inodes left, df -i "
            f"{folder}); delete files {AGAIN}"
        )
    name = os.strerror(code).lower()
    return CAUSES[code].format(path=path, folder=folder, name=name, owner=_owner(path))


def temporary_folders() -> list[str]:
    """Return the folders that Python tries for temporary files."""
    return list(dict.fromkeys(tempfile._candidate_tempdir_list()))  # type: ignore[attr-defined]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that led to it, the latest first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _path(error: BaseException, text: str, code: int, folders: list[str | Path]) -> str:
    for name in (getattr(error, "filename", None), getattr(error, "filename2", None)):
        if isinstance(name, str | bytes | os.PathLike):
            return os.fsdecode(name)
    if match := QUOTED.search(text):
        return match[1] or match[2]
    if code == errno.ENOSPC:
        for place in [*map(str, folders), *temporary_folders()]:
            if _is_full(place):
                return place
    return str(folders[0]) if folders else "this folder"


def _is_full(folder: str) -> bool:
    with suppress(OSError):
        disk = os.statvfs(folder)
        return disk.f_bavail * disk.f_frsize < 2**20 or _has_no_inodes(folder)
    return False


def _has_no_inodes(folder: str) -> bool:
    with suppress(OSError):
        disk = os.statvfs(folder)
        return disk.f_files > 0 and disk.f_favail == 0
    return False


def _owner(path: str) -> str:
    """Return whose file or folder refuses, and what its owner types."""
    place = os.path.abspath(path)
    while not os.path.lexists(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    try:
        owner = os.lstat(place).st_uid
        # A file in a folder that is not writable cannot be replaced, whoever owns the file.
        if owner == os.geteuid() and os.access(place, os.W_OK):
            place = os.path.dirname(place)
            owner = os.lstat(place).st_uid
    except OSError:
        return f"; see who owns it (ls -ld {place})"
    if owner == os.geteuid():
        return f"; type chmod u+rwX {place} {AGAIN}"
    try:
        who = pwd.getpwuid(owner).pw_name
    except KeyError:
        who = f"user {owner}"
    return (
        f"; {place} belongs to {who}, who can type chmod -R g+rwX {_shared(place)} once, and umask "
        "002 before each run"
    )


def _shared(place: str) -> str:
    """Return the folder to share: the run's, or Snakemake's own, or the one of `place`."""
    parts = Path(place).parts
    for name, more in (("results", 2), (".snakemake", 1)):
        if name in parts:
            return str(Path(*parts[: len(parts) - parts[::-1].index(name) - 1 + more]))
    return place if os.path.isdir(place) else os.path.dirname(place)
