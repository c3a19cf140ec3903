"""Folders that Snakemake and the libraries need outside the run: caches and temporary files."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

TEMPORARY = (
    "free some space there, or type export TMPDIR=FOLDER with a folder that you can write, and run "
    "snakemake again"
)


def move_caches() -> str:
    """Move all caches to a temporary folder if the user's cannot be written; return why, or "".

    Snakemake keeps the text of scripts there, and ends with a traceback if it cannot.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(given if os.path.isabs(given) else os.path.expanduser("~/.cache"))
    place = cache
    while place.is_absolute() and not os.path.lexists(place):
        place = place.parent
    if place.is_absolute() and os.access(place, os.W_OK | os.X_OK):
        return ""
    try:
        folder = tempfile.mkdtemp(prefix="snakemake-caches.")
    except OSError as error:
        return f"warning: {cache}: not writable, and {no_temporary(error)}"
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["XDG_CACHE_HOME"] = folder
    os.environ.setdefault("HF_TOKEN_PATH", str(cache / "huggingface/token"))
    return (
        f"warning: {cache}: not writable, so caches are temporary; to keep them, type export "
        "XDG_CACHE_HOME=FOLDER with a folder that you can write"
    )


def no_temporary(error: OSError) -> str:
    """Return why no temporary file can be created, and what to type."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    if "No usable temporary directory" in reason or "No usable temporary directory" in str(error):
        tried = ", ".join(tempfile._candidate_tempdir_list())  # type: ignore[attr-defined]
        return f"no folder for temporary files is writable (tried {tried}); {TEMPORARY}"
    return f"{error.filename or tempfile.gettempdir()}: {reason}; {TEMPORARY}"
