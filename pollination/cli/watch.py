"""Send a run's losses, scores and selections to TensorBoard, Trackio or W&B.

The command follows a run from outside, and reads only its files. So the jobs of
the run need no tracker and no network. It sends new points until the run is
complete. Run the same command again after a stop: no point is sent twice. A
finished run works too.

Each member is a run of the tracker, for example population/gen1/member0, with its
training by step and its scores. Each experiment is another, with mean scores and
selections by generation. A training in progress shows the points of its last
checkpoint.

The packages are optional. --to trackio and --to wandb also obey the variables of
these packages, such as WANDB_MODE=offline. `pollination status --watch` shows the
jobs of a run instead.

Exit status:
  0: the run is complete, or --once has sent what there is
  2: the command could not run
  130: stopped with Ctrl-C
"""

import sys
from pathlib import Path

from pollination.cli.common import seconds
from pollination.plan.saved import read_run

EXAMPLE = "pollination watch results/demo --to tensorboard"
TRACKERS = ("tensorboard", "trackio", "wandb")
EVERY_S = 10.0


def add_arguments(parser) -> None:
    parser.add_argument("folder", metavar="RUN", help="folder of the run, results/{run}")
    parser.add_argument("--to", choices=TRACKERS, required=True, help="the tracker")
    parser.add_argument(
        "--into",
        metavar="FOLDER",
        help="folder for the tracker's files, and for the list of points that it has (default: "
        "watch/TRACKER)",
    )
    parser.add_argument(
        "--every",
        metavar="SECONDS",
        default=f"{EVERY_S:g}",
        help="interval between two looks at the run (default: %(default)s)",
    )
    parser.add_argument(
        "--once", action="store_true", help="send what there is, then end (default: follow)"
    )


def run(arguments) -> int:
    from pollination.cli.tracking import following, trackers  # loads pandas, so not for `--help`

    every_s = seconds(arguments.every, "--every")
    plan = read_run(arguments.folder)
    into = Path(arguments.into or f"watch/{arguments.to}")
    tracker = trackers.TRACKERS[arguments.to](into, plan.config["run"])
    journal = following.journal_of(into, plan)
    try:
        print(f"To see the points, type: {tracker.shown}", flush=True)
        sent = following.follow(plan, tracker, journal, every_s, arguments.once)
    finally:
        journal.close()
    end = "The run is complete" if sent.complete else "Sent once"
    end = "Stopped" if sent.stopped else end
    said = f"{end}: {sent.points:,} new points of {sent.streams:,} members and experiments."
    print(said, file=sys.stderr if sent.stopped else sys.stdout)
    return 130 if sent.stopped else 0
