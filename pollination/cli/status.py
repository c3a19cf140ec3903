"""Show which jobs of a run are done, running, failed, stopped or waiting, and why."""

from pollination.cli.common import add_configfile, read_plan
from pollination.cli.runs.status import report

EXAMPLE = "pollination status --configfile config/paper/data_pollination.yaml"
add_arguments = add_configfile


def run(arguments) -> int:
    print(report(read_plan(arguments.configfile)))
    return 0
