"""Stream data sets of the Hugging Face hub, up to a budget, into parquet for offline jobs.

A download saves part files (parts.py). A later start, and a retry after a network error, resume
from the last saved row group, in the revision that the first start found.
"""

import hashlib
import logging
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from pollination.core import causes
from pollination.core.job import Stopped, StopRequest
from pollination.data.parts import Parts, Position, digest_of

SCHEMA = pa.schema([("split", pa.string()), ("text", pa.string())])
ROW_GROUP_CHARACTERS = 8_000_000
LOG_EVERY_S = 30.0
# Pauses before a retry double. A source that has sent nothing gets few of them: there may be no
# network at all. After a broken connection they last 35 minutes in total.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0
FIRST_TRIES, TRIES = 2, 12
LIBRARY_TRIES = 3
RETRIED = (408, 425, 429)  # HTTP status; and all from 500 on

Result = TypeVar("Result")


class _Failed(Exception):
    """The source cannot be read; the cause is the library's error."""


class _Moved(Exception):
    """The source does not continue with the text that followed the saved ones."""


def stage_hub(spec: dict, path: Path, work: Path, stop: StopRequest) -> dict:
    """Stream the text column of a data set (corpus kind hub) into the parquet file `path`.

    The file has the name of the corpus. It holds the columns "split" and "text", and whole
    documents in their order. Streaming stops before the document that would exceed
    max_tokens * characters_per_token characters, but always keeps the first. `splits` ({our name:
    the hub's name}) gives each split this budget. Without it, "split" is "". `name` may also be a
    local data-set folder. Part files in the folder `work` let a later call resume.
    Returns the revision of the data set (the commit on the hub), for the record.
    ValueError: there is no such data set, subset, split or column, it holds no text, or it cannot
    be reached. Stopped: `stop` became true; whole row groups are saved.
    """
    path, log = Path(path), logging.getLogger("pollination")
    parts = Parts(work, SCHEMA, log)
    download = _Download(spec, f"corpora.{path.stem}", parts, stop, log)
    try:
        download.pin()
        for split, name in (spec.get("splits") or {"": spec.get("split", "train")}).items():
            download.stage(split, name)
        parts.join(path)
    except Stopped:
        outcome = "no progress saved; the job will restart"
        if stop.may_save:
            parts.save()
        if parts.saved and stop.may_save:
            outcome = f"{parts.documents} documents saved; run the same command to resume"
        raise Stopped(f"stopped by {stop.reason}; {outcome}") from None
    except Exception:
        if stop.may_save:
            with suppress(OSError):
                parts.save()
        raise
    return {"revision": download.revision} if download.revision else {}


