"""Find the local files that a path of the config names."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path

from pollination.core.datafiles.formats import COMPRESSIONS, endings, listed
from pollination.core.datafiles.text import is_encodable
from pollination.core.sanitize import reason

MAX_FILES = 200_000  # in a folder of text
SAID = 5  # names in a message
TEXT_ENDINGS = endings()
TABLE_ENDINGS = endings("parquet", "jsonl", "json", "csv", "tsv")
SURVEY_ENDINGS = {"outputs": TABLE_ENDINGS, "results": endings("json")}  # by kind


@dataclass
class Found:
    """The files that a key names, in order, and what was passed over: {path: reason}."""

    files: list[str] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """Return what was passed over, for one line of a log or message; "" if nothing was."""
        names = [f"{name} ({why})" for name, why in self.passed_over.items()]
        more = f" and {len(names) - SAID:,} more" if len(names) > SAID else ""
        return f"passed over: {', '.join(names[:SAID])}{more}" if names else ""


def data_files(path: str | list[str], endings: tuple[str, ...] = TEXT_ENDINGS) -> list[str]:
    """Return the files of `find_data`."""
    return find_data(path, endings).files


def find_data(path: str | list[str], endings: tuple[str, ...] = TEXT_ENDINGS) -> Found:
    """Find the local files that a key names by a file, a folder, a glob or a list of these.

    Of a folder, regular files with these endings count, in any case of letters. Hidden and empty
    files, links to folders and further links to a file do not count. Each is passed over with its
    reason.

    Raises ValueError if a folder contains more than MAX_FILES files of any kind, or a file both
    plain and compressed, or cannot be listed.
    """
    found = Found()
    seen: dict[tuple[int, int], str] = {}  # device and number of each file
    for pattern in [path] if isinstance(path, str) else path:
        try:
            target = Path(pattern).expanduser()
            if target.is_dir():
                names = _folder(target, endings, found)
            elif target.is_file():  # a name with brackets is a pattern only if no such file exists
                names = [str(target)]
            else:
                names = _matches(sorted(glob(str(target), recursive=True)), found)
        except (OSError, RuntimeError):  # the name is too long, or its user unknown
            continue
        for name in names:
            about = os.stat(name)
            first = seen.setdefault((about.st_dev, about.st_ino), name)
            if first == name:
                found.files.append(name)
            elif os.path.abspath(first) != os.path.abspath(name):
                found.passed_over[name] = f"the same file as {first}"
    found.files = list(dict.fromkeys(found.files))
    return found


def _matches(names: list[str], found: Found) -> list[str]:
    """Return the files among the matches of a glob."""
    for name in names:
        if not os.path.isfile(name):
            found.passed_over[name] = _kind(name)
    return [name for name in names if os.path.isfile(name)]


def _kind(name: str) -> str:
    """Return what a path is that is no regular file."""
    if os.path.isdir(name):
        return "folder"
    return "no regular file" if os.path.exists(name) else "broken link"


def _folder(folder: Path, endings: tuple[str, ...], found: Found) -> list[str]:
    files: list[str] = []
    for name, passed_over in _walk(folder):
        if not passed_over and not name.lower().endswith(endings):
            passed_over = "unknown ending"
        elif not passed_over and not os.path.isfile(name):
            passed_over = _kind(name)
        elif not passed_over and os.path.getsize(name) == 0:
            passed_over = "empty"
        if passed_over:
            found.passed_over[name] = passed_over
        else:
            files.append(name)
    plain: dict[str, str] = {}
    for name in sorted(files):
        stem, end = os.path.splitext(name)
        first = plain.setdefault(stem if end.lower() in COMPRESSIONS else name, name)
        if first != name:
            raise ValueError(
                f"{first!r} and {name!r} seem to be the same data, plain and compressed; remove "
                "one, or list the files to read"
            )
    return sorted(files)


def _walk(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield (path, "") of each file, and (path, reason) of what is passed over by its place."""
    seen = 0

    def refuse(error: OSError) -> None:
        raise ValueError(
            f"{error.filename!r}: the folder cannot be listed ({reason(error)}); change its "
            "permissions, or name the files"
        )

    for place, folders, names in os.walk(folder, onerror=refuse):
        seen += len(names)
        if seen > MAX_FILES:
            raise ValueError(
                f"{str(folder)!r} contains more than {MAX_FILES:,} files; name a folder that "
                "contains only the text, or merge the text into fewer files"
            )
        for name in sorted(folders):
            path = os.path.join(place, name)
            if name.startswith("."):
                yield path, "hidden folder"
            elif os.path.islink(path):
                yield path, "link to a folder"
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            yield os.path.join(place, name), "hidden file" if name.startswith(".") else ""


def unfit(found: Found, endings: tuple[str, ...]) -> str | None:
    """Return what is wrong with the first file that cannot be read by its name; None if none is."""
    for name in found.files:
        if not name.lower().endswith(endings):
            return (
                f"{name!r} has another ending; allowed: {listed(endings)}. Convert or leave out "
                "the file"
            )
        if not is_encodable(name):
            return f"{name!r}: the name is not valid UTF-8. Rename the file"
        if os.path.isfile(name) and os.path.getsize(name) == 0:
            return f"{name!r} is empty (0 bytes). Replace or leave out the file"
    return None
