"""Unpack an archive of `pollination export` as the folder of a run.

The command compares all files with the digests in the archive, overwrites
nothing, and leaves nothing behind if it fails. `verify` and `reproduce` then
work on the folder alone.

Exit status:
  0: the archive is unpacked
  2: the command could not run (for example, the folder exists, or the archive
     is damaged)
"""

import json
import re
from pathlib import Path
from shlex import quote

import yaml

from pollination.cli.common import Progress, bytes_
from pollination.cli.runs.archive import CONFIG, opened, unpack

EXAMPLE = "pollination import demo.population.gen2.zip"
RUN = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


def add_arguments(parser) -> None:
    parser.add_argument("archive", metavar="ARCHIVE", help="file that `pollination export` wrote")
    parser.add_argument(
        "--into",
        metavar="FOLDER",
        help="new folder for the run (default: results/{run}, as in the archive)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON (default: as text)"
    )


def run(arguments) -> int:
    path = Path(arguments.archive)
    into = Path(arguments.into or f"results/{_run(path)}")
    progress = Progress(f"unpacking {path}")
    files = unpack(path, into, lambda done, of: progress.show(f"{bytes_(done)} of {bytes_(of)}"))
    progress.show(f"{files:,} files", last=True)
    if arguments.json:
        print(json.dumps({"folder": str(into), "files": files}, indent=1))
        return 0
    print(f"{into}: {files:,} files unpacked, all as in the archive; start with {into}/README.md")
    print(f"To compare them with their records, type: pollination verify {quote(str(into))}")
    return 0


def _run(path: Path) -> str:
    """Return the name of an archive's run."""
    with opened(path) as (archive, digests):
        name = None
        if CONFIG in digests:
            try:
                name = yaml.safe_load(archive.read(CONFIG)).get("run")
            except (yaml.YAMLError, AttributeError, ValueError, RecursionError):
                name = None
    if not isinstance(name, str) or not RUN.fullmatch(name):
        raise ValueError(f"{path}: its {CONFIG} names no run; give the new folder with --into")
    return name
