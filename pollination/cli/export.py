"""Pack a generation, a model or a synthetic text for other people.

EXPERIMENT GENERATION writes one archive (.zip) with the artifacts and records of
the generation, the resolved config, the locked environment, RO-Crate metadata
and a README. With --inputs, it also holds all files that recomputing needs;
else it holds their digests. `pollination import` unpacks it anywhere. The same
files always give the same bytes.

MODEL --to FOLDER writes a model folder with a model card. SHARD --to FOLDER
writes a data set with a card. MODEL is the path of a member's folder, SHARD that
of a file of synthetic text:
  population/gen2/member1
  results/demo/population/gen1/synthetic0/shard0.parquet

--to hub:OWNER/NAME uploads the folder to the Hugging Face hub, as a private
repository. Without --yes-upload, the command only lists what it would upload.

Exit status:
  0: the archive or folder is written, or the folder is uploaded
  1: nothing was uploaded, because --yes-upload is missing
  2: the command could not run (for example, the generation is not finished)
"""

import datetime
import json
import re
from dataclasses import asdict
from pathlib import Path
from shlex import quote

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from pollination.cli.common import (
    Progress,
    add_original,
    bytes_,
    find_experiment,
    read_original,
)
from pollination.cli.completion import completed_by, experiments
from pollination.cli.runs.cards import HUB, export_folder
from pollination.cli.runs.exported import export
from pollination.core.sanitize import line
from pollination.plan.plan import Plan
from pollination.plan.saved import read_run

EXAMPLE = "pollination export population 2 --inputs --configfile config/config.yaml"


def add_arguments(parser) -> None:
    completed_by(
        experiments,
        parser.add_argument(
            "what",
            metavar="EXPERIMENT|MODEL|SHARD",
            help="name of an experiment, or path of a model or of synthetic text, as above",
        ),
    )
    parser.add_argument(
        "generation",
        metavar="GENERATION",
        nargs="?",
        type=int,
        help="number of a generation of EXPERIMENT; 0 holds the founders",
    )
    parser.add_argument(
        "--inputs",
        action="store_true",
        help="also pack all files that recomputing the generation needs (default: their digests)",
    )
    parser.add_argument(
        "--to",
        metavar="PLACE",
        help="archive to write (default: {run}.{experiment}.gen{g}.zip); for a model or text, a "
        "new folder or hub:OWNER/NAME",
    )
    parser.add_argument(
        "--yes-upload",
        action="store_true",
        help="upload to the hub (default: only list the files)",
    )
    parser.add_argument(
        "--licence",
        metavar="ID",
        help="SPDX identifier of the licence that you grant, e.g. CC-BY-4.0 (default: none stated)",
    )
    parser.add_argument(
        "--date",
        type=_date,
        metavar="YYYY-MM-DD",
        help="day of publication in the metadata (default: day of the commit that made the files)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON (default: as text)"
    )
    add_original(parser)


def _licence(text: str | None) -> str | None:
    """Return an SPDX identifier as SPDX writes it. ValueError: SPDX does not list it."""
    if text is None:
        return None
    try:
        if not re.fullmatch(r"[\w.+-]+", text):  # the metadata link to the page of one licence
            raise InvalidLicenseExpression(f"{text!r} is not one licence")
        return canonicalize_license_expression(text)
    except InvalidLicenseExpression as error:
        raise ValueError(f"--licence: {error}; allowed: SPDX identifiers, e.g. CC-BY-4.0") from None


def _date(text: str) -> str:
    return datetime.date.fromisoformat(text).isoformat()


def run(arguments) -> int:
    arguments.licence = _licence(arguments.licence)
    if arguments.generation is None:
        return _folder(arguments)
    plan, original = read_original(arguments)
    name, generation = arguments.what, arguments.generation
    find_experiment(plan, name, generation)
    if (arguments.to or "").startswith(HUB) or arguments.yes_upload:
        raise ValueError("--to hub: and --yes-upload take the path of a MODEL or SHARD")
    # The run's own config counts, because the config file may have changed since.
    plan = Plan(read_run(str(original)).config, plan.results)
    target = Path(arguments.to or f"{plan.config['run']}.{name}.gen{generation}.zip")
    progress = Progress(f"writing {target}")
    done = export(
        plan,
        name,
        generation,
        original,
        target,
        arguments.inputs,
        arguments.licence,
        arguments.date,
        lambda size: progress.show(bytes_(size)),
    )
    progress.show(bytes_(done.size_bytes), last=True)
    if arguments.json:
        print(json.dumps(asdict(done), indent=1))
        return 0
    print(f"{done.archive}: {done.files:,} files, {bytes_(done.size_bytes)}")
    print(f"sha256: {done.sha256}")
    if done.left_out:
        print(f"inputs left out: {done.left_out:,} (the archive holds their digests)")
    print(f"To unpack it elsewhere, type: pollination import {quote(target.name)}")
    return 0


def _folder(arguments) -> int:
    if not arguments.to:
        raise ValueError(
            "export takes EXPERIMENT and GENERATION, or the path of a MODEL or SHARD with --to"
        )
    if arguments.inputs or arguments.date:
        raise ValueError("--inputs and --date take EXPERIMENT and GENERATION")
    done = export_folder(
        arguments.what,
        arguments.to,
        arguments.run,
        arguments.configfile,
        arguments.licence,
        arguments.yes_upload,
    )
    if arguments.json:
        print(json.dumps(asdict(done), indent=1))
        return 0 if done.written else 1
    verb = "written to" if done.written else "would be uploaded to"
    print(f"{len(done.files)} files ({bytes_(sum(done.files.values()))}) {verb} {done.place}:")
    print("\n".join(f"  {line(name)}  {bytes_(size)}" for name, size in done.files.items()))
    if not done.written:
        print("Nothing was uploaded. To upload, type the command again with --yes-upload.")
    return 0 if done.written else 1
