"""Find the files that recomputing one generation of a run needs, by the run's records.

The closure of a generation holds its own files, the files that its jobs read, and the files from
which these were made. Without the last ones, Snakemake would recompute the inputs.
"""

import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pollination.cli.runs.records import read_records
from pollination.plan import pruning
from pollination.plan.inputs import staged_files
from pollination.plan.outputs import generation_files
from pollination.plan.plan import Plan


@dataclass(frozen=True)
class Closure:
    """Records of a run, by path: those of a generation's jobs, and those of the jobs before them.

    `lists`: the records of the lists of files deleted on purpose (config key `keep`). `outside`:
    inputs from outside the run with their digests. `read`: the inputs that the generation's own
    jobs read, with their digests. `all`: the content of each record.
    """

    own: list[str]
    before: list[str]
    lists: list[str]
    outside: dict[str, str]
    read: dict[str, str]
    all: dict[str, dict]

    def files(self, records: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield (path, digest) of each file that the jobs of these records wrote."""
        for record in records:
            for name, digest in self.all[record]["outputs"].items():
                yield os.path.normpath(Path(record).parent / name), digest


def relative(plan: Plan, path: str) -> str:
    """Return a path of the plan relative to the folder of the run."""
    return path.removeprefix(f"{plan.results}/")


def deleted(plan: Plan, original: Path) -> set[str]:
    """Return the files that a run deleted on purpose (config key `keep`) and has not here."""
    listed = pruning.pruned(Plan(plan.config, str(original)))
    return {path for path in listed if not os.path.lexists(path)}


def closure(plan: Plan, name: str, generation: int, original: Path) -> Closure:
    """Return the closure of a finished generation of the run in the folder `original`.

    `plan` has the paths that records name, results/{run}/. Outputs that the run deleted on purpose
    may be absent, since their record has the digests. ValueError: the generation is not finished.
    """
    made = set(generation_files(plan, name, generation))
    records, _, _ = read_records(original)
    writer = {
        os.path.normpath(Path(path).parent / file): path
        for path, record in records.items()
        for file in record["outputs"]
    }
    gone = deleted(plan, original)
    own = []
    for path in (str(original / relative(plan, path)) for path in sorted(made)):
        if path not in writer or not (Path(path).is_file() or path in gone):
            what = "no record names this file" if Path(path).is_file() else "no such file"
            raise ValueError(
                f"{path}: {what}; allowed: a finished generation with its records (run.json). Run "
                "snakemake first, or import an archive of `pollination export`"
            )
        own.append(writer[path])
    own = list(dict.fromkeys(own))
    inputs = [item for record in own for item in records[record]["inputs"].items()]
    read = {path: digest for path, digest in sorted(inputs) if path not in made}
    waiting, before, outside = [*read, *staged_files(plan)], dict[str, None](), dict[str, str]()
    for record in own:
        outside |= _outside(plan, records[record])
    while waiting:
        record = writer.get(str(original / relative(plan, waiting.pop())), "")
        if record and record not in before and record not in own:
            before[record] = None
            outside |= _outside(plan, records[record])
            waiting += [path for path in records[record]["inputs"] if _is_inside(plan, path)]
    folders = {place for record in (*own, *before) for place in Path(record).parents}
    found = (writer.get(str(place / told)) for place in folders for told in pruning.LISTS)
    lists = sorted({record for record in found if record} - {*own, *before})
    return Closure(own, sorted(before), lists, outside, read, records)


def _is_inside(plan: Plan, path: str) -> bool:
    return path.startswith(f"{plan.results}/")


def _outside(plan: Plan, record: dict) -> dict[str, str]:
    return {name: one for name, one in record["inputs"].items() if not _is_inside(plan, name)}


def require_inputs(plan: Plan, found: Closure, original: Path, configfile: str | None) -> None:
    """Raise ValueError if a file of the run that the generation's jobs read is not here."""
    gone = deleted(plan, original)
    missing = [
        path
        for path in found.read
        if _is_inside(plan, path) and not (original / relative(plan, path)).is_file()
    ]
    wanted = [path for path in missing if os.path.normpath(original / relative(plan, path)) in gone]
    if wanted:
        more = f" and {len(wanted) - 1} more" if len(wanted) > 1 else ""
        raise ValueError(
            f"{wanted[0]}{more}: the run deleted this input of the generation on purpose (config "
            "key keep); recompute it first: snakemake --profile profiles/local --configfile "
            f"{shlex.quote(configfile or 'CONFIG')} -- {shlex.join(wanted)}"
        )
    if missing:
        raise ValueError(
            f"{missing[0]}: this input of the generation is missing; run snakemake to recompute "
            "it, or import an archive with inputs (pollination export --inputs)"
        )
