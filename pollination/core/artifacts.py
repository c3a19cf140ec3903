"""Files that are whole or absent: atomic writes, digests, and the record beside every artifact.

A job's record (`run.json`, or `<stem>.run.json` where several jobs write into one folder) names the
digest of each file that the job wrote and of each file that it read. `check` holds a file against
its record before anything is computed on it.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

UMASK = os.umask(0o077)
os.umask(UMASK)  # it can only be read by being set


class DamagedArtifact(ValueError):
    """A file that is not what its record says: empty, cut short, or changed."""


def digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; on success, rename it to `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            # safetensors makes files that nobody else may read
            os.fchmod(file.fileno(), 0o666 & ~UMASK)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def as_json(value: Any) -> str:
    """Indented JSON with sorted keys, the only way in which artifacts are written.

    ValueError names a NaN or infinity.
    """
    try:
        return (
            json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
        )
    except ValueError:
        for key, number in _not_finite(value):
            raise ValueError(
                f"{key or 'the result'} is {number}, no finite number: nothing is written; look "
                "for the model or text it was measured on"
            ) from None
        raise


def _not_finite(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield place, value
    items = value.items() if isinstance(value, dict) else ()
    for key, item in enumerate(value) if isinstance(value, list | tuple) else items:
        yield from _not_finite(item, f"{place}.{key}" if place else str(key))


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(as_json(value), encoding="utf-8")


def seal(record: dict) -> dict:
    """A record with its own digest in it (`seal`), which shows a changed byte in the record."""
    return record | {"seal": hashlib.sha256(as_json(record).encode()).hexdigest()}


def read_record(path: str | Path) -> dict:
    """A record, compared with its seal. DamagedArtifact: a byte of it was changed."""
    record = read_json(path)
    is_record = isinstance(record, dict)
    unsealed = {key: value for key, value in record.items() if key != "seal"} if is_record else {}
    whole = is_record and Path(path).read_text(encoding="utf-8") == as_json(record)
    if not whole or ("seal" in record and seal(unsealed) != record):  # older records have none
        raise DamagedArtifact(
            f"{path}: the record was changed after it was written; make it and its files again: "
            f"snakemake --force {path}"
        )
    return record


def read_json(path: str | Path) -> Any:
    """Read JSON. DamagedArtifact: the file does not parse."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedArtifact(
            f"{path}: not valid JSON ({error}); delete it and run snakemake again"
        ) from None


def write_table(path: str | Path, table: Any) -> None:
    """Write a pandas DataFrame or a pyarrow Table as parquet (zstd), atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not isinstance(table, pa.Table):
        table = pa.Table.from_pandas(table, preserve_index=False)
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: str | Path, columns: list[str] | None = None) -> Any:
    """A parquet file as a pyarrow Table. DamagedArtifact: it is unreadable, or lacks a column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        reason = str(error).splitlines()[0]
        raise DamagedArtifact(
            f"{path}: not a readable parquet file ({reason}); delete it and run snakemake again"
        ) from None
    missing = [name for name in columns or [] if name not in file.schema_arrow.names]
    if missing:
        raise DamagedArtifact(
            f"{path}: column {missing[0]!r} is absent; it has {', '.join(file.schema_arrow.names)}"
        )
    return file.read(columns=columns)


def find_record(path: str | Path) -> tuple[Path, str] | None:
    """The record that names `path` as an output, and the digest there; None if no job wrote it."""
    path = Path(path)
    likely = [
        path.with_name(f"{path.name.split('.')[0]}.run.json"),
        path.with_name("run.json"),
        path.parent.parent / "run.json",
    ]
    for candidate in dict.fromkeys([*likely, *sorted(path.parent.glob("*.run.json"))]):
        # Most are absent, and another job's may be deleted at this moment.
        with suppress(FileNotFoundError):
            outputs = read_json(candidate).get("outputs", {})
            expected = outputs.get(path.relative_to(candidate.parent).as_posix())
            if expected:
                return candidate, expected
    return None


def check(path: str | Path) -> str:
    """Digest of a file, compared with its record. DamagedArtifact says what to type."""
    path = Path(path)
    remedy = f"delete it and run snakemake again (or: snakemake --force {path})"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the file does not exist")
    if path.stat().st_size == 0:
        raise DamagedArtifact(f"{path}: the file is empty (0 bytes); {remedy}")
    actual, record = digest(path), find_record(path)
    if record is not None and actual != record[1]:
        raise DamagedArtifact(
            f"{path}: its digest {actual[:12]} is not the recorded {record[1][:12]} "
            f"({record[0].name}): damaged; {remedy}"
        )
    return actual
