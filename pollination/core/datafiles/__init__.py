"""Read a user's data files: parquet, jsonl, json, csv, tsv and txt, each plain, .gz or .zst.

formats    endings, formats and compressions of files
streams    a file as bytes: decompressed, text as UTF-8
text       whole texts and lines
parquet    batches of rows
delimited  csv and tsv
jsons      json and jsonl

This module reads the rows and columns of any table. Text is UTF-8 with or without a byte-order
mark, or UTF-16 with one. Files are streamed. Every error is a ValueError in one line that names
the file, and the line or row (both from 1) if there is one.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pollination.core.datafiles.delimited import read_csv
from pollination.core.datafiles.formats import column_place, form_of, table_format
from pollination.core.datafiles.jsons import WHOLE, no_object, read_keys, read_values
from pollination.core.datafiles.parquet import column_names, read_batches, read_parquet
from pollination.core.datafiles.text import is_encodable


def read_rows(
    path: str | Path,
    columns: tuple[str, ...],
    key: str = "column",
    text: tuple[str, ...] = (),
    complete: bool = False,
) -> Iterator[tuple]:
    """Yield (number, value of each column) of every row; a null or a missing JSON key is None.

    number: of the line, or of the row if the format has no lines (`place`). key: the config's key
    of the columns, for messages. text: columns of parquet whose type must be text. complete: refuse
    a JSON object that lacks a key; otherwise a file is refused if no object has it.
    ValueError: the file is unreadable, lacks a column or has it twice, or a row is not one.
    """
    form = table_format(path)
    if form == "parquet":
        return (
            row
            for before, values in read_batches(path, columns, key, text)
            for row in zip(range(before + 1, before + 1 + len(values[0])), *values, strict=True)
        )
    if form in ("csv", "tsv"):
        header, rows = read_csv(path, columns)
        places = [column_place(header, name, path, key) for name in columns]
        return ((number, *map(row.__getitem__, places)) for number, row in rows)
    return read_keys(path, columns, key, complete)


def read_column(path: str | Path, column: str, key: str = "column") -> Iterator[str | None]:
    """Yield the texts of a column; None if a row has none, or one that UTF-8 cannot hold.

    ValueError: as `read_rows`.
    """
    if form_of(path)[0] == "parquet":
        for _, (texts,) in read_batches(path, (column,), key, (column,)):
            yield from texts
        return
    for _, text in read_rows(path, (column,), key):
        is_text = isinstance(text, str) and (text.isascii() or is_encodable(text))
        yield text if is_text else None


def read_records(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number, row) with all columns of a file."""
    form = table_format(path)
    if form == "parquet":
        names = tuple(column_names(path))
        for number, *values in read_rows(path, names, "columns"):
            yield number, dict(zip(names, values, strict=True))
    elif form in ("csv", "tsv"):
        header, rows = read_csv(path, ())
        for name in header:
            column_place(header, name, path, "columns")
        for number, row in rows:
            yield number, dict(zip(header, row, strict=True))
    else:
        for number, value in read_values(path, WHOLE):
            if not isinstance(value, dict):
                raise no_object(path, number)
            yield number, value


def read_table(path: str | Path) -> Any:
    """Return a whole file as a pyarrow Table.

    A csv column becomes integers if all its values are; all other csv columns are text.
    """
    import pyarrow as pa

    form = table_format(path)
    if form == "parquet":
        return read_parquet(path)
    rows = [row for _, row in read_records(path)]
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values: list[Any] = [row.get(name) for row in rows]
        if form in ("csv", "tsv") and all(re.fullmatch(r"0|-?[1-9]\d{,17}", v) for v in values):
            values = list(map(int, values))
        try:
            pa.array([name])  # a key of JSON can hold what UTF-8 cannot
            columns[name] = pa.array(values)
        except (pa.ArrowException, UnicodeError, OverflowError) as error:
            raise ValueError(
                f"{path}: column {name!r} cannot be stored ({str(error).splitlines()[0]}). Give "
                "all its values one type"
            ) from None
    return pa.table(columns)
