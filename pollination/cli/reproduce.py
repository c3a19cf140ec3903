"""Recompute one finished generation and compare it bit for bit.

The run itself does not change. The command links the inputs of the generation
into a new folder, and Snakemake recomputes only this generation there. The
report lists the files that differ, and why. On a CPU all files are equal; on a
GPU the last digits may differ.

Exit status:
  0: all files are equal
  1: some files differ
  2: the command could not run (for example, the generation is not finished)
"""

import os
from pathlib import Path

from pollination.cli.common import (
    Progress,
    add_experiment,
    add_generation,
    add_original,
    find_experiment,
    read_original,
    table,
)
from pollination.cli.runs.reproduction import compare, make, prepare

EXAMPLE = "pollination reproduce population 2 --configfile config/config.yaml"
SHOWN = 20


def add_arguments(parser) -> None:
    add_experiment(parser)
    add_generation(parser)
    parser.add_argument(
        "--into",
        metavar="FOLDER",
        help="new folder for the recomputed files (default: reproduced/{run}.{experiment}.gen{g})",
    )
    parser.add_argument(
        "--profile",
        default=None,
        help="Snakemake profile (default: the project's profiles/local)",
    )
    parser.add_argument(
        "--cores",
        default=str(os.cpu_count() or 1),
        help="number of cores that Snakemake may use (default: all)",
    )
    add_original(parser)


def run(arguments) -> int:
    (plan, original), name = read_original(arguments), arguments.experiment
    generation = arguments.generation
    find_experiment(plan, name, generation)
    into = Path(arguments.into or f"reproduced/{plan.config['run']}.{name}.gen{generation}")
    progress = Progress(f"{name}, generation {generation}")
    inputs = prepare(plan, arguments.configfile, name, generation, original, into)
    print(
        f"{name}, generation {generation}: {inputs} input files linked into {into}. Snakemake "
        f"recomputes the generation there (log: {into}/snakemake.log).",
        flush=True,
    )
    make(plan, name, generation, into, arguments.profile, arguments.cores, progress.show)
    equal, differing, notes = compare(plan, name, generation, original, into)
    result = "" if differing else ": the generation is reproduced bit for bit"
    print(f"{equal} files equal, {len(differing)} differ{result}")
    lines = table([(f"  {path}", why) for path, why in differing[:SHOWN]], left=2)
    if len(differing) > SHOWN:
        lines.append(f"  ... and {len(differing) - SHOWN} more")
    if lines or notes:
        print("\n".join(lines + notes))
    return int(bool(differing))
