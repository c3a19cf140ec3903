"""List the files of one generation of an experiment.

Use the list as targets for snakemake, or to recompute a generation in place:
  rm $(pollination files --kept population 2)
  snakemake --profile profiles/local $(pollination files population 2)

Exit status:
  0: the files are listed, whether or not they exist yet
  2: the command could not run
"""

from pollination.cli.common import (
    add_configfile,
    add_experiment,
    add_generation,
    find_experiment,
    read_plan,
)
from pollination.core.lease import kept_copies
from pollination.plan.outputs import generation_files

EXAMPLE = "pollination files population 2 --configfile config/config.yaml"


def add_arguments(parser) -> None:
    add_experiment(parser)
    add_generation(parser)
    parser.add_argument(
        "--kept",
        action="store_true",
        help="also list the second hard link that each finished file has; while this link exists, "
        "a job restores a deleted file from it instead of recomputing it (default: without links)",
    )
    add_configfile(parser)


def run(arguments) -> int:
    plan = read_plan(arguments.configfile)
    find_experiment(plan, arguments.experiment, arguments.generation)
    paths = generation_files(plan, arguments.experiment, arguments.generation)
    copies = [copy for path in paths for copy in kept_copies(path)] if arguments.kept else []
    print("\n".join(paths + copies))
    return 0
