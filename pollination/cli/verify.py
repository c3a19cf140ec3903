"""Check every artifact of a run against its record.

A file may be damaged, cut short, empty, missing, unrecorded, misplaced, or stale: made from other
input than what is there now. The command prints what to type to recompute exactly those files, and
what depends on them. It only reads, so it works on the results of another user too.

Exit status: 0 all files are as they were written, 1 some are not, 2 there is no such run.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

from pollination.cli.common import Progress, add_configfile, read_plan, read_run, table
from pollination.cli.runs.verification import names, remedy, verify
from pollination.core import sanitize

EXAMPLE = "pollination verify --run results/demo"


def add_arguments(parser) -> None:
    which = parser.add_mutually_exclusive_group()
    add_configfile(which)
    which.add_argument(
        "--run", metavar="FOLDER", help="or the run's folder, results/{run}, wherever it lies"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="files to read in parallel (default: %(default)s)",
    )
    parser.add_argument(
        "--profile",
        default="profiles/local",
        help="profile in the commands that are printed (default: %(default)s)",
    )
    parser.add_argument("--names", action="store_true", help="print only the files to recompute")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments) -> int:
    if arguments.jobs < 1:
        raise ValueError(f"--jobs: {arguments.jobs} is out of range; allowed: 1 or more")
    plan = read_run(arguments.run) if arguments.run else read_plan(arguments.configfile)
    folder = Path(plan.results)
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder: nothing has been made yet")
    progress = Progress(f"verifying {folder}")
    verified = verify(
        folder,
        plan,
        arguments.jobs,
        lambda files, size, of: progress.show(
            f"{files:,} of {of:,} files, {size / 2**30:,.1f} GiB"
        ),
    )
    progress.show(f"{verified.files:,} files, {verified.size_bytes / 2**30:,.1f} GiB", last=True)
    configfile = "CONFIG" if arguments.run else arguments.configfile
    again = (
        f"pollination verify --{'run' if arguments.run else 'configfile'} "
        f"{arguments.run or configfile}"
    )
    # --configfile would take targets that follow it
    snakemake = f"snakemake --configfile {configfile} --profile {arguments.profile}"
    typed = remedy(verified.findings, snakemake, again) if verified.findings else []
    if arguments.names:
        print("".join(f"{path}\n" for path in names(verified.findings)), end="")
        return int(bool(verified.findings))
    if arguments.json:
        print(json.dumps(asdict(verified) | {"type": typed}, indent=1))
        return int(bool(verified.findings))
    print(
        f"{folder}: {verified.files:,} files ({verified.size_bytes / 2**30:,.2f} GiB) against "
        f"{verified.records:,} records"
    )
    notes = [
        (verified.unmade, "jobs are not done yet"),
        (verified.pruned, "checkpoints are pruned, as the config says (keep)"),
        (verified.outside, "inputs from outside the run are not here and were not compared"),
    ]
    notes += [(verified.strangers, "files are named by no record")]
    print("".join(f"{count:,} {what}\n" for count, what in notes if count), end="")
    if not verified.findings:
        print("All is as it was written.")
        return 0
    print(f"\n{len(verified.findings)} findings:")
    print("\n".join(table([(f"  {f.kind}", f.path, f.said) for f in verified.findings], left=3)))
    print("\nTo recompute exactly these files (damaged second names are detected and not used):")
    print("\n".join(f"  {sanitize.line(words)}" for words in typed))
    if arguments.run:
        print("CONFIG is the config file that the run was made with; type this where it was made.")
    return 1
