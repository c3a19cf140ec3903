"""The command line of a campaign."""

import argparse
import json
import signal
import sys
import time
from pathlib import Path

from tests import chaos
from tests.chaos.registry import FAULTS
from tests.chaos.runner import campaign, reference
from tests.chaos.tally import KILLS, Tally
from tests.chaos.workflow import ROOT


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=chaos.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument(
        "--configfile",
        type=lambda name: Path(name).resolve(),
        default=ROOT / "config/config.yaml",
        help="the workflow (default: the demo)",
    )
    length = found.add_mutually_exclusive_group(required=True)
    length.add_argument("--hours", type=float, help="break things for so long")
    length.add_argument("--kills", type=int, help=f"until so many kills: {', '.join(KILLS)}")
    length.add_argument("--faults", type=int, help="until so many faults of any kind")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument(
        "--skip",
        type=int,
        default=0,
        metavar="N",
        help="leave out the first N faults of the seed's order",
    )
    found.add_argument(
        "--slurm",
        action="store_true",
        help="on a real Slurm with virtual nodes, started for it (root, Debian's packages)",
    )
    found.add_argument(
        "--every",
        type=float,
        nargs=2,
        default=(3.0, 15.0),
        metavar=("LOW", "HIGH"),
        help="seconds between faults (default: 3 15)",
    )
    found.add_argument(
        "--outage",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="longest failure of Slurm's commands and of its controller (default: 300)",
    )
    found.add_argument(
        "--only",
        nargs="*",
        default=(),
        choices=list(FAULTS),
        metavar="FAULT",
        help=f"of {', '.join(FAULTS)}",
    )
    found.add_argument("--json", type=Path, metavar="FILE", help="write the counts here too")
    return found


def main(words: list[str] | None = None) -> int:
    given, tally, begun_s = parser().parse_args(words), Tally(), time.monotonic()
    # SIGTERM must clean up as Ctrl-C does: mounts and Slurm's daemons.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))

    def say(line: str) -> None:
        print(line, flush=True)

    def enough(found: Tally) -> bool:
        if given.hours:
            return time.monotonic() >= end_s
        return found.faults.total() >= given.faults if given.faults else found.kills >= given.kills

    try:
        undisturbed = reference(given.configfile, say)
        end_s = time.monotonic() + 3600 * (given.hours or 0)
        campaign(
            given.configfile,
            given.seed,
            enough,
            undisturbed,
            given.slurm,
            tuple(given.every),
            given.outage,
            tuple(given.only),
            given.skip,
            say,
            tally,
        )
    except AssertionError as error:
        tally.failure = str(error)
    except ValueError as error:
        sys.exit(f"error: {error}")
    finally:
        report = {
            "config": given.configfile.name,
            "slurm": given.slurm,
            "seed": given.seed,
            "minutes": round((time.monotonic() - begun_s) / 60, 1),
        } | tally.as_json()
        if given.json:
            given.json.write_text(json.dumps(report, indent=1) + "\n")
        heading = f"{given.configfile.name}, seed {given.seed}, {report['minutes']} min"
        say("\n".join(["", heading, "", tally.table(), *tally.tracebacks]))
    if tally.failure:
        say(f"FAILED: {tally.failure}")
    elif tally.tracebacks:
        say("FAILED: logs have tracebacks")
    return 1 if tally.failure or tally.tracebacks else 0


if __name__ == "__main__":
    sys.exit(main())
