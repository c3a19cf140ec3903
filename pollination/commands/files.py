"""List the files that one generation consists of: to delete them (with --kept), or to ask snakemake for them."""

from pollination.commands import add_configfile, find_experiment, read_plan
from pollination.lease import kept_copies

EXAMPLE = "rm $(python -m pollination files --kept population 2)"


def add_arguments(parser) -> None:
    parser.add_argument("experiment")
    parser.add_argument("generation", type=int)
    parser.add_argument("--kept", action="store_true", help="their kept second names too: what is linked again is not made again")
    add_configfile(parser)


def run(arguments) -> int:
    plan = read_plan(arguments.configfile)
    find_experiment(plan, arguments.experiment, arguments.generation)
    paths = plan.generation_files(arguments.experiment, arguments.generation)
    print("\n".join(paths + [copy for path in paths for copy in kept_copies(path) if arguments.kept]))
    return 0
