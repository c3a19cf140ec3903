"""Names of data files: their formats and compressions, and how messages name them."""

from pathlib import Path

FORMATS = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
}
COMPRESSIONS = {"": "", ".gz": "gzip", ".zst": "zstd"}
TABLES = ("parquet", "jsonl", "json", "csv", "tsv")  # formats that have columns
UNITS = {"parquet": "row", "json": "row"}  # what `place` counts; other formats: lines


def endings(*formats: str) -> tuple[str, ...]:
    """Return the endings of files in these formats; without formats, of all."""
    return tuple(
        end + packed
        for end, form in FORMATS.items()
        if form in (formats or FORMATS.values())
        for packed in COMPRESSIONS
    )


def listed(names: tuple[str, ...]) -> str:
    """Return endings for a message: each format once, and how it may be compressed."""
    plain = [name for name in names if not name.endswith((".gz", ".zst"))]
    packed = " (each plain, .gz or .zst)" if len(names) == 3 * len(plain) else ""
    return ", ".join(plain or names) + packed


def form_of(path: str | Path) -> tuple[str, str]:
    """Return (format, compression) by a file's name: ("jsonl", "gzip") for A.JSONL.gz.

    The format of an unknown ending is "".
    """
    stem, dot, end = Path(path).name.lower().rpartition(".")
    compression = COMPRESSIONS.get(dot + end, "") if dot else ""
    if compression:
        end = stem.rpartition(".")[2]
    return FORMATS.get(f".{end}", ""), compression


def place(path: str | Path, number: int) -> str:
    """Return the place of a row for a message: "FILE: line 3" or "FILE: row 3"."""
    return f"{path}: {UNITS.get(form_of(path)[0], 'line')} {number}"


def table_format(path: str | Path) -> str:
    """Return the format of a table. ValueError: the format has no columns."""
    form = form_of(path)[0]
    if form not in TABLES:
        raise ValueError(
            f"{path}: a {'.txt file has no columns' if form else 'file with an unknown ending'}; "
            f"allowed: {listed(endings(*TABLES))}. Convert the file"
        )
    return form


def column_place(header: list[str], name: str, path: str | Path, key: str) -> int:
    """Return the place of a column in a header. ValueError: it is missing, or there twice."""
    if name not in header:
        raise ValueError(
            f"{key}: {name!r} is not a column of {path}; allowed: {', '.join(header) or 'none'}"
        )
    if name and header.count(name) > 1:
        raise ValueError(f"{key}: {path} has {header.count(name)} columns {name!r}. Rename one")
    return header.index(name)
