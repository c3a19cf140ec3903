"""What the commands share: the plan of a config file or of a run's folder, and tables of text.

Each command is a module here. Its docstring is the help, `EXAMPLE` the last line of the help.
`add_arguments(parser)` says what it takes; `run(arguments)` answers and returns the exit status.
"""

import sys
import time
from argparse import ArgumentParser
from pathlib import Path

from pollination.cli.completion import completed_by, config_files, experiments
from pollination.core.sanitize import line
from pollination.core.settings import schema, whole
from pollination.plan.config.loading import preset, read_yaml
from pollination.plan.config.resolve import resolve
from pollination.plan.plan import Plan

PROGRESS_S = 10.0  # between lines of progress where they go to a file
CONFIGFILE = "config/config.yaml"


def add_configfile(parser: ArgumentParser) -> None:
    option = parser.add_argument(
        "--configfile",
        type=preset,
        default=CONFIGFILE,
        help="the config file (default: %(default)s); a preset, config/..., from any folder",
    )
    completed_by(config_files, option)


def add_experiment(parser: ArgumentParser) -> None:
    completed_by(experiments, parser.add_argument("experiment", metavar="EXPERIMENT"))


def read_plan(configfile: str) -> Plan:
    """The plan of a config file; ConfigError and OSError say what is wrong with it."""
    config = resolve(read_yaml(configfile), configfile)
    return Plan(config, f"results/{config['run']}")


def read_run(folder: str) -> Plan:
    """The plan of a run by its folder, results/{run}: the resolved config lies in it."""
    path = Path(folder, "config.yaml")
    if not path.is_file():
        raise ValueError(
            f"{folder}: there is no config.yaml in it, so it is no run's folder; allowed: "
            "results/{run}, or give --configfile"
        )
    config = read_yaml(path)
    if "experiments" not in config:
        raise ValueError(
            f"{path}: it is not the config of a run; delete it, and snakemake writes it again"
        )
    return Plan(whole(config, schema()), str(Path(folder)))


def find_experiment(plan: Plan, name: str, generation: int) -> None:
    """ValueError where there is no such generation."""
    if name not in plan.config["experiments"]:
        raise ValueError(
            f"experiment {name!r} is not in this config; allowed: "
            f"{', '.join(plan.config['experiments'])}"
        )
    last = plan.experiment(name)["generations"] - 1
    if not 0 <= generation <= last:
        raise ValueError(f"generation {generation} is not in {name!r}; allowed: 0 to {last}")


def table(rows: list[tuple], left: int = 1) -> list[str]:
    """Rows of text in columns, the first `left` of them flush left."""
    cells = [[line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def aligned(n: int, cell: str) -> str:
        return cell.ljust(widths[n]) if n < left else cell.rjust(widths[n])

    return ["  ".join(aligned(n, cell) for n, cell in enumerate(row)).rstrip() for row in cells]


class Progress:
    """Progress of long work, on standard error.

    A terminal shows one line that is rewritten; a file gets a line every PROGRESS_S seconds.
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
