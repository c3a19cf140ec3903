"""Read documents from local files (parquet, jsonl, txt) and from a corpus folder, in batches."""

import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pollination.core.artifacts import DamagedArtifact
from pollination.plan.config.paths import TEXT_ENDINGS, data_files

# Limits of a batch of a parquet file. A batch of long rows has fewer of them.
ROWS, BATCH_BYTES = 512, 64_000_000
LONGEST_BYTES = 2**31 - 2**20  # of a document, because a column of text holds no more


def read_documents(folder: Path, split: str) -> Iterator[tuple[str, str]]:
    """Stream (doc_id, text) of a split, in the order of the source."""
    path = Path(folder) / f"{split}.parquet"
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(1024, columns=["doc_id", "text"]):
                yield from zip(batch["doc_id"].to_pylist(), batch["text"].to_pylist(), strict=True)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        reason = str(error).splitlines()[0]
        raise DamagedArtifact(
            f"{path}: not a readable corpus ({reason}). Delete it and run snakemake again"
        ) from None


def read_staged(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (doc_id, text) of a data set that hub.stage_hub wrote.

    If it has splits, doc_ids begin with "{split}/".
    """
    with pq.ParquetFile(path) as file:
        number = 0
        for batch in file.iter_batches(ROWS):
            for split, text in zip(
                batch["split"].to_pylist(), batch["text"].to_pylist(), strict=True
            ):
                yield f"{split}/{number}" if split else str(number), text
                number += 1


def resolve_files(
    path: str | list[str], endings: tuple[str, ...] = TEXT_ENDINGS, key: str = "path"
) -> list[Path]:
    """Return the files that a path of the config names, in order. `key` is its key.

    ValueError: there is no such file, or a file has another ending.
    """
    files: list[Path] = []
    for pattern in [path] if isinstance(path, str) else path:
        names = [name for name in data_files(pattern, endings) if Path(name).is_file()]
        if not names:
            raise ValueError(
                f"{key}: {pattern!r} names no {', '.join(endings)} file. Give the right path, set "
                "`data`, or download it with `pollination data`"
            )
        for name in names:
            if not name.lower().endswith(endings):
                raise ValueError(
                    f"{key}: {name!r} has another ending; allowed: {', '.join(endings)}. Convert "
                    "or leave out the file"
                )
        files += map(Path, names)
    return list(dict.fromkeys(files))


def file_labels(files: list[Path]) -> list[str]:
    """Return a name for each file that stays the same if the data moves to another folder.

    It is the file's name. Files with equal names also get their folders.
    """
    counts = Counter(file.name for file in files)
    common = os.path.commonpath([file.absolute().parent for file in files])
    return [
        file.name if counts[file.name] == 1 else Path(os.path.relpath(file, common)).as_posix()
        for file in files
    ]


def read_files(spec: dict, key: str = "column") -> Iterator[tuple[str, str | None]]:
    """Yield (doc_id, text) of every row, line or part of a corpus's files.

    The text is None if the row holds none (null, a number, ...). A doc_id is "{file}:{number}",
    with numbers from 0 in each file. `key` is the config's key of the column.
    ValueError names the file and the place in it.
    """
    column, unit = spec.get("column", "text"), spec.get("txt_documents", "file")
    files = resolve_files(spec["path"])
    for file, label in zip(files, file_labels(files), strict=True):
        name = file.name.lower()
        texts = (
            read_parquet(file, column, key)
            if name.endswith(".parquet")
            else _read_txt(file, unit)
            if name.endswith(".txt")
            else _read_jsonl(file, column, key)
        )
        for number, text in enumerate(texts):
            yield f"{label}:{number}", text


def read_parquet(path: Path, column: str, key: str = "column") -> Iterator[str | None]:
    """Yield the values of a text column, with one batch of rows in memory.

    ValueError: the file is unreadable, or the column (named by the config's `key`) is missing or
    not text.
    """
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if column not in schema.names:
                raise ValueError(
                    f"{key}: {column!r} is not a column of {path}; allowed: "
                    f"{', '.join(schema.names)}"
                )
            kind = schema.field(column).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (
                pa.types.is_string(kind)
                or pa.types.is_large_string(kind)
                or pa.types.is_string_view(kind)
            ):
                raise ValueError(
                    f"{key}: {column!r} holds {kind}, not text, in {path}. Name a text column; "
                    f"its columns are: {', '.join(schema.names)}"
                )
            rows = _rows(file.metadata, column)
            for number, batch in enumerate(file.iter_batches(rows, columns=[column])):
                yield from _values(batch.column(0), path, number * rows)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path}: not a readable parquet file ({reason}). Download or write it again"
        ) from None


def _rows(about: pq.FileMetaData, column: str) -> int:
    """Return the number of rows per batch, from the row group with the longest mean row."""
    longest = 1.0
    for group in map(about.row_group, range(about.num_row_groups)):
        sizes = [
            leaf.total_uncompressed_size
            for leaf in map(group.column, range(group.num_columns))
            if leaf.path_in_schema == column
        ]
        longest = max(longest, sum(sizes) / max(1, group.num_rows))
    return int(min(ROWS, max(1, BATCH_BYTES // longest)))


def _values(array: pa.Array, path: Path, first: int) -> list[str | None]:
    try:
        return array.to_pylist()
    except UnicodeDecodeError:
        for row, value in enumerate(array):
            try:
                value.as_py()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}: row {first + row} is not valid UTF-8 at its byte {error.start}. "
                    "Convert the text to UTF-8"
                ) from None
        raise


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text without line end) of a UTF-8 file, gzipped or not."""
    offset, number = 0, 0
    with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as file:
        while True:
            try:
                line = file.readline(LONGEST_BYTES + 1)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ValueError(
                    f"{path}: not a readable gzip file ({error}). Download or write it again"
                ) from None
            if not line:
                return
            number += 1
            if len(line) > LONGEST_BYTES:
                raise ValueError(
                    f"{path}: line {number} exceeds {LONGEST_BYTES:,} bytes. Split the line"
                )
            yield number, _decode(line, path, offset).rstrip("\r\n")
            offset += len(line)


def _decode(data: bytes, path: Path, offset: int = 0) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not valid UTF-8 at byte {offset + error.start}. Convert the file to UTF-8 "
            "(iconv)"
        ) from None
    return text.removeprefix("\ufeff") if offset == 0 else text


def _read_jsonl(path: Path, column: str, key: str) -> Iterator[str | None]:
    keys, has_column = None, False
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path}: line {number} is not valid JSON ({error}). Correct or remove the line"
            ) from None
        if not isinstance(row, dict):
            raise ValueError(
                f"{path}: line {number} is not a JSON object; allowed: one object per line, with "
                f"the key {column!r}"
            )
        keys, has_column = keys or list(row), has_column or column in row
        text = row.get(column)
        yield text if isinstance(text, str) and _encodable(text) else None
    if keys is not None and not has_column:
        raise ValueError(
            f"{key}: {column!r}: no line of {path} has this key; its first line has the keys "
            f"{', '.join(keys)}. Name the key that holds the text"
        )


def _encodable(text: str) -> bool:
    """Return False for half a surrogate pair, which JSON can hold but UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_txt(path: Path, unit: str) -> Iterator[str]:
    """Yield one document per file, paragraph (text between blank lines) or line.

    A blank line or paragraph is no document.
    """
    if unit == "file":
        if path.stat().st_size > LONGEST_BYTES:
            raise ValueError(
                f"{path}: exceeds {LONGEST_BYTES:,} bytes, the limit of one document. Set "
                "txt_documents: paragraph or line"
            )
        yield _decode(path.read_bytes(), path).replace("\r\n", "\n")
    elif unit == "line":
        yield from (line for _, line in _lines(path) if line.strip())
    else:
        paragraph = []
        for _, line in _lines(path):
            if line.strip():
                paragraph.append(line)
            elif paragraph:
                yield "\n".join(paragraph)
                paragraph = []
        if paragraph:
            yield "\n".join(paragraph)
