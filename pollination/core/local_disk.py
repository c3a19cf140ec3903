"""Copy a large input to the disk of the node that computes, for reads in random order.

The copy has no name, so it vanishes with the job however that ends.
"""

import hashlib
import os
import shutil
import tempfile
from io import BufferedRandom
from pathlib import Path
from typing import cast

from pollination.core import artifacts, sanitize

LEAST_BYTES = 2**26  # the memory soon holds a smaller file
SPARE_BYTES = 2**30
CHUNK = 2**23


def copy(path: Path, digest: str, setting: str | None, log) -> BufferedRandom | None:
    """Return a copy of a file in the folder `setting`, which may hold variables; None without one.

    There is no copy if a variable is not set, the file is small or the folder cannot take it. The
    log gives the reason.
    DamagedArtifact: the file no longer has the SHA-256 `digest`.
    """
    folder = os.path.expanduser(os.path.expandvars(setting or "$"))
    size = path.stat().st_size
    if "$" in folder or size < LEAST_BYTES:
        return None
    found = hashlib.sha256()
    try:
        free = shutil.disk_usage(folder).free
        if free < size + SPARE_BYTES:
            log.warning("local_disk: %s has no room for a copy of %s", folder, path)
            return None
        target = cast(BufferedRandom, tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
    except OSError as error:
        log.warning("local_disk: %s: no copy of %s: %s", folder, path, sanitize.reason(error))
        return None
    with open(path, "rb") as source:
        while chunk := source.read(CHUNK):
            found.update(chunk)
            try:
                target.write(chunk)
                target.flush()
            except OSError as error:
                target.close()
                reason = sanitize.reason(error)
                log.warning("local_disk: %s: no copy of %s: %s", folder, path, reason)
                return None
    if found.hexdigest() != digest:
        raise artifacts.DamagedArtifact(
            f"{path}: changed while this job read it; run snakemake again"
        )
    log.info("reading a copy of %s in %s", path, folder)
    return target
