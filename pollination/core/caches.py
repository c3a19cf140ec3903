"""Give libraries folders for their caches that work, and that no other user can prepare.

Torch keeps compiled code in a folder of /tmp whose name any user can guess and create first. Here
the folder lies in the user's own cache folder, and only this user can write it.
"""

import atexit
import os
import shutil
import stat
import tempfile
from pathlib import Path

COMPILED = "TORCHINDUCTOR_CACHE_DIR"  # Triton's cache lies in it


def offline() -> None:
    """Let Hugging Face's libraries use no network. Call this before they are imported."""
    os.environ |= dict.fromkeys(
        ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1"
    )


def prepare(log) -> None:
    """Set the environment variables of the libraries' caches; log why a cache is temporary.

    Variables that the user has set stay. Call this before the libraries are imported.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(given if os.path.isabs(given) else os.path.expanduser("~/.cache"))
    if trouble := _not_writable(cache):
        temporary = _temporary()
        log.warning(
            "%s: %s; caches of libraries are in %s during this job. To keep them, type export "
            "XDG_CACHE_HOME=FOLDER with a folder that you can write",
            cache,
            trouble,
            temporary,
        )
        os.environ["XDG_CACHE_HOME"] = str(temporary)
        os.environ.setdefault("HF_TOKEN_PATH", str(cache / "huggingface/token"))
        cache = temporary
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))
    if _not_writable(settings, create=False):
        os.environ.setdefault("MPLCONFIGDIR", str(cache / "matplotlib"))
    if COMPILED not in os.environ:
        os.environ[COMPILED] = str(_own(cache / "pollination", log) / "compiled")


def _not_writable(folder: Path, create: bool = True) -> str | None:
    """Return why files cannot be created in a folder, or in the one that it would lie in."""
    if not folder.is_absolute():
        return "this user has no home folder"
    try:
        if create:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while not folder.exists():
            folder = folder.parent
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None if os.access(folder, os.W_OK | os.X_OK) else "not writable"


def _own(folder: Path, log) -> Path:
    """Return a folder that only this user can write: `folder`, else a temporary one.

    Code that another user could have put there would run in this job.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.stat()
    if state.st_uid == os.geteuid() and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return folder
    other = "it belongs to another user" if state.st_uid != os.geteuid() else "others can write it"
    temporary = _temporary()
    log.warning(
        "%s: %s, so compiled code is in %s during this job. Type rm -r %s, or chmod 700 if you "
        "trust what it holds",
        folder,
        other,
        temporary,
        folder,
    )
    return temporary


def _temporary() -> Path:
    folder = tempfile.mkdtemp(prefix="pollination-cache-")  # with mode 0700
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