class _Download:
    """The download of one data set. `revision` is its commit; None for a local folder."""

    def __init__(
        self, spec: dict, key: str, parts: Parts, stop: StopRequest, log: logging.Logger
    ) -> None:
        self.spec, self.key, self.parts, self.stop, self.log = spec, key, parts, stop, log
        self.budget = int(spec["max_tokens"] * spec.get("characters_per_token", 4.0))
        folder = os.path.expanduser(spec["name"])
        self.folder = folder if os.path.isdir(folder) else None
        self.revision: str | None = None
        self.failures, self.has_answered = 0, False  # since the last row group; since the start
        self.restarts = 0

    def pin(self) -> None:
        """Find the revision of the data set, or take that of the saved parts."""
        _prepare_libraries(self.log)
        self.log.info(
            "streaming %s: up to %d tokens, estimated as %d characters",
            self.spec["name"],
            self.spec["max_tokens"],
            self.budget,
        )
        files = _fingerprint(self.folder) if self.folder else None
        began = self.parts.began
        if began and began.get("files") != files:
            self.log.warning(
                "%s: the folder was changed since this download began; it starts over", self.folder
            )
            began = None
        if began is None:
            if not self.folder:
                self.revision = self._patiently(self._newest_revision)
            self.parts.begin(revision=self.revision, files=files)
            return
        self.revision = began["revision"]
        if self.parts.saved:
            self.log.info(
                "resumed after %d saved documents%s",
                self.parts.documents,
                f", in revision {self.revision}" if self.revision else "",
            )

    def _newest_revision(self) -> str:
        from huggingface_hub import HfApi

        wanted = self.spec.get("revision")
        try:
            commit = HfApi().dataset_info(self.spec["name"], revision=wanted, timeout=30.0).sha
        except Exception as error:  # its HTTP library has errors of its own
            raise _Failed from error
        if not commit:
            raise _Failed("the hub names no commit")
        self.log.info("revision %s of %s is commit %s", wanted or "main", self.spec["name"], commit)
        return commit

    def stage(self, split: str, name: str) -> None:
        """Save one split, up to the budget. `name` is that of the hub."""
        while not self.parts.after(split).ended:
            try:
                self._patiently(lambda: self._stream(split, name))
            except _Moved:
                if self.restarts:
                    raise ValueError(
                        f"{self.key}.name: {self.spec['name']!r} yields other texts each time it "
                        "is read. Name a revision, or a data set with a fixed order"
                    ) from None
                self.restarts += 1
                self.log.warning(
                    "%s: split %s does not continue where the saved text ends; the download of "
                    "this split starts over",
                    self.spec["name"],
                    name,
                )
                self.parts.forget(split)
        end = self.parts.after(split)
        self.log.info(
            "staged %d documents, %d characters of split %s", end.documents, end.characters, name
        )

    def _stream(self, split: str, name: str) -> None:
        """Stream a split from its last saved row group to its end."""
        start = self.parts.after(split)
        documents, characters, expected = start.documents, start.characters, start.next_text
        rows: list[str] = []
        held, state, spoke = 0, start.state, time.monotonic()

        def flush(following: str | None, ended: bool = False) -> None:
            group = pa.table({"split": [split] * len(rows), "text": rows}, schema=SCHEMA)
            rows.clear()
            position = Position(split, documents, characters, state, following, ended)
            self.parts.add(group, position)
            self.failures = 0

        for text, position in _texts(self.spec, name, self._source(), start.state, self.key):
            self.has_answered = True
            self._check_stop()
            if expected is not None and digest_of(text) != expected:
                raise _Moved
            expected = None
            if held >= ROW_GROUP_CHARACTERS:
                flush(digest_of(text))
                held = 0
            if documents and characters + len(text) > self.budget:
                break
            rows.append(text)
            held, documents, characters = (
                held + len(text) + 100,
                documents + 1,
                characters + len(text),
            )
            if held >= ROW_GROUP_CHARACTERS:
                state = position()
            if time.monotonic() - spoke >= LOG_EVERY_S:
                spoke = time.monotonic()
                self.log.info(
                    "%d documents, %d characters, %.0f %% of the budget",
                    documents,
                    characters,
                    100 * characters / self.budget,
                )
        else:
            if expected is not None:
                raise _Moved
            self.log.warning(
                "%s: the data set ended after %d of %d characters",
                self.spec["name"],
                characters,
                self.budget,
            )
        if not documents:
            raise ValueError(
                f"{self.key}.column: {self.spec.get('column', 'text')!r} holds no text in "
                f"{self.spec['name']!r}, split {name!r}. Name a text column, or another split"
            )
        if held >= ROW_GROUP_CHARACTERS:  # the split ended with a full row group
            flush(None)
        flush(None, ended=True)

    def _source(self) -> dict[str, Any]:
        if self.folder:
            return {"path": self.folder}
        return {"path": self.spec["name"], "revision": self.revision}

    def _patiently(self, ask: Callable[[], Result]) -> Result:
        """Return ask(), retried after errors of the network. ValueError: it failed for good."""
        while True:
            try:
                return ask()
            except _Failed as failed:
                error = failed.__cause__ or failed
                most = TRIES if self.has_answered or self.parts.saved else FIRST_TRIES
                if causes.explain(error) or not _is_of_network(error) or self.failures >= most:
                    raise self._refusal(error) from error
                self.failures += 1
                self._check_stop()
                self.parts.save()
                self._pause(most, error)

    def _pause(self, most: int, error: BaseException) -> None:
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self.failures - 1))
        self.log.info(  # `status` shows it
            "%s: the connection failed (%s); retry %d of %d in %.0f s, with %d documents saved",
            self.spec["name"],
            _reason(error),
            self.failures,
            most,
            pause_s,
            self.parts.documents,
        )
        end = time.monotonic() + pause_s
        while (left_s := end - time.monotonic()) > 0:
            self._check_stop()
            time.sleep(min(1.0, left_s))

    def _check_stop(self) -> None:
        if self.stop:
            raise Stopped(f"stopped by {self.stop.reason}")

    def _refusal(self, error: BaseException) -> ValueError:
        saved = ""
        if self.parts.saved:
            saved = (
                f". {self.parts.documents} documents are saved: run the same command to resume, or "
                f"delete {self.parts.work} to start over"
            )
        return ValueError(
            f"{self.key}.name: {self.spec['name']!r} cannot be streamed ({_reason(error)}). Check "
            "name, subset, split, revision and the network, or name a local data-set folder"
            f"{saved}"
        )


