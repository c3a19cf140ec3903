"""Recompute one generation elsewhere, compare it bit for bit, and say what differs and why.

The run itself is left alone: the command links the generation's inputs into a folder of their own,
where Snakemake makes the generation's files and nothing else. On a CPU all files are equal; on a
GPU the last digits may differ.

Exit status: 0 all files are equal, 1 some differ, 2 the generation cannot be recomputed.
"""

import os
from pathlib import Path

from pollination.cli.common import (
    CONFIGFILE,
    Progress,
    add_configfile,
    add_experiment,
    find_experiment,
    read_plan,
    table,
)
from pollination.cli.runs.reproduction import compare, make, prepare

EXAMPLE = "pollination reproduce population 2 --configfile config/config.yaml"
SHOWN = 20


def add_arguments(parser) -> None:
    add_experiment(parser)
    parser.add_argument("generation", metavar="GENERATION", type=int)
    parser.add_argument(
        "--into",
        metavar="FOLDER",
        help="a new folder (default: reproduced/{run}.{experiment}.gen{g})",
    )
    parser.add_argument(
        "--run",
        metavar="FOLDER",
        help="where the run lies, if not at results/{run}: another user's, read-only",
    )
    parser.add_argument(
        "--profile",
        default=None,
        help="snakemake's profile (default: the project's profiles/local)",
    )
    parser.add_argument(
        "--cores",
        default=str(os.cpu_count() or 1),
        help="cores that snakemake may use (default: %(default)s)",
    )
    add_configfile(parser)


def run(arguments) -> int:
    configfile = arguments.configfile or CONFIGFILE
    plan, name, generation = read_plan(configfile), arguments.experiment, arguments.generation
    find_experiment(plan, name, generation)
    original = Path(arguments.run or plan.results)
    into = Path(arguments.into or f"reproduced/{plan.config['run']}.{name}.gen{generation}")
    progress = Progress(f"{name}, generation {generation}")
    inputs = prepare(plan, configfile, name, generation, original, into)
    print(
        f"{name}, generation {generation}: {inputs} input files linked into {into}; snakemake "
        f"says in {into}/snakemake.log what it does",
        flush=True,
    )
    make(plan, name, generation, into, arguments.profile, arguments.cores, progress.show)
    equal, differing, notes = compare(plan, name, generation, original, into)
    print(f"{equal} files equal, {len(differing)} differ")
    if differing:
        print("\n".join(table([(f"  {path}", why) for path, why in differing[:SHOWN]], left=2)))
        print(f"  ... and {len(differing) - SHOWN} more" if len(differing) > SHOWN else "", end="")
    print("\n".join(notes))
    return int(bool(differing))
