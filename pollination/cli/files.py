"""List the files of one generation: to delete them (with --kept), or as targets for snakemake."""

from pollination.cli.common import add_configfile, add_experiment, find_experiment, read_plan
from pollination.core.lease import kept_copies
from pollination.plan.outputs import generation_files

EXAMPLE = "rm $(pollination files --kept population 2)"


def add_arguments(parser) -> None:
    add_experiment(parser)
    parser.add_argument("generation", type=int)
    parser.add_argument(
        "--kept",
        action="store_true",
        help="list their kept second names too, from which a deleted file would come back",
    )
    add_configfile(parser)


def run(arguments) -> int:
    plan = read_plan(arguments.configfile)
    find_experiment(plan, arguments.experiment, arguments.generation)
    paths = generation_files(plan, arguments.experiment, arguments.generation)
    copies = [copy for path in paths for copy in kept_copies(path)] if arguments.kept else []
    print("\n".join(paths + copies))
    return 0
