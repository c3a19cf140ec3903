"""Read json and jsonl: a whole document, or one value after another."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pollination.core.datafiles.formats import UNITS, form_of, place
from pollination.core.datafiles.text import LONGEST_BYTES, read_chunks, read_lines, read_text

SPACE = re.compile(r"[ \t\n\r]*")
ENDS = ("\n", "\r\n", "")
CUT = 16  # characters: JSON that is cut off in a token fails at most this far from its end


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


def read_values(path: str | Path, decoder: json.JSONDecoder) -> Iterator[tuple[int, Any]]:
    """Yield (number, value) of each row or line."""
    is_json = form_of(path)[0] == "json"
    return _elements(path, decoder) if is_json else _json_lines(path, decoder)


def read_keys(
    path: str | Path, columns: tuple[str, ...], key: str, complete: bool
) -> Iterator[tuple]:
    """Yield (number, value of each key); the arguments are those of `read_rows`."""
    keys: list[str] = []
    missing: list[str] = list(columns)
    for number, pairs in read_values(path, PAIRS):
        if type(pairs) is not tuple:
            raise no_object(path, number)
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


def no_object(path: str | Path, number: int) -> ValueError:
    """Return the error for a row whose value is not a JSON object."""
    is_json = form_of(path)[0] == "json"
    allowed = "objects, or a list of objects" if is_json else "one object per line"
    return ValueError(f"{place(path, number)} is not a JSON object; allowed: {allowed}")


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


def _elements(path: str | Path, decoder: json.JSONDecoder) -> Iterator[tuple[int, Any]]:
    """Yield (row, value) of a JSON list, or of values one after another."""
    chunks, decode = read_chunks(path), decoder.raw_decode
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
