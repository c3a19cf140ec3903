"""Read csv and tsv. The header of a csv file decides its delimiter: comma, semicolon or tab."""

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from pollination.core.datafiles.formats import form_of
from pollination.core.datafiles.text import LONGEST_BYTES, read_lines


def read_csv(
    path: str | Path, columns: tuple[str, ...]
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return the header of a csv file, and its rows with their line numbers."""
    csv.field_size_limit(LONGEST_BYTES)
    lines = read_lines(path)
    start, head = next(((n, text) for n, text in lines if not text.isspace()), (0, ""))
    if not head:
        raise ValueError(f"{path}: the file is empty; its first line must name the columns")
    delimiter = _delimiter(path, head, columns)
    reader = csv.reader(
        chain([head], (text for _, text in lines)), delimiter=delimiter, strict=True
    )

    def following() -> list[str] | None:
        line = start + reader.line_num
        try:
            return next(reader, None)
        except csv.Error as error:
            raise ValueError(
                f"{path}: line {line} is not valid csv ({error}). Correct its quotes"
            ) from None

    header = [name.strip() for name in following() or []]

    def rows() -> Iterator[tuple[int, list[str]]]:
        line = start + reader.line_num
        while (row := following()) is not None:
            if len(row) == len(header):
                yield line, row
            elif any(map(str.strip, row)):
                raise ValueError(
                    f"{path}: line {line} has {len(row)} fields, but the header has {len(header)}. "
                    "Correct the line, or quote its text"
                )
            line = start + reader.line_num

    return header, rows()


def _delimiter(path: str | Path, head: str, columns: tuple[str, ...]) -> str:
    """Return the delimiter with which the header has the columns, or else the most columns."""
    if form_of(path)[0] == "tsv":
        return "\t"
    headers = {
        sign: [one.strip() for one in next(csv.reader([head], delimiter=sign))] for sign in ",;\t"
    }
    return max(headers, key=lambda sign: (set(columns) <= set(headers[sign]), len(headers[sign])))
