"""Read a user's data files: parquet, jsonl, json, csv, tsv and txt, each plain, .gz or .zst.

Text is UTF-8 with or without a byte-order mark, or UTF-16 with one. Files are streamed. A file
whose content is not what its name says is refused. Every error is a ValueError in one line that
names the file, and the line or row (both from 1) if there is one.
"""

import codecs
import csv
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

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

LONGEST_BYTES = 2**31 - 2**20  # of a line or document, because a column of text holds no more
CHUNK = 2**16  # bytes that are read at once
PAGES = 2**20  # bytes of a parquet column; without it, a whole row group would be in memory
HEAD = 4096  # bytes of a text file that decide about its encoding
# Limits of a batch of a parquet file. A batch of long rows has fewer of them.
ROWS, BATCH_BYTES = 512, 64_000_000
MAGIC = {  # first bytes of files that are no text
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip (or xlsx)",
    b"BZh91AY&SY": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"%PDF-": "pdf",
}
MARKS = {  # byte-order mark -> encoding; UTF-32 comes first, because its mark begins like UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
SPACE = re.compile(r"[ \t\n\r]*")
ENDS = ("\n", "\r\n", "")
CUT = 16  # characters: JSON that is cut off in a token fails at most this far from its end


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


def is_encodable(text: str) -> bool:
    """Return False for half a surrogate pair, which JSON can hold but UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def place(path: str | Path, number: int) -> str:
    """Return the place of a row for a message: "FILE: line 3" or "FILE: row 3"."""
    return f"{path}: {UNITS.get(form_of(path)[0], 'line')} {number}"


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
    form = _table_format(path)
    if form == "parquet":
        return (
            row
            for before, values in _batches(path, columns, key, text)
            for row in zip(range(before + 1, before + 1 + len(values[0])), *values, strict=True)
        )
    if form in ("csv", "tsv"):
        header, rows = _csv(path, columns)
        places = [_column(header, name, path, key) for name in columns]
        return ((number, *map(row.__getitem__, places)) for number, row in rows)
    return _keys(path, columns, key, complete)


def read_column(path: str | Path, column: str, key: str = "column") -> Iterator[str | None]:
    """Yield the texts of a column; None if a row has none, or one that UTF-8 cannot hold.

    ValueError: as `read_rows`.
    """
    if form_of(path)[0] == "parquet":
        for _, (texts,) in _batches(path, (column,), key, (column,)):
            yield from texts
        return
    for _, text in read_rows(path, (column,), key):
        is_text = isinstance(text, str) and (text.isascii() or is_encodable(text))
        yield text if is_text else None


def read_records(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number, row) with all columns of a file."""
    form = _table_format(path)
    if form == "parquet":
        names = tuple(_parquet_columns(path))
        for number, *values in read_rows(path, names, "columns"):
            yield number, dict(zip(names, values, strict=True))
    elif form in ("csv", "tsv"):
        header, rows = _csv(path, ())
        for name in header:
            _column(header, name, path, "columns")
        for number, row in rows:
            yield number, dict(zip(header, row, strict=True))
    else:
        for number, value in _values(path, WHOLE):
            if not isinstance(value, dict):
                raise _no_object(path, number)
            yield number, value


def read_table(path: str | Path) -> Any:
    """Return a whole file as a pyarrow Table.

    A csv column becomes integers if all its values are; all other csv columns are text.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    form = _table_format(path)
    if form == "parquet":
        with _blamed(path, (pa.ArrowException, OSError)), _parquet_source(path) as source:
            return pq.read_table(source)
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


def read_json(path: str | Path) -> Any:
    """Return the value of a whole JSON file. ValueError: a key is repeated within an object."""
    text = read_text(path)
    try:
        return WHOLE.decode(text)
    except json.JSONDecodeError as error:
        reason: object = f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError) as error:
        reason = error
    raise ValueError(f"{path}: not valid JSON ({reason}). Correct or replace the file")


def read_text(path: str | Path) -> str:
    """Return the text of a whole file, with its line ends."""
    with _blamed(path), _opened(path) as stream:
        data = stream.read(LONGEST_BYTES + 1)
    if len(data) > LONGEST_BYTES:
        raise ValueError(
            f"{path}: exceeds {LONGEST_BYTES:,} bytes, the limit of one document. Set "
            "txt_documents: paragraph or line, or split the file"
        )
    return _decode(data, path, 1)


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line with its end). Lines end with LF or CR LF, or all with CR."""
    number, longest = 0, LONGEST_BYTES
    with _blamed(path), _opened(path) as stream:
        while line := stream.readline(longest + 1):
            number += 1
            if len(line) > longest:
                raise ValueError(f"{path}: line {number} exceeds {longest:,} bytes. Split the line")
            if b"\0" in line:
                raise _nul(path, number)
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise _not_utf8(path, number, error) from None
            if number == 1 and "\r" in text and not text.endswith("\n"):
                parts = text.removesuffix("\r").split("\r")
                yield from ((n, f"{part}\n") for n, part in enumerate(parts, 1))
                return
            yield number, text


def as_plain(path: str | Path, folder: str | Path) -> str:
    """Return a path to the file as plain UTF-8 (or plain parquet), for a reader of another package.

    It is the file itself if nothing has to change, else a copy in the empty folder `folder`.
    """
    is_table = form_of(path)[0] == "parquet"
    if not form_of(path)[1] and (is_table or not _mark(path)):
        for _ in () if is_table else read_lines(path):
            pass  # names the line of bytes that are not UTF-8
        return str(path)
    target = Path(folder) / f"{Path(path).stem}.plain"
    target.parent.mkdir(parents=True, exist_ok=True)
    source = _decompressed(path) if is_table else _opened(path)
    with _blamed(path), source as stream, open(target, "wb") as copy:
        shutil.copyfileobj(stream, copy, CHUNK)
    return str(target)


# Bytes


@contextmanager
def _blamed(path: str | Path, errors: tuple = (OSError,), where: str = "") -> Iterator[None]:
    form, compression = form_of(path)
    try:
        yield
    except errors as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        what = compression or ("parquet" if form == "parquet" else "")
        raise ValueError(
            f"{path}: not a readable {what}{' ' * bool(what)}file{where} ({reason}). Download or "
            "write it again"
        ) from None


@contextmanager
def _decompressed(path: str | Path) -> Iterator[BinaryIO]:
    """Yield the bytes of a file, decompressed."""
    form, compression = form_of(path)
    if not os.path.isfile(path):  # opening a named pipe would wait for ever
        said = "is no regular file" if os.path.exists(path) else "there is no such file"
        raise ValueError(f"{path}: {said}. Correct the path")
    with open(path, "rb", buffering=CHUNK) as file:
        content = _content(file, form)
        if compression and content not in ("", compression):
            raise ValueError(
                f"{path}: not a readable {compression} file (its content is {content}). Rename it, "
                "or download or write it again"
            )
        if not compression and content:
            raise ValueError(
                f"{path}: its content is {content}, which its name does not say. Rename or unpack "
                "the file"
            )
        if not compression or not os.path.getsize(path):
            yield file
            return
        import pyarrow as pa

        yield io.BufferedReader(pa.CompressedInputStream(file, compression), CHUNK)


def _content(file: BinaryIO, form: str) -> str:
    """Return what a file's first bytes say it is, if that is no text and not its own format."""
    start = file.read(CUT)
    file.seek(0)
    if start[1:4] == b"\x2a\x4d\x18" and start[0] >> 4 == 5:
        return "zstd"  # it begins with a frame of metadata
    if start.startswith(b"PAR1") and form != "parquet":
        file.seek(-4, os.SEEK_END)
        end = file.read()
        file.seek(0)
        return "parquet" if end == b"PAR1" else ""
    return next((name for magic, name in MAGIC.items() if start.startswith(magic)), "")


def _mark(path: str | Path) -> bytes:
    """Return the byte-order mark of a file that is not compressed."""
    with _decompressed(path) as stream:
        head = stream.read(4)
    return next((mark for mark in MARKS if head.startswith(mark)), b"")


@contextmanager
def _opened(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a text file as bytes of UTF-8, decompressed and without byte-order mark."""
    with _decompressed(path) as stream:
        head = stream.read(HEAD)
    mark = next((mark for mark in MARKS if head.startswith(mark)), b"")
    encoding = MARKS.get(mark, "utf-8")
    # In UTF-16 of most alphabets, every second byte is below 8.
    low = [sum(byte < 8 for byte in half) > 0.9 * len(half) for half in (head[::2], head[1::2])]
    wide = b"\0" in head and low.count(True) == 1
    if encoding == "utf-32" or (not mark and wide):
        said = "UTF-32" if mark else "UTF-16 without a byte-order mark"
        raise ValueError(
            f"{path}: {'is' if mark else 'seems to be'} {said}. Convert the file to UTF-8 (iconv)"
        )
    if packed := next((name for magic, name in MAGIC.items() if head.startswith(magic)), ""):
        raise ValueError(f"{path}: its decompressed content is {packed} again. Unpack the file")
    with _decompressed(path) as stream:
        stream.read(len(mark))
        yield (
            stream
            if encoding == "utf-8"
            else io.BufferedReader(_Transcoded(stream, encoding, path), CHUNK)
        )


class _Transcoded(io.RawIOBase):
    """A stream of UTF-8 from a stream in another encoding."""

    def __init__(self, stream: BinaryIO, encoding: str, path: str | Path) -> None:
        self.stream, self.encoding, self.path = stream, encoding, path
        self.decoder = codecs.getincrementaldecoder(encoding)()
        self.ready, self.lines = b"", 1

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self.ready:
            data = self.stream.read(CHUNK)
            try:
                text = self.decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                before = error.object[: error.start].decode(self.encoding)
                raise ValueError(
                    f"{self.path}: line {self.lines + before.count(chr(10))} is not valid UTF-16 "
                    f"({error.reason}). Convert the file to UTF-8"
                ) from None
            self.lines += text.count("\n")
            self.ready = text.encode()
            if not data:
                break
        size = min(len(target), len(self.ready))
        target[:size], self.ready = self.ready[:size], self.ready[size:]
        return size


def _decode(data: bytes, path: str | Path, line: int) -> str:
    """Return the text of bytes that begin in this line."""
    if b"\0" in data:
        raise _nul(path, line + data.count(10, 0, data.index(0)))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(path, line + data.count(10, 0, error.start), error) from None


def _nul(path: str | Path, line: int) -> ValueError:
    return ValueError(
        f"{path}: line {line} holds a NUL byte. The file is UTF-16 without a byte-order mark, "
        "damaged, or no text. Convert it to UTF-8 (iconv), or write it again"
    )


def _not_utf8(path: str | Path, line: int, error: UnicodeDecodeError) -> ValueError:
    start = error.object.rfind(b"\n", 0, error.start) + 1
    return ValueError(
        f"{path}: line {line} is not valid UTF-8 at its byte {error.start - start}. Convert the "
        "file to UTF-8 (iconv)"
    )


# Tables


def _table_format(path: str | Path) -> str:
    form = form_of(path)[0]
    if form not in TABLES:
        raise ValueError(
            f"{path}: a {'.txt file has no columns' if form else 'file with an unknown ending'}; "
            f"allowed: {listed(endings(*TABLES))}. Convert the file"
        )
    return form


def _column(header: list[str], name: str, path: str | Path, key: str) -> int:
    """Return the place of a column in a header. ValueError: it is missing, or there twice."""
    if name not in header:
        raise ValueError(
            f"{key}: {name!r} is not a column of {path}; allowed: {', '.join(header) or 'none'}"
        )
    if name and header.count(name) > 1:
        raise ValueError(f"{key}: {path} has {header.count(name)} columns {name!r}. Rename one")
    return header.index(name)


@contextmanager
def _parquet_source(path: str | Path) -> Iterator[Any]:
    """Yield a parquet file for pyarrow. A compressed one is unpacked to a temporary file first."""
    with _decompressed(path) as stream:
        if not form_of(path)[1]:
            yield str(path)
            return
        with tempfile.TemporaryFile(prefix="pollination-") as file:
            shutil.copyfileobj(stream, file, CHUNK)
            file.seek(0)
            yield file


def _batches(
    path: str | Path, columns: tuple[str, ...], key: str, text: tuple[str, ...]
) -> Iterator[tuple[int, list[list]]]:
    """Yield (number of rows before, values of each column) of one batch after another."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    errors = (pa.ArrowException, OSError)
    with (
        _blamed(path, errors),
        _parquet_source(path) as source,
        pq.ParquetFile(source, buffer_size=PAGES) as file,
    ):
        schema = file.schema_arrow
        for name in columns:
            _column(schema.names, name, path, key)
            if name in text and not _is_text(kind := schema.field(name).type):
                raise ValueError(
                    f"{key}: {name!r} holds {kind}, not text, in {path}. Name a text column; "
                    f"its columns are: {', '.join(schema.names)}"
                )
        number, rows = 0, batch_rows(file.metadata, columns)
        batches = file.iter_batches(rows, columns=list(columns))
        while True:
            with _blamed(path, errors, f" after row {number}"):
                batch = next(batches, None)
            if batch is None:
                return
            yield number, [_cells(batch.column(name), path, number) for name in columns]
            number += len(batch)


def _parquet_columns(path: str | Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _blamed(path, (pa.ArrowException, OSError)), _parquet_source(path) as source:
        return pq.read_schema(source).names


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def batch_rows(about: Any, columns: tuple[str, ...]) -> int:
    """Return the number of rows per batch, from the row group with the longest mean row."""
    longest = 1.0
    for group in map(about.row_group, range(about.num_row_groups)):
        sizes = [
            leaf.total_uncompressed_size
            for leaf in map(group.column, range(group.num_columns))
            if leaf.path_in_schema in columns or leaf.path_in_schema.split(".")[0] in columns
        ]
        longest = max(longest, sum(sizes) / max(1, group.num_rows))
    return int(min(ROWS, max(1, BATCH_BYTES // longest)))


def _cells(array: Any, path: str | Path, before: int) -> list:
    try:
        return array.to_pylist()
    except UnicodeDecodeError:
        for row, value in enumerate(array, before + 1):
            try:
                value.as_py()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}: row {row} is not valid UTF-8 at its byte {error.start}. Convert the "
                    "text to UTF-8"
                ) from None
        raise


def _csv(
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


# JSON


def _values(path: str | Path, decoder: json.JSONDecoder) -> Iterator[tuple[int, Any]]:
    is_json = form_of(path)[0] == "json"
    return _elements(path, decoder) if is_json else _json_lines(path, decoder)


def _json_lines(path: str | Path, decoder: json.JSONDecoder) -> Iterator[tuple[int, Any]]:
    for number, line in read_lines(path):
        try:
            value, end = decoder.raw_decode(line)
            if line[end:] not in ENDS:  # white space before or after the value, or a mistake
                value = decoder.decode(line)
        except (ValueError, RecursionError) as error:
            if line.isspace():
                continue
            try:
                value = decoder.decode(line)
            except (ValueError, RecursionError):
                reason = getattr(error, "msg", error)
                raise ValueError(
                    f"{path}: line {number} is not valid JSON ({reason}). Correct or remove it"
                ) from None
        yield number, value


def _no_object(path: str | Path, number: int) -> ValueError:
    is_json = form_of(path)[0] == "json"
    allowed = "objects, or a list of objects" if is_json else "one object per line"
    return ValueError(f"{place(path, number)} is not a JSON object; allowed: {allowed}")


def _elements(path: str | Path, decoder: json.JSONDecoder) -> Iterator[tuple[int, Any]]:
    """Yield (row, value) of a JSON list, or of values one after another."""
    chunks, decode = _chunks(path), decoder.raw_decode
    text, at, row, is_list = next(chunks, ""), 0, 0, False

    def more() -> bool:
        """Read on. The text grows by half at least, so that a long value is not read too often."""
        nonlocal text, at
        read, size = [text[at:]], 0
        while size <= len(text) // 2 and (chunk := next(chunks, "")):
            read.append(chunk)
            size += len(chunk)
        text, at = "".join(read), 0
        if len(text) > LONGEST_BYTES:
            raise ValueError(f"{path}: row {row} exceeds {LONGEST_BYTES:,} characters. Split it")
        return size > 0

    def next_sign() -> str:
        nonlocal at
        while True:
            at = SPACE.match(text, at).end()  # type: ignore[union-attr]
            if at < len(text):
                return text[at]
            if not more():
                return ""

    def broken(reason: object) -> ValueError:
        return ValueError(f"{path}: row {row} is not valid JSON ({reason}). Correct or remove it")

    if is_list := next_sign() == "[":
        at += 1
    while sign := next_sign():
        if is_list and sign == "]" and row == 0:
            break
        row += 1
        while True:
            try:
                value, end = decode(text, at)
                break
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos > len(text) - CUT
                if not (cut and more()):
                    raise broken(error.msg) from None
            except (ValueError, RecursionError) as error:
                raise broken(error) from None
        yield row, value
        at = end
        sign = next_sign()
        if is_list and sign == ",":
            at += 1
        elif is_list and sign == "]":
            break
        elif is_list:
            raise broken("the list has no end or lacks a comma after this row")
    else:
        if is_list:
            raise broken("the list has no end")
        return
    at += 1
    if next_sign():
        raise ValueError(f"{path}: there is more text after the end of the JSON list. Remove it")


def _chunks(path: str | Path) -> Iterator[str]:
    """Yield the text of a file in pieces."""
    rest, line = b"", 1
    with _blamed(path), _opened(path) as stream:
        while data := stream.read(CHUNK):
            data = rest + data
            # the last bytes may be the first part of a character
            cut = len(data) - next((n for n in (1, 2, 3) if data[-n:][:1] >= b"\xc0"), 0)
            rest = data[cut:]
            yield _decode(data[:cut], path, line)
            line += data.count(10, 0, cut)
        yield _decode(rest, path, line)


def _keys(path: str | Path, columns: tuple[str, ...], key: str, complete: bool) -> Iterator[tuple]:
    keys: list[str] = []
    missing: list[str] = list(columns)
    for number, pairs in _values(path, PAIRS):
        if type(pairs) is not tuple:
            raise _no_object(path, number)
        row = dict(pairs)
        if len(row) < len(pairs):
            names = [name for name, _ in pairs]
            if twice := [name for name in columns if names.count(name) > 1]:
                raise ValueError(
                    f"{place(path, number)} has the key {twice[0]!r} twice. Remove one"
                )
        values = tuple(map(row.get, columns))
        if missing or None in values:
            keys = keys or list(row)
            absent = [name for name in columns if name not in row]
            if complete and absent:
                raise ValueError(
                    f"{place(path, number)} has no key {absent[0]!r}; needed: "
                    f"{', '.join(columns)}; its keys are {', '.join(row)}"
                )
            missing = [name for name in missing if name in absent]
        yield number, *values
    if keys and missing:
        unit = UNITS.get(form_of(path)[0], "line")
        raise ValueError(
            f"{key}: {missing[0]!r}: no {unit} of {path} has this key; its first {unit} has the "
            f"keys {', '.join(keys)}. Name a key that the file has"
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return value


# PAIRS makes an object a tuple of (key, value), and costs no call of Python per object.
PAIRS = json.JSONDecoder(object_pairs_hook=tuple)
WHOLE = json.JSONDecoder(object_pairs_hook=_unique)
