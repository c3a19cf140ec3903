"""Read text: whole files, lines and chunks. Bytes that are not UTF-8 are refused by their line."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from pollination.core.datafiles.formats import form_of
from pollination.core.datafiles.streams import (
    CHUNK,
    blamed,
    byte_order_mark,
    decompressed,
    opened,
)

LONGEST_BYTES = 2**31 - 2**20  # of a line or document, because a column of text holds no more


def is_encodable(text: str) -> bool:
    """Return False for half a surrogate pair, which JSON can hold but UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_text(path: str | Path) -> str:
    """Return the text of a whole file, with its line ends."""
    with blamed(path), opened(path) as stream:
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
    with blamed(path), opened(path) as stream:
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


def read_chunks(path: str | Path) -> Iterator[str]:
    """Yield the text of a file in chunks of about `CHUNK` bytes."""
    rest, line = b"", 1
    with blamed(path), opened(path) as stream:
        while data := stream.read(CHUNK):
            data = rest + data
            # the last bytes may be the first part of a character
            cut = len(data) - next((n for n in (1, 2, 3) if data[-n:][:1] >= b"\xc0"), 0)
            rest = data[cut:]
            yield _decode(data[:cut], path, line)
            line += data.count(10, 0, cut)
        yield _decode(rest, path, line)


def as_plain(path: str | Path, folder: str | Path) -> str:
    """Return a path to the file as plain UTF-8 (or plain parquet), for a reader of another package.

    It is the file itself if nothing has to change, else a copy in the empty folder `folder`.
    """
    is_table = form_of(path)[0] == "parquet"
    if not form_of(path)[1] and (is_table or not byte_order_mark(path)):
        for _ in () if is_table else read_lines(path):
            pass  # names the line of bytes that are not UTF-8
        return str(path)
    target = Path(folder) / f"{Path(path).stem}.plain"
    target.parent.mkdir(parents=True, exist_ok=True)
    source = decompressed(path) if is_table else opened(path)
    with blamed(path), source as stream, open(target, "wb") as copy:
        shutil.copyfileobj(stream, copy, CHUNK)
    return str(target)


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
