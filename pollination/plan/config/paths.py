"""Which local files a path of the config names."""

import os
from glob import glob
from pathlib import Path

MAX_FILES = 200_000  # in a folder of text
TEXT_ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".txt")


def data_files(path: str | list[str], endings: tuple[str, ...] = TEXT_ENDINGS) -> list[str]:
    """Local files that a key names: a file, a folder's files of these endings, a glob, or a list.

    ValueError: more files in a folder than MAX_FILES, of whatever kind.
    """
    files = []
    for pattern in [path] if isinstance(path, str) else path:
        try:
            target = Path(pattern).expanduser()
            if target.is_dir():
                files += _text_files(target, endings)
            elif target.is_file():  # a name with brackets is a pattern only if no file has it
                files.append(str(target))
            else:
                files += sorted(glob(str(target), recursive=True))
        except (OSError, RuntimeError):  # too long a name, an unknown user: no file
            continue
    return list(dict.fromkeys(files))


def _text_files(folder: Path, endings: tuple[str, ...]) -> list[str]:
    files, seen = [], 0
    for place, _, names in os.walk(folder):
        seen += len(names)
        if seen > MAX_FILES:
            raise ValueError(
                f"more than {MAX_FILES:,} files lie in {str(folder)!r}; name the folder of the "
                "text alone, or put it into fewer files"
            )
        files += [os.path.join(place, name) for name in names if name.endswith(endings)]
    return sorted(files)
