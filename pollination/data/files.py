"""Read documents from local files and from a corpus folder, in batches."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pollination.core import causes
from pollination.core.artifacts import DamagedArtifact
from pollination.core.datafiles import read_column
from pollination.core.datafiles.formats import form_of, listed
from pollination.core.datafiles.parquet import ROWS
from pollination.core.datafiles.text import read_lines, read_text
from pollination.plan.config.paths import TEXT_ENDINGS, data_files, find_data, unfit


def read_documents(folder: Path, split: str) -> Iterator[tuple[str, str]]:
    """Stream (doc_id, text) of a split, in the order of the source."""
    path = Path(folder) / f"{split}.parquet"
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(1024, columns=["doc_id", "text"]):
                yield from zip(batch["doc_id"].to_pylist(), batch["text"].to_pylist(), strict=True)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError) or causes.of_system(error):
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
    for pattern in [path] if isinstance(path, str) else path:
        found = find_data(pattern, endings)
        if not found.files:
            passed_over = f" ({found.summary()})" if found.passed_over else ""
            raise ValueError(
                f"{key}: {pattern!r} names no {listed(endings)} file{passed_over}. Give the right "
                "path, set `data`, or download it with `pollination data`"
            )
        if said := unfit(found, endings):
            raise ValueError(f"{key}: {said}")
    return [Path(name) for name in data_files(path, endings)]


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
        is_txt = form_of(file)[0] == "txt"
        texts = _read_txt(file, unit) if is_txt else read_column(file, column, key)
        for number, text in enumerate(texts):
            yield f"{label}:{number}", text


def _read_txt(path: Path, unit: str) -> Iterator[str]:
    """Yield one document per file, paragraph (text between blank lines) or line.

    A blank line or paragraph is no document.
    """
    if unit == "file":
        yield read_text(path).replace("\r\n", "\n")
        return
    paragraph: list[str] = []
    for _, line in read_lines(path):
        if line.isspace():
            if paragraph:
                yield "\n".join(paragraph)
            paragraph = []
        elif unit == "line":
            yield line.rstrip("\r\n")
        else:
            paragraph.append(line.rstrip("\r\n"))
    if paragraph:
        yield "\n".join(paragraph)
