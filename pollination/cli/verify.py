"""Check that every artifact of a run matches its record.

A record (run.json) holds the digests of the files that a job read and wrote.
The command computes the digests again and compares them. It reports these
findings:
  damaged, cut short, empty, unreadable, missing: the file is not as recorded
  damaged record: the record itself cannot be read
  unrecorded: no record names the file
  deleted: jobs have read the file, and it and its record are gone
  misplaced: the record belongs to another job
  stale: the file was made from an input that has changed since
  other settings: the record has other settings than the config, for example
    because the config was edited while jobs waited
  other recipe: another version of the code, with another method, made the file

Notes name other differences between the parts of a run: artifacts that were
made with other code or other libraries than most. A note is no finding, because
such files are as recorded.

For the findings, it prints two kinds of commands: those that recompute exactly
these files, and one that then recomputes all files that depend on them. No
command deletes an unrecorded file, because it may be the only copy. In an
imported run, the command also compares the files with the list in the archive.
It writes nothing, so it also works on the read-only results of another user.

Exit status:
  0: all files match their records; there may be notes
  1: some files do not
  2: the command could not run (for example, there is no such run)
"""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from shlex import quote

from pollination.cli.common import Progress, add_run, bytes_, read_plan, table
from pollination.cli.runs.archive import LEFT_OUT
from pollination.cli.runs.drivers import find_driver
from pollination.cli.runs.planned import planned
from pollination.cli.runs.verification import UNRECORDED, names, remedy, verify
from pollination.core import sanitize
from pollination.plan.saved import read_run

EXAMPLE = "pollination verify results/demo"


def add_arguments(parser) -> None:
    add_run(parser)
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="number of files to read in parallel (default: one per core)",
    )
    parser.add_argument(
        "--profile",
        help="Snakemake profile in the printed commands (default: that of the run's last "
        "snakemake, else profiles/local)",
    )
    parser.add_argument(
        "--names",
        action="store_true",
        help="print only the files to recompute, one per line (default: a report)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the findings as JSON (default: a report)"
    )


def run(arguments) -> int:
    if arguments.jobs < 1:
        raise ValueError(f"--jobs: {arguments.jobs} is out of range; allowed: 1 or more")
    plan = read_run(arguments.folder) if arguments.folder else read_plan(arguments.configfile)
    folder = Path(plan.results)
    profile = arguments.profile or find_driver(plan.results, time.time()).profile
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: no such folder, because the run has not started; start it first: "
            f"snakemake --profile {quote(profile)} --configfile {quote(arguments.configfile)}"
        )
    progress = Progress(f"verifying {folder}")
    with planned(plan) as params:
        verified = verify(
            folder,
            plan,
            arguments.jobs,
            lambda files, size, of: progress.show(f"{files:,} of {of:,} files, {bytes_(size)}"),
            params,
        )
    progress.show(f"{verified.files:,} files, {bytes_(verified.size_bytes)}", last=True)
    configfile = "CONFIG" if arguments.folder else quote(arguments.configfile)
    of = quote(arguments.folder) if arguments.folder else f"--configfile {configfile}"
    again = f"pollination verify {of}"
    # --configfile comes first, because it would also take the targets after it.
    snakemake = f"snakemake --configfile {configfile} --profile {quote(profile)}"
    typed = remedy(verified.findings, snakemake, again)
    if verified.imported and verified.findings:
        typed = [f"pollination import ARCHIVE --into {quote(f'{folder}.new')}"]
    if arguments.names:
        print("".join(f"{path}\n" for path in names(verified.findings)), end="")
        return int(bool(verified.findings))
    if arguments.json:
        print(json.dumps(asdict(verified) | {"type": typed}, indent=1))
        return int(bool(verified.findings))
    print(
        f"{folder}: compared {verified.files:,} files ({bytes_(verified.size_bytes)}) "
        f"with {verified.records:,} records"
    )
    notes = [
        ("jobs that are not done yet", verified.unmade),
        ("files deleted on purpose (config key keep)", verified.pruned),
        ("inputs from outside the run, not found and not compared", verified.outside),
        (f"inputs that the archive leaves out ({LEFT_OUT})", verified.left_out),
        ("files that no record names", verified.strangers),
        (
            "records whose settings depend on a file that is not here, and not compared",
            verified.uncompared,
        ),
    ]
    print("".join(f"{what}: {count:,}\n" for what, count in notes if count), end="")
    print("".join(f"note: {note}\n" for note in verified.notes), end="")
    if not verified.findings:
        print("All files match their records. All settings are those of the config.")
        return 0
    print(f"\nFindings ({len(verified.findings)}):")
    print("\n".join(table([(f"  {f.kind}", f.path, f.said) for f in verified.findings], left=3)))
    if verified.imported:
        print("\nThe files have changed since the import. To unpack them again, type:")
    elif typed:
        print("\nTo recompute exactly these files, type:")
    print("".join(f"  {sanitize.line(words)}\n" for words in typed), end="")
    if count := sum(finding.kind == UNRECORDED for finding in verified.findings):
        print(
            f"\nUnrecorded: {count:,}. These files cannot be compared; snakemake replaces them. If "
            "they were copied here, move them elsewhere, and ask for an archive of `pollination "
            "export`. If a job died, start snakemake again."
        )
    if arguments.folder and typed and not verified.imported:
        print(
            "Replace CONFIG with the config file of the run. Type the commands in the folder where "
            "the run was started."
        )
    return 1
