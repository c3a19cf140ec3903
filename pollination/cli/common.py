"""Code that the commands share: plans of config files and run folders, tables, progress.

Each command is a module of this folder. Its docstring is the help text, and its first line the
entry in `pollination --help`. `EXAMPLE` is the example of the help text. `add_arguments(parser)`
declares the options; `run(arguments)` runs the command and returns the exit status.
"""

import math
import re
import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from pollination.cli.completion import completed_by, config_files, experiments
from pollination.core.sanitize import line
from pollination.plan.config.loading import preset, read_yaml
from pollination.plan.config.places import Places
from pollination.plan.config.resolve import ConfigError, resolve
from pollination.plan.plan import Plan
from pollination.plan.saved import read_run

PROGRESS_S = 10.0  # between progress lines in a file
CONFIGFILE = "config/config.yaml"


def add_configfile(parser: Any, otherwise: str = "") -> None:
    """Add the config file. `otherwise`: the text of a default that depends on other options."""
    option = parser.add_argument(
        "--configfile",
        type=preset,
        default=None if otherwise else CONFIGFILE,
        help=f"config file of the run (default: {otherwise or CONFIGFILE}); the configs of the "
        "project, such as config/paper/theory.yaml, are found from any folder",
    )
    completed_by(config_files, option)


def add_run(parser: ArgumentParser) -> None:
    """Add the folder of a run, and the config file from which it follows instead."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "folder",
        metavar="RUN",
        nargs="?",
        help="folder of the run (results/{run}, or a copy of it elsewhere); give either RUN or "
        "--configfile",
    )
    add_configfile(which)


def add_original(parser: ArgumentParser) -> None:
    """Add the folder of a run; without --configfile, the run's own config counts."""
    parser.add_argument(
        "--run",
        metavar="FOLDER",
        help="folder of the run; it may be imported, or another user's and read-only (default: "
        "results/{run} of the config)",
    )
    add_configfile(parser, "config/config.yaml; with --run, the config that the run has saved")


def read_original(arguments: Any) -> tuple[Plan, Path]:
    """Return the plan of the options of `add_original`, and the folder of its run.

    The plan has the paths that records name, results/{run}/, wherever the folder lies.
    """
    if arguments.run and not arguments.configfile:
        config = read_run(arguments.run).config
        return Plan(config, f"results/{config['run']}"), Path(arguments.run)
    plan = read_plan(arguments.configfile or CONFIGFILE)
    return plan, Path(arguments.run or plan.results)


def add_parameters(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--parameters",
        action="append",
        default=[],
        metavar="MODEL=COUNT",
        help="number of parameters of a model of the config whose size is unknown, e.g. "
        "large=1.7B (default: none); give the option once per model",
    )


def parameter_counts(words: list[str], models: dict) -> dict[str, int]:
    """Return the counts of --parameters by model. ValueError: a word is not MODEL=COUNT."""
    counts = {}
    for word in words:
        name, _, count = word.partition("=")
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMB]?)", count.replace("_", ""), re.I)
        unit = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9}[found[2].lower()] if found else 0
        if name not in models or not found or float(found[1]) * unit < 1:
            raise ValueError(
                f"--parameters: {word!r} is not MODEL=COUNT with a count of 1 or more, such as "
                f"1_700_000_000 or 1.7B; models: {', '.join(models)}"
            )
        counts[name] = round(float(found[1]) * unit)
    return counts


def add_experiment(parser: ArgumentParser) -> None:
    completed_by(
        experiments,
        parser.add_argument(
            "experiment", metavar="EXPERIMENT", help="name of an experiment in the config"
        ),
    )


def add_generation(parser: ArgumentParser) -> None:
    parser.add_argument(
        "generation",
        metavar="GENERATION",
        type=int,
        help="number of a generation; 0 holds the founders",
    )


def read_plan(configfile: str, places: Places | None = None) -> Plan:
    """Return the plan of a config file. `places` learns what an overlay changes.

    ConfigError: the config has mistakes. ValueError: the file cannot be read.
    """
    config = resolve(read_yaml(configfile), places or Places([configfile]))
    return Plan(config, f"results/{config['run']}")


def few(plan: Plan, places: Places) -> list[str]:
    """Return a line for each split of a corpus and benchmark that will be small (plan/sizes.py).

    Also for each pool whose text seems too short. ConfigError: local text is unreadable, or too
    little.
    """
    from pollination.analysis.cost.needs import shortages
    from pollination.data.forecast import expected  # loads pyarrow, so not for `--help`
    from pollination.plan.sizes import warnings

    try:
        said = list(warnings(plan, expected(plan)))
        short, maybe_short = shortages(plan)
    except ValueError as mistake:
        raise ConfigError([str(mistake)], places) from None
    if short:
        raise ConfigError(short, places)
    return said + maybe_short


def find_experiment(plan: Plan, name: str, generation: int) -> None:
    """Raise a ValueError if the plan has no such experiment or generation."""
    if name not in plan.config["experiments"]:
        raise ValueError(
            f"experiment {name!r} is not in the config; allowed: "
            f"{', '.join(plan.config['experiments'])}"
        )
    last = plan.experiment(name)["generations"] - 1
    if not 0 <= generation <= last:
        raise ValueError(f"generation {generation} is not in {name!r}; allowed: 0 to {last}")


def table(rows: list[tuple], left: int = 1) -> list[str]:
    """Align rows of text in columns: the first `left` columns flush left, the others right."""
    cells = [[line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def aligned(n: int, cell: str) -> str:
        return cell.ljust(widths[n]) if n < left else cell.rjust(widths[n])

    return ["  ".join(aligned(n, cell) for n, cell in enumerate(row)).rstrip() for row in cells]


def seconds(words: str, option: str, hint: str = "") -> float:
    """Return the interval of an option. ValueError: `words` are not a number in range."""
    try:
        value = float(words)
    except ValueError:
        value = math.nan
    if not 0.1 <= value <= 86400:
        raise ValueError(
            f"{option}: {words!r} is not a number of seconds; allowed: 0.1 to 86400{hint}"
        )
    return value


def bytes_(value: float) -> str:
    """Abbreviate a number of bytes: 1.2 GiB."""
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB")):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value / 2**10:,.1f} KiB"


def span(seconds: float) -> str:
    """Abbreviate a duration to its two largest units: 3 h 20 min."""
    whole_s = round(seconds)
    for size, unit, part, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole_s >= size:
            rest = whole_s % size // part
            return f"{whole_s // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole_s // 60} min" if whole_s >= 120 else f"{whole_s} s"


class Progress:
    """Progress of a long command, on standard error.

    A terminal shows one line that is overwritten. A file gets a new line every PROGRESS_S seconds.
    """

    def __init__(self, what: str) -> None:
        self.what, self.terminal = what, sys.stderr.isatty()
        self.shown_s = time.monotonic()

    def show(self, text: str, last: bool = False) -> None:
        now_s = time.monotonic()
        if not last and now_s - self.shown_s < (0.1 if self.terminal else PROGRESS_S):
            return
        self.shown_s = now_s
        if self.terminal:
            end = "\n" if last else ""
            print(f"\r\033[K{self.what}: {text}", end=end, file=sys.stderr, flush=True)
        elif not last:
            print(f"{self.what}: {text}", file=sys.stderr, flush=True)
