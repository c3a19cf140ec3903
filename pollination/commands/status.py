"""Show how a run fares: what is done, running, failed or waiting, and why."""

from pollination.commands import add_configfile, read_plan
from pollination.status import report

EXAMPLE = "python -m pollination status --configfile config/paper/data_pollination.yaml"
add_arguments = add_configfile


def run(arguments) -> int:
    print(report(read_plan(arguments.configfile)))
    return 0
