"""Download a data set of plan/datasets.yaml, check its digest, and convert it to the data folder.

A Git source is a commit: Git checks each object against it. An archive has its SHA-256 in the
table. The hub states a digest for each file, and the download is compared with it.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pollination.core import artifacts
from pollination.data.conversion import CONVERSIONS
from pollination.plan.datasets import datasets

# Errors of this machine, not of the network.
LOCAL = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EMFILE,
    errno.EIO,
    errno.ESTALE,
)

GIT_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")


def download(name: str, folder: Path, say: Callable[[str], None]) -> str:
    """Write the files of data set `name` into `folder`, unless they are there; return the state.

    The states are "downloaded", "complete" (equal to the record of an earlier download) and
    "present" (there, without a record). The record is {folder}/{name}.json.
    ValueError: the source cannot be reached, differs from its digest, or a file differs from the
    record. Nothing half-written stays behind.
    """
    entry, record = datasets()[name], folder / f"{name}.json"
    existing = [folder / file for file in entry["files"] if (folder / file).exists()]
    if record.exists():
        _compare(name, folder, record, entry)
        return "complete"
    if existing and len(existing) == len(entry["files"]):
        return "present"
    if existing:
        raise ValueError(
            f"{existing[0]}: the file exists, but other files of {name!r} are missing. Move it "
            f"away, and run `pollination data {name}` again"
        )
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(name, folder, say)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder) as scratch, _held(scratch):
        source, target = Path(scratch, "source"), Path(scratch, "target")
        source.mkdir()
        _fetch(name, entry, source, say)
        say(f"{name}: converting")
        try:
            CONVERSIONS[entry["convert"]](source, target)
        except (LookupError, ValueError) as error:
            raise ValueError(
                f"{name}: the source has another form than expected ({error}); report it"
            ) from None
        for file in entry["files"]:
            place = folder / file
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(target / file, place)
    written = [path for file in entry["files"] for path in _files(folder / file)]
    artifacts.write_json(
        record,
        {key: entry[key] for key in ("about", "licence")}
        | {"source": _source(entry)}
        | {"files": {str(path.relative_to(folder)): artifacts.digest(path) for path in written}},
    )
    return "downloaded"


@contextmanager
def _held(folder: str) -> Iterator[None]:
    """Lock a folder, so that another download does not take it for a leftover."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _remove_leftovers(name: str, folder: Path, say: Callable[[str], None]) -> None:
    """Remove what killed downloads of this data set left; a download that runs holds its lock."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and re.fullmatch(rf"\.{re.escape(name)}\.[a-z0-9_]{{8}}", path.name):
            with suppress(BlockingIOError), _held(str(path)):
                say(f"{name}: removing {path}, which a killed download left")
                shutil.rmtree(path)


def _files(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else [path]


def _source(entry: dict) -> Any:
    return entry.get("git") or entry.get("archive") or entry["hub"]


def _compare(name: str, folder: Path, record: Path, entry: dict) -> None:
    again = f"Delete {record} and the files of {name!r}, and run `pollination data {name}` again"
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        digests = {str(file): str(digest) for file, digest in known["files"].items()}
        source = known["source"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{record}: the record is damaged. {again}") from None
    if source != _source(entry):
        raise ValueError(f"{record}: {name!r} now has another source. {again}")
    for file in entry["files"]:
        if not any(f"{path}/".startswith(f"{file}/") for path in digests):
            raise ValueError(f"{record}: the record does not list {file}. {again}")
    for file, digest in digests.items():
        path = folder / file
        if not path.is_file() or artifacts.digest(path) != digest:
            state = "was changed" if path.is_file() else "is missing"
            raise ValueError(f"{path}: the file {state} since its download. {again}")


def _fetch(name: str, entry: dict, folder: Path, say: Callable[[str], None]) -> None:
    if "archive" in entry:
        say(f"{name}: downloading {entry['archive']['url']} ({entry['download_mb']} MB)")
        _fetch_archive(name, entry["archive"], folder)
    elif "hub" in entry:
        say(f"{name}: downloading {entry['hub']['repository']} from the Hugging Face hub")
        _fetch_hub(name, entry["hub"], folder)
    for source in entry.get("git", []):
        say(f"{name}: downloading {source['needs']} of {source['url']}")
        _fetch_git(name, source, folder / source["url"].rsplit("/", 1)[1])


def _unreachable(name: str, url: str, reason: object) -> Exception:
    if isinstance(reason, OSError) and reason.errno in LOCAL:
        return reason
    reason = " ".join(str(reason).split())[:300]
    return ValueError(
        f"{name}: {url} cannot be downloaded ({reason}). Check the network and run the command "
        f"again, or run it on a machine with a network and copy its data folder here"
    )


def _fetch_git(name: str, source: dict, folder: Path) -> None:
    """Check out `needs` at `commit` into `folder`; only the objects of these files travel."""

    # Inside a hook of Git, GIT_DIR would name the repository of the user.
    kept = {key: value for key, value in os.environ.items() if key not in GIT_PLACES}
    stalls = {"GIT_HTTP_LOW_SPEED_LIMIT": "1000", "GIT_HTTP_LOW_SPEED_TIME": "60"}

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-C", str(folder), *words],
            check=True,
            capture_output=True,
            text=True,
            env=kept | stalls | {"GIT_TERMINAL_PROMPT": "0"},
        )

    folder.mkdir()
    try:
        git("init", "--quiet")
        git("remote", "add", "origin", source["url"])
        git("fetch", "--quiet", "--depth=1", "--filter=blob:none", "origin", source["commit"])
        git("checkout", "--quiet", source["commit"], "--", source["needs"])
    except FileNotFoundError:
        raise ValueError(f"{name}: the command `git` is missing; install Git") from None
    except subprocess.CalledProcessError as error:
        raise _unreachable(name, source["url"], error.stderr) from None


def _fetch_archive(name: str, source: dict, folder: Path) -> None:
    import pooch

    pooch.utils.get_logger().setLevel("ERROR")
    file = source["url"].rsplit("/", 1)[1]
    unpack = pooch.Untar if file.endswith(".tar") else pooch.Unzip
    getter = pooch.create(
        path=folder,
        base_url="",
        registry={file: f"sha256:{source['sha256']}"},
        urls={file: source["url"]},
        retry_if_failed=2,
    )
    try:
        getter.fetch(file, processor=unpack(extract_dir="."), progressbar=_on_terminal())
    except ValueError as error:  # another digest than the table's
        raise ValueError(
            f"{name}: {source['url']} differs from its SHA-256 {source['sha256']} ({error}). The "
            "archive was changed or cut off; run the command again, or report it"
        ) from None
    except OSError as error:  # all errors of requests among them
        raise _unreachable(name, source["url"], error) from None
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise ValueError(f"{name}: {source['url']} is not a readable archive ({error})") from None


def _on_terminal() -> bool:
    return os.isatty(2)


def _fetch_hub(name: str, source: dict, folder: Path) -> None:
    import huggingface_hub
    from huggingface_hub import RepoFile

    repository, needs = source["repository"], source["needs"]
    try:
        api = huggingface_hub.HfApi()
        commit = api.model_info(repository, revision=source.get("revision")).sha
        stated = api.get_paths_info(repository, needs, revision=commit)
        for file in needs:
            api.hf_hub_download(repository, file, revision=commit, local_dir=folder)
    except Exception as error:  # its HTTP library has errors of its own
        raise _unreachable(name, repository, error) from None
    for info in stated:
        if not isinstance(info, RepoFile):
            continue
        content = (folder / info.path).read_bytes()
        if info.lfs:
            same = hashlib.sha256(content).hexdigest() == info.lfs.sha256
        else:
            blob = b"blob %d\0" % len(content) + content
            same = hashlib.sha1(blob).hexdigest() == info.blob_id
        if not same:
            raise ValueError(
                f"{name}: {info.path} of {repository} differs from the digest that the hub states. "
                "Run the command again"
            )
