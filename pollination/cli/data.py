"""Download the data sets that the configs need, or list them.

Without a name, the command lists all data sets with their size, licence and state. `all` downloads
all of them, --configfile those that one config reads. Each download is compared with its digest and
recorded in FOLDER/NAME.json. The command does not repeat a complete download.

Data, tokenizers and models that a config takes from the Hugging Face hub by name need no such
download: the first jobs of the run fetch them.

Exit status: 0: the data sets are there; 2: the command could not run.
"""

import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pollination.cli.common import table
from pollination.cli.completion import completed_by, config_files
from pollination.plan.config.loading import preset, read_yaml
from pollination.plan.config.places import Places
from pollination.plan.config.resolve import resolve
from pollination.plan.datasets import dataset_of, datasets

EXAMPLE = "pollination data --configfile config/real/openstax.yaml"
FOLDER = "data"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"{', '.join(datasets())}, or all")
    option = parser.add_argument(
        "--configfile", type=preset, help="download what this config reads from its data folder"
    )
    completed_by(config_files, option)
    parser.add_argument(
        "--into",
        metavar="FOLDER",
        help=f"the data folder (default: {FOLDER}, or the key `data` of the config)",
    )


def run(arguments: Namespace) -> int:
    names, place = list(arguments.names), FOLDER
    if arguments.configfile:
        config = resolve(read_yaml(arguments.configfile), Places([arguments.configfile]))
        place = config["data"]
        names += _needed(config)
        if not names:
            print(f"{arguments.configfile} reads no data set of this list.")
            return 0
    folder = Path(os.path.expanduser(arguments.into or place))
    if not names:
        print("\n".join(_listed(folder)))
        return 0
    for name in names:
        if name not in (*datasets(), "all"):
            allowed = f"{', '.join(datasets())}, or all"
            raise ValueError(f"NAME: {name!r} is not a data set; allowed: {allowed}")
    if "all" in names:
        names = list(datasets())
    from pollination.data.download import download

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the scratch folder goes
    states = {
        "downloaded": "downloaded to",
        "complete": "complete in",
        "present": "not downloaded by this command, left as it is in",
    }
    for name in dict.fromkeys(names):
        state = download(name, folder, lambda text: print(text, file=sys.stderr, flush=True))
        print(f"{name}: {states[state]} {folder}")
    return 0


def _needed(config: dict) -> list[str]:
    sections = [config[key] for key in ("corpora", "models", "tasks", "fingerprint")]
    found = [dataset_of(text, config["data"]) for text in _strings(sections)]
    return [name for name in dict.fromkeys(found) if name]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
    elif isinstance(value, str):
        yield value


def _listed(folder: Path) -> list[str]:
    rows: list[tuple] = [("data set", "licence", "MB", f"in {folder}", "contents")]
    for name, entry in datasets().items():
        there = all((folder / file).exists() for file in entry["files"])
        row = (name, entry["licence"], entry["download_mb"], "yes" if there else "no")
        rows.append((*row, entry["about"]))
    return table(rows, left=5)
