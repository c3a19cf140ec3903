"""Show which jobs of a run are done, running, failed, stopped or waiting.

The command reads only the files of the run. You can type it at any time and on
any node that sees them. A job has one of these states:
  done     its output exists
  running  it renews its lease, a file that shows that the job is alive. A job
           without a lease is running if a driver (a snakemake process) is alive
           and the job wrote to its log in the last 10 minutes
  failed   the last message of its log is an error; the report shows it
  stopped  it was interrupted (killed, preempted, out of time); run snakemake
           again to resume it
  waiting  it has not started
  outdated its output exists, but was made with other settings than those of the
           config file; `pollination plan` says what snakemake will recompute

The report also says whether a driver is alive, what to type if not, and how the
config file differs from the config of the run. With RUN, the command uses the
config that the run saved. docs/reference/status.md describes --json.

Exit status:
  0: the states are printed, even if jobs failed
  2: the command could not run
"""

import json

from pollination.cli.common import add_run, read_plan, seconds
from pollination.cli.runs.states import take
from pollination.cli.runs.status import document, text
from pollination.cli.runs.watching import watch
from pollination.plan.saved import read_run

EXAMPLE = "pollination status --configfile config/paper/data_pollination.yaml"
WATCH_S = 10.0


def add_arguments(parser) -> None:
    add_run(parser)
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        const=str(WATCH_S),
        help="repeat the report at this interval until the run is complete: in place on a "
        f"terminal, once per change in a file (default of SECONDS: {WATCH_S:g})",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the states as JSON; with --watch, one line per change (default: a report)",
    )


def run(arguments) -> int:
    every_s = None
    if arguments.watch is not None:
        every_s = seconds(arguments.watch, "--watch", "; a folder comes before --watch")
    plan = read_run(arguments.folder) if arguments.folder else read_plan(arguments.configfile)
    configfile = None if arguments.folder else arguments.configfile
    if every_s is not None:
        watch(plan, every_s, configfile, arguments.json)
    elif arguments.json:
        print(json.dumps(document(take(plan)), indent=1))
    else:
        print(text(take(plan), configfile))
    return 0
