"""Write and unpack archives of results: zip files whose bytes follow from their content alone.

Entries are stored without compression, because the bytes of a compressed entry depend on the
version of the library. They have one fixed time stamp and are sorted. MANIFEST holds the digest of
each other entry, in the format of the program sha256sum.
"""

import hashlib
import os
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from uuid import uuid4

from pollination.core import artifacts
from pollination.core.driver import FOLDER

MANIFEST = "manifest-sha256.txt"
LEFT_OUT = "inputs-sha256.txt"  # digests of the inputs that an archive does not hold
OUTSIDE = "inputs.d"  # files from outside the run; no name of an experiment contains a dot there
CONFIG = "config.yaml"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time stamp of the format
MODE = stat.S_IFREG | 0o644
CHUNK = 1 << 20
BROKEN = "copy or download it again"


def digest_lines(digests: dict[str, str]) -> str:
    """Return digests in the format of sha256sum, sorted by path."""
    return "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))


def read_digests(text: str) -> dict[str, str]:
    """Return the digests of `digest_lines`. ValueError: a line has another form."""
    found = {}
    for line in text.removesuffix("\n").split("\n") if text else ():
        digest, two, path = line[:64], line[64:66], line[66:]
        if two != "  " or not path or set(digest) - set("0123456789abcdef") or path in found:
            raise ValueError(f"{MANIFEST}: {line!r} is not a digest, two spaces and a new path")
        found[path] = digest
    return found


def listed(folder: Path, name: str) -> dict[str, str]:
    """Return the digests that an imported run lists in a file, by path.

    {} if the run was not imported, or if a snakemake has worked on it since.
    """
    path = folder / name
    if (folder / FOLDER).exists() or not path.is_file():
        return {}
    return read_digests(path.read_text(encoding="utf-8"))


def mirrored(path: str) -> str:
    """Return where an archive holds a file from outside the run, by the name in the records."""
    path = os.path.normpath(path)
    if os.path.isabs(path):
        return f"{OUTSIDE}/absolute/{path.lstrip('/')}"
    parts = PurePosixPath(path).parts
    return "/".join((OUTSIDE, *("up" if part == ".." else part for part in parts)))


def outside_file(original: Path, path: str) -> Path:
    """Return the present place of a file from outside a run, by the name in the records."""
    held = original / mirrored(path)
    # A relative name starts in the folder of results/; that has no effect on an absolute one.
    return held if held.is_file() else original.resolve().parent.parent / path


def write(
    target: Path,
    files: dict[str, Path | bytes],
    digests: dict[str, str],
    show: Callable[[int], None] = lambda _: None,
) -> str:
    """Write an archive and return its digest. `show(bytes)` reports progress.

    `files`: content or place of each entry; `digests`: of each entry, compared while reading.
    Raises ValueError if a file differs from its digest, or if no archive can hold its name; then no
    archive is written.
    """
    for name in files:
        if fault := _fault(name):
            raise ValueError(f"{name!r} cannot be in an archive: {fault}; rename the file")
    manifest = digest_lines(digests).encode()
    files = files | {MANIFEST: manifest}
    digests = digests | {MANIFEST: hashlib.sha256(manifest).hexdigest()}
    done = 0
    with artifacts.atomic(target) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(name, EPOCH)
                entry.external_attr, entry.create_system = MODE << 16, 3
                seen = hashlib.sha256()
                with archive.open(entry, "w", force_zip64=True) as out:
                    for chunk in _chunks(files[name]):
                        seen.update(chunk)
                        out.write(chunk)
                        done += len(chunk)
                        show(done)
                if seen.hexdigest() != digests[name]:
                    raise ValueError(
                        f"{name}: its digest {seen.hexdigest()[:12]} differs from the "
                        f"recorded {digests[name][:12]}, so no archive was written; type "
                        "pollination verify"
                    )
        return artifacts.digest(temporary)


def _chunks(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with open(source, "rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


@contextmanager
def opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, str]]]:
    """Yield an archive and the digest of each entry, after checking all names.

    ValueError: the file is no whole archive of `pollination export`, or an entry would be written
    outside the folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive, _checked(path, archive)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path}: not a whole zip file ({error}); {BROKEN}") from None


def _fault(name: str) -> str | None:
    """Return why no entry may have this name; None if one may."""
    parts = name.split("/")
    if set(name) & set("\\\n\r\0") or ":" in parts[0] or {"", ".", ".."} & set(parts):
        return "its path leads out of the folder, or is not plain"
    return "it is hidden" if parts[0].startswith(".") else None


def _checked(path: Path, archive: zipfile.ZipFile) -> dict[str, str]:
    """Return the archive's digests by entry."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if said := _fault(entry.filename):
            fault = said
        elif kind not in (0, stat.S_IFREG):
            fault = "it is no regular file"
        elif entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            fault = "it is compressed or encrypted"
        else:
            continue
        raise ValueError(
            f"{path}: entry {entry.filename!r} is refused: {fault}; allowed: archives of "
            "`pollination export`"
        )
    inner = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    if both := sorted(inner & set(names)):
        raise ValueError(f"{path}: entry {both[0]!r} is both a file and a folder; {BROKEN}")
    if MANIFEST not in names:
        raise ValueError(
            f"{path}: no {MANIFEST}; allowed: archives of `pollination export EXPERIMENT "
            "GENERATION`"
        )
    digests = read_digests(archive.read(MANIFEST).decode("utf-8", "replace"))
    if sorted(names) != sorted([*digests, MANIFEST]):
        odd = sorted(set(names) ^ {*digests, MANIFEST}) or [n for n in names if names.count(n) > 1]
        raise ValueError(f"{path}: {odd[0]!r} and {MANIFEST} do not fit; {BROKEN}")
    return digests


def unpack(path: Path, into: Path, show: Callable[[int, int], None] = lambda *_: None) -> int:
    """Unpack an archive into a new folder and return the number of files.

    The folder gets its name last, after all digests were compared, so a failure leaves nothing.
    All files get one time stamp, so that none is newer than the files made from it. `show(bytes,
    of)` reports progress. ValueError: `into` exists, or the archive is not whole.
    """
    if os.path.lexists(into):
        raise ValueError(
            f"{into} exists, and nothing was overwritten; name a new folder with --into"
        )
    with opened(path) as (archive, digests):
        size, done = sum(entry.file_size for entry in archive.infolist()), 0
        into.parent.mkdir(parents=True, exist_ok=True)
        if size > shutil.disk_usage(into.parent).free:
            raise ValueError(
                f"{path}: unpacked, it has {size:,} bytes, more than are free in {into.parent}; "
                "free space, or name a folder on another disk with --into"
            )
        temporary = into.with_name(f".{into.name}.{uuid4().hex[:8]}.tmp")
        try:
            temporary.mkdir()
            time_s = temporary.stat().st_mtime
            for entry in archive.infolist():
                target, seen = temporary / entry.filename, hashlib.sha256()
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, open(target, "xb") as file:
                    while chunk := source.read(CHUNK):
                        seen.update(chunk)
                        file.write(chunk)
                        done += len(chunk)
                        show(done, size)
                if digests.get(entry.filename, seen.hexdigest()) != seen.hexdigest():
                    raise ValueError(
                        f"{path}: {entry.filename}: its digest differs from the one in {MANIFEST}; "
                        f"{BROKEN}"
                    )
                os.utime(target, (time_s, time_s))
            os.rename(temporary, into)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return len(digests) + 1