def _texts(
    spec: dict, name: str, source: dict[str, Any], state: dict, key: str
) -> Iterator[tuple[str, Callable[[], dict]]]:
    """Yield the texts of a split after `state`, each with a function that returns the new state.

    _Failed: the source cannot be read. _Moved: it does not know the state.
    """
    import datasets

    column, has_yielded = spec.get("column", "text"), False
    try:
        builder = datasets.load_dataset_builder(name=spec.get("subset"), **source)
        wanted = source.get("revision")
        if wanted and builder.hash != wanted:  # found in the cache, as the hub did not answer
            raise ConnectionError(f"the hub did not serve revision {wanted}")
        rows = builder.as_streaming_dataset(split=name)
        columns = rows.column_names or list(next(iter(rows), {column: None}))
        if column in columns:
            rows = rows.select_columns([column])
            if state:
                rows.load_state_dict(state)
            for row in rows:
                if isinstance(row[column], str):
                    has_yielded = True
                    yield row[column], rows.state_dict
    except Exception as error:  # many libraries may fail here, each in its own way
        if state and not has_yielded and isinstance(error, (LookupError, TypeError)):
            raise _Moved from error
        raise _Failed from error
    if column not in columns:
        raise ValueError(
            f"{key}.column: {column!r} is not a column of {spec['name']!r}; allowed: "
            f"{', '.join(columns)}"
        )


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


def _is_of_network(error: BaseException | None) -> bool:
    """Return whether a later try may succeed: the network or the server failed, not the request."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    if any(isinstance(one, OfflineModeIsEnabled) for one in chain):
        return False
    for one in chain:
        if isinstance(one, HfHubHTTPError):
            status = one.response.status_code if one.response is not None else 500
            return status in RETRIED or status >= 500
    kinds: list[type[BaseException]] = [ConnectionError, TimeoutError, socket.gaierror]
    kinds += [ssl.SSLError, HTTPException]
    kinds.append(huggingface_hub.utils.httpx.RequestError)
    if aiohttp := sys.modules.get("aiohttp"):
        kinds.append(aiohttp.ClientError)
    return any(isinstance(one, tuple(kinds)) for one in chain)


def _fingerprint(folder: str) -> str:
    """Return the digest of names, sizes and times of a folder's files, in place of a revision."""
    found = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    facts = sorted(
        (str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns)
        for path in found
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _prepare_libraries(log: logging.Logger) -> None:
    """Send the libraries' messages to the job's log, and let them retry for a minute only.

    Their retries go on in the middle of a file. Ours read the file again from its beginning.
    """
    import datasets

    datasets.config.STREAMING_READ_MAX_RETRIES = LIBRARY_TRIES
    datasets.config.STREAMING_OPEN_MAX_RETRIES = LIBRARY_TRIES
    files = [one for one in log.handlers if isinstance(one, logging.FileHandler)]
    for name in ("datasets", "huggingface_hub"):
        logging.getLogger(name).handlers = [*files, logging.NullHandler()]
