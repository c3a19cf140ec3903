"""Show which jobs of a run are done, running, failed, stopped or waiting.

The command reads only the files of the run. You can type it at any time and on
any node that sees them. A job has one of five states:
  done     its output exists
  running  it renews its lease, a file that shows that the job is alive. A job
           without a lease is running if it wrote to its log in the last 10
           minutes
  failed   the last message of its log is an error; the report shows it
  stopped  it was interrupted (killed, preempted, out of time); run snakemake
           again to resume it
  waiting  it has not started

Exit status:
  0: the states are printed, even if jobs failed
  2: the command could not run
"""

from pollination.cli.common import add_configfile, read_plan
from pollination.cli.runs.status import report

EXAMPLE = "pollination status --configfile config/paper/data_pollination.yaml"
add_arguments = add_configfile


def run(arguments) -> int:
    print(report(read_plan(arguments.configfile)))
    return 0
