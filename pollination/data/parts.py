"""Save a download in part files, so that a broken one resumes after its last whole part.

    {work}/began.json           the revision of the source, pinned by the first start
    {work}/part00000.parquet    whole row groups of the result
    {work}/part00000.json       sealed: the digest of the part, and where the source continues

`work` is a job's work folder (core/lease.py). Row groups do not depend on where parts end, so the
joined file has the bytes of an undisturbed download.
"""

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pollination.core import artifacts, causes
from pollination.core.artifacts import DamagedArtifact
from pollination.core.resume import save_every_s

GROUPS_PER_PART = 8  # held in memory until the part is written
BEGAN = "began.json"


@dataclass(frozen=True)
class Position:
    """Where a download has arrived in a split, after whole row groups.

    `documents` and `characters` count those of the split so far. `state` is the position in the
    source. `next_text` is the digest of the text that follows there; a resume compares it. `ended`:
    the split is complete.
    """

    split: str
    documents: int = 0
    characters: int = 0
    state: dict = field(default_factory=dict)
    next_text: str | None = None
    ended: bool = False


def digest_of(text: str) -> str:
    """Return the digest by which a resume recognises a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Parts:
    """The part files in a work folder. Whole ones of earlier starts are kept, others deleted."""

    def __init__(self, work: Path, schema: pa.Schema, log: logging.Logger) -> None:
        self.work, self.schema, self.log = Path(work), schema, log
        self.pending: list[tuple[pa.Table, Position]] = []  # row groups, and what follows each
        self.every_s, self.saved_s = save_every_s(), time.monotonic()
        self.saved: list[Position] = []  # after each part
        for path in self.work.glob(".*.tmp"):  # left by a job that was killed while writing
            path.unlink(missing_ok=True)
        self._name_others()
        self.began = self._read_began()
        for number in range(len(list(self.work.glob("part*.json"))) if self.began else 0):
            try:
                self.saved.append(self._check(number))
            except (OSError, ValueError) as error:
                if causes.of_system(error):
                    raise
                self.log.warning(
                    "%s; the download resumes after the %d whole parts before it", error, number
                )
                break
        self._delete_from(len(self.saved))

    def _name_others(self) -> None:
        for folder in sorted(self.work.parent.iterdir()):
            if folder != self.work and (folder / BEGAN).exists():
                self.log.warning(
                    "%s: the parts in it belong to a download with other settings; they are not "
                    "used, and the end of this download deletes them",
                    folder,
                )

    def _read_began(self) -> dict | None:
        path = self.work / BEGAN
        with suppress(FileNotFoundError):
            try:
                return self._record(path)
            except DamagedArtifact as error:
                self.log.warning("%s; the download starts over", error)
        return None

    def _record(self, path: Path) -> dict:
        """Return a sealed record of this download. Raises DamagedArtifact."""
        try:
            record = artifacts.read_record(path)
        except ValueError as error:
            raise DamagedArtifact(f"{path}: damaged") from error
        if record.get("job") != self.work.name:
            raise DamagedArtifact(f"{path}: it belongs to another download")
        return record

    def begin(self, **about: Any) -> None:
        """Note the source of a download that starts now, and delete all earlier parts."""
        self._delete_from(0)
        self.saved = []
        self.began = about | {"job": self.work.name}
        artifacts.write_json(self.work / BEGAN, artifacts.seal(self.began))

    def _files(self, number: int) -> tuple[Path, Path]:
        name = f"part{number:05d}"
        return self.work / f"{name}.parquet", self.work / f"{name}.json"

    def _check(self, number: int) -> Position:
        """Return the position after a part. Raises DamagedArtifact or FileNotFoundError."""
        part, about = self._files(number)
        record = self._record(about)
        if record.get("number") != number:
            raise DamagedArtifact(f"{about}: it belongs to another part")
        if artifacts.digest(part) != record.get("digest"):
            raise DamagedArtifact(f"{part}: damaged: its digest differs from that in {about.name}")
        try:
            return Position(**record["position"])
        except (KeyError, TypeError) as error:
            raise DamagedArtifact(f"{about}: written by another version") from error

    def _delete_from(self, number: int) -> None:
        for path in self.work.glob("part*"):
            digits = path.stem.removeprefix("part")
            if not digits.isdigit() or int(digits) >= number:
                path.unlink(missing_ok=True)

    def after(self, split: str) -> Position:
        """Return where the download of a split continues."""
        found = [position for position in self.saved if position.split == split]
        return found[-1] if found else Position(split)

    @property
    def documents(self) -> int:
        """Return the number of saved documents, of all splits."""
        last = {position.split: position.documents for position in self.saved}
        return sum(last.values())

    def forget(self, split: str) -> None:
        """Delete the parts of a split and of all later ones."""
        self.pending = []
        splits = [position.split for position in self.saved]
        number = splits.index(split) if split in splits else len(splits)
        self._delete_from(number)
        del self.saved[number:]

    def add(self, group: pa.Table, position: Position) -> None:
        """Add one row group; write a part if it is time, or if the split ends."""
        self.pending.append((group, position))
        due = time.monotonic() - self.saved_s >= self.every_s
        if due or position.ended or len(self.pending) >= GROUPS_PER_PART:
            self.save()

    def save(self) -> None:
        """Write the pending row groups as a part."""
        if not self.pending:
            return
        part, about = self._files(len(self.saved))
        position = self.pending[-1][1]
        with artifacts.atomic(part) as temporary:
            _write(temporary, self.schema, (group for group, _ in self.pending))
            digest = artifacts.digest(temporary)
        record = {
            "job": self.work.name,
            "number": len(self.saved),
            "digest": digest,
            "position": asdict(position),
        }
        artifacts.write_json(about, artifacts.seal(record))
        self.saved_s = time.monotonic()
        saved = [*self.saved, position]
        self.saved, self.pending = saved, []  # no call between them, in which a signal could raise

    def join(self, path: Path) -> None:
        """Write all parts into one file, row group by row group."""
        with artifacts.atomic(path) as temporary:
            _write(temporary, self.schema, self._groups())

    def _groups(self) -> Iterator[pa.Table]:
        for number in range(len(self.saved)):
            part, about = self._files(number)
            content = part.read_bytes()
            if hashlib.sha256(content).hexdigest() != self._record(about)["digest"]:
                raise DamagedArtifact(
                    f"{part}: damaged while the parts were joined; run the same command to resume"
                )
            file = pq.ParquetFile(pa.BufferReader(content))
            yield from map(file.read_row_group, range(file.num_row_groups))


def _write(path: Path, schema: pa.Schema, groups: Any) -> None:
    """Write a parquet file with these row groups."""
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        for group in groups:
            file.write_table(group)
