"""Find the local files that a path of the config names."""

import os
from glob import glob
from pathlib import Path

MAX_FILES = 200_000  # in a folder of text
TEXT_ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".txt")


def data_files(path: str | list[str], endings: tuple[str, ...] = TEXT_ENDINGS) -> list[str]:
    """Return the local files that a key names by a file, a folder, a glob or a list of these.

    Of a folder, only files with these endings count.

    Raises ValueError if a folder contains more than MAX_FILES files of any kind.
    """
    files = []
    for pattern in [path] if isinstance(path, str) else path:
        try:
            target = Path(pattern).expanduser()
            if target.is_dir():
                files += _text_files(target, endings)
            elif target.is_file():  # a name with brackets is a pattern only if no such file exists
                files.append(str(target))
            else:
                files += sorted(glob(str(target), recursive=True))
        except (OSError, RuntimeError):  # the name is too long, or its user unknown
            continue
    return list(dict.fromkeys(files))


def _text_files(folder: Path, endings: tuple[str, ...]) -> list[str]:
    files, seen = [], 0
    for place, _, names in os.walk(folder):
        seen += len(names)
        if seen > MAX_FILES:
            raise ValueError(
                f"{str(folder)!r} contains more than {MAX_FILES:,} files; name a folder that "
                "contains only the text, or merge the text into fewer files"
            )
        files += [os.path.join(place, name) for name in names if name.endswith(endings)]
    return sorted(files)
