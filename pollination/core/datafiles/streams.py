"""Open a data file as a stream of bytes: decompressed, checked, and text as UTF-8.

A file whose content is not what its name says is refused.
"""

import codecs
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pollination.core.datafiles.formats import form_of

CHUNK = 2**16  # bytes that are read at once
START = 16  # bytes of a file that decide about its format
HEAD = 4096  # bytes of a text file that decide about its encoding
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


@contextmanager
def blamed(path: str | Path, errors: tuple = (OSError,), where: str = "") -> Iterator[None]:
    """Raise these errors as a ValueError that names the file. where: the place in it."""
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
def decompressed(path: str | Path) -> Iterator[BinaryIO]:
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
    start = file.read(START)
    file.seek(0)
    if start[1:4] == b"\x2a\x4d\x18" and start[0] >> 4 == 5:
        return "zstd"  # it begins with a frame of metadata
    if start.startswith(b"PAR1") and form != "parquet":
        file.seek(-4, os.SEEK_END)
        end = file.read()
        file.seek(0)
        return "parquet" if end == b"PAR1" else ""
    return next((name for magic, name in MAGIC.items() if start.startswith(magic)), "")


def byte_order_mark(path: str | Path) -> bytes:
    """Return the byte-order mark of a file that is not compressed."""
    with decompressed(path) as stream:
        head = stream.read(4)
    return next((mark for mark in MARKS if head.startswith(mark)), b"")


@contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a text file as bytes of UTF-8, decompressed and without byte-order mark."""
    with decompressed(path) as stream:
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
    with decompressed(path) as stream:
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
