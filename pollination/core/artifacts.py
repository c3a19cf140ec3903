"""Write artifacts atomically, and compare each with the digest in its record.

A job's record is `run.json`, or `<stem>.run.json` if several jobs write into one folder. It holds
the digest of each file that the job wrote and of each file that it read. `check` compares a file
with its record before a job computes on it.
"""

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from pollination.core import causes

UMASK = os.umask(0o077)
os.umask(UMASK)  # the mask can only be read by setting it


class DamagedArtifact(ValueError):
    """A file that differs from its record: empty, truncated or changed."""


def digest(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success, rename it to `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            # safetensors creates files that only their owner can read
            os.fchmod(file.fileno(), 0o666 & ~UMASK)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def as_json(value: Any) -> str:
    """Return the JSON text of an artifact: indented, with sorted keys.

    Raises ValueError with the place of a NaN or infinity.
    """
    try:
        return (
            json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
        )
    except ValueError:
        for key, number in _not_finite(value):
            raise ValueError(
                f"{key or 'the result'}: {number} is not a finite number, so no file was written; "
                "check the model or text that was measured"
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
    """Return a record with its own digest under `seal`, which reveals a later change."""
    return record | {"seal": hashlib.sha256(as_json(record).encode()).hexdigest()}


def read_record(path: str | Path) -> dict:
    """Return a record. Raises DamagedArtifact if it was changed after it was written."""
    record = read_json(path)
    is_record = isinstance(record, dict)
    unsealed = {key: value for key, value in record.items() if key != "seal"} if is_record else {}
    whole = is_record and Path(path).read_text(encoding="utf-8") == as_json(record)
    # Earlier versions wrote no seal.
    if not whole or ("seal" in record and seal(unsealed) != record):
        raise DamagedArtifact(
            f"{path}: the record was changed after it was written; recompute it and its files: "
            f"snakemake --force {path}"
        )
    return record


def read_json(path: str | Path) -> Any:
    """Return the content of a JSON file. Raises DamagedArtifact if it does not parse."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
        raise DamagedArtifact(f"{path}: not a regular file; delete it and run snakemake again")
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
    """Return a parquet file as a pyarrow Table.

    Raises DamagedArtifact if the file is unreadable or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError) or causes.of_system(error):
            raise
        reason = str(error).splitlines()[0]
        raise DamagedArtifact(
            f"{path}: not a readable parquet file ({reason}); delete it and run snakemake again"
        ) from None
    missing = [name for name in columns or [] if name not in file.schema_arrow.names]
    if missing:
        raise DamagedArtifact(
            f"{path}: column {missing[0]!r} is missing; the file has "
            f"{', '.join(file.schema_arrow.names)}; delete it and run snakemake again"
        )
    try:
        return file.read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        if causes.of_system(error):
            raise
        reason = str(error).splitlines()[0]
        raise DamagedArtifact(
            f"{path}: not a readable parquet file ({reason}); delete it and run snakemake again"
        ) from None


def find_record(path: str | Path) -> tuple[Path, str] | None:
    """Return the record that lists `path` as an output, and its digest there; None without one."""
    path = Path(path)
    likely = [
        path.with_name(f"{path.name.split('.')[0]}.run.json"),
        path.with_name("run.json"),
        path.parent.parent / "run.json",
    ]
    for candidate in dict.fromkeys([*likely, *sorted(path.parent.glob("*.run.json"))]):
        # Most do not exist, and another job may delete one at this moment.
        with suppress(FileNotFoundError):
            record = read_json(candidate)
            outputs = record.get("outputs") if isinstance(record, dict) else None
            name = path.relative_to(candidate.parent).as_posix()
            if isinstance(outputs, dict) and outputs.get(name):
                return candidate, outputs[name]
    return None


def check(path: str | Path) -> str:
    """Return a file's digest after comparing it with the record, if there is one.

    Raises FileNotFoundError, or DamagedArtifact with the command that recomputes the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the file does not exist; run snakemake again")
    record = find_record(path)
    remedy = f"delete it and run snakemake again (or: snakemake --force {path})"
    if path.stat().st_size == 0:
        if record is None:  # it may be the user's own file
            remedy = "replace it, or delete it and run snakemake again if the workflow wrote it"
        raise DamagedArtifact(f"{path}: the file is empty (0 bytes); {remedy}")
    actual = digest(path)
    if record is not None and actual != record[1]:
        raise DamagedArtifact(
            f"{path}: damaged: its digest {actual[:12]} differs from the {record[1][:12]} in "
            f"{record[0].name}; {remedy}"
        )
    return actual
