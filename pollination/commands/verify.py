"""Hold every artifact of a run against its record: damaged, cut short, empty, missing, unrecorded, misplaced, or stale.

stale: made from other input than what lies there now. Says what to type to make exactly that again, and what depends on it. Reads only, so it works
on the results of another user too. Exit status: 0 all is as it was written, 1 it is not, 2 there is no such run.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

from pollination import printable
from pollination.commands import CONFIGFILE, Progress, read_plan, read_run, table
from pollination.verification import names, remedy, verify

EXAMPLE = "python -m pollination verify --run results/demo"


def add_arguments(parser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--configfile", default=CONFIGFILE, help="the config file of the run (default: %(default)s)")
    which.add_argument("--run", metavar="FOLDER", help="or the run's folder, results/{run}, wherever it lies")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="files read side by side (default: %(default)s)")
    parser.add_argument("--profile", default="profiles/local", help="profile in the commands that are printed (default: %(default)s)")
    parser.add_argument("--names", action="store_true", help="print only the files that have to be made again")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def run(arguments) -> int:
    if arguments.jobs < 1:
        raise ValueError(f"--jobs: {arguments.jobs} is out of range; allowed: 1 or more")
    plan = read_run(arguments.run) if arguments.run else read_plan(arguments.configfile)
    folder = Path(plan.results)
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder: nothing has been made yet")
    progress = Progress(f"verifying {folder}")
    found = verify(
        folder, plan, arguments.jobs, lambda files, size, of: progress.show(f"{files:,} of {of:,} files, {size / 2**30:,.1f} GiB")
    )
    progress.show(f"{found.files:,} files, {found.size_bytes / 2**30:,.1f} GiB", last=True)
    configfile = "CONFIG" if arguments.run else arguments.configfile
    again = f"python -m pollination verify --{'run' if arguments.run else 'configfile'} {arguments.run or configfile}"
    snakemake = f"snakemake --configfile {configfile} --profile {arguments.profile}"  # --configfile would take targets that follow it
    typed = remedy(found.findings, snakemake, again) if found.findings else []
    if arguments.names:
        print("".join(f"{path}\n" for path in names(found.findings)), end="")
        return int(bool(found.findings))
    if arguments.json:
        print(json.dumps(asdict(found) | {"type": typed}, indent=1))
        return int(bool(found.findings))
    print(f"{folder}: {found.files:,} files ({found.size_bytes / 2**30:,.2f} GiB) against {found.records:,} records")
    notes = [
        (found.unmade, "jobs are not done yet"),
        (found.pruned, "checkpoints are pruned, as the config says (keep)"),
        (found.outside, "inputs from outside the run are not here and were not compared"),
    ]
    notes += [(found.strangers, "files are named by no record")]
    print("".join(f"{count:,} {what}\n" for count, what in notes if count), end="")
    if not found.findings:
        print("All is as it was written.")
        return 0
    print(f"\n{len(found.findings)} findings:")
    print("\n".join(table([(f"  {f.kind}", f.path, f.said) for f in found.findings], left=3)))
    print("\nTo make exactly that again (second names of damaged files are found out and not used):")
    print("\n".join(f"  {printable.line(words)}" for words in typed))
    if arguments.run:
        print("CONFIG is the config file that the run was made with; type this where it was made.")
    return 1
