"""Check the artifacts of a run against their records.

A record (pollination/core/artifacts.py) holds the digests of the files that a job read and wrote.
A file is damaged if its digest differs from its record. A file is stale, or was swapped, if its
record names another digest for an input than the input's own record.
"""

import json
import os
import re
import shlex
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from pollination.cli.runs.archive import LEFT_OUT, MANIFEST, listed, outside_file
from pollination.cli.runs.drivers import find_driver
from pollination.cli.runs.planned import Planned, other_settings, said
from pollination.cli.runs.records import Finding, read_records
from pollination.core import artifacts, pin
from pollination.core.holder import look
from pollination.plan import pruning
from pollination.plan.job_kinds import ORDER
from pollination.plan.jobs import jobs
from pollination.plan.plan import Plan

UNRECORDED = "unrecorded"
OWN_CODE = re.compile(r"(^|\.)code\.")  # in the key of a param: digests of the user's files
LINES = "tr '\\n' '\\0' < again.txt | xargs -0"  # a line is one word, spaces included
TYPED = 12  # files that the printed commands name one by one


@dataclass
class Verified:
    """The findings of `verify`, and counts.

    `outside`: inputs from outside the run that do not exist here; `unmade`: jobs without output;
    `strangers`: files that no record names; `pruned`: files deleted on purpose (config key `keep`);
    `uncompared`: records whose params depend on a file of the user that is not here;
    `imported`: whether the run is an unpacked archive, and `left_out` its inputs that are not here;
    `notes`: how the code and the libraries differ between the parts of the run (core/pin.py).
    """

    findings: list[Finding]
    files: int = 0
    size_bytes: int = 0
    records: int = 0
    outside: int = 0
    unmade: int = 0
    strangers: int = 0
    pruned: int = 0
    uncompared: int = 0
    imported: bool = False
    left_out: int = 0
    notes: list[str] = field(default_factory=list)


def _digests(
    paths: list[str], workers: int, show: Callable[[int, int], None]
) -> tuple[dict[str, str], int]:
    """Return the digest of each readable file, and the bytes read.

    `show(files, bytes)` reports progress. Threads suffice: hashing releases the interpreter's lock.
    """
    digests, size_bytes = {}, 0
    with ThreadPoolExecutor(workers) as pool:
        waiting = {
            pool.submit(lambda path: (artifacts.digest(path), os.path.getsize(path)), path): path
            for path in paths
        }
        for done in as_completed(waiting):
            if done.exception() is None:
                digests[waiting[done]], size = done.result()
                size_bytes += size
            show(len(digests), size_bytes)
    return digests, size_bytes


def verify(
    folder: Path,
    plan: Plan | None,
    workers: int = os.cpu_count() or 1,
    show: Callable[[int, int, int], None] = lambda *_: None,
    planned: Planned | None = None,
) -> Verified:
    """Check a run's folder against its records, without writing anything.

    With the plan, also find outputs without a record; with its params (`planned`), records of other
    settings. `show(files, bytes, of)` reports progress. An imported run is also compared with the
    list of files in its archive.
    """
    records, findings, files = read_records(folder)
    held = {str(folder / name): one for name, one in listed(folder, MANIFEST).items()}
    expected = {
        os.path.normpath(Path(path).parent / name): (path, digest)
        for path, record in records.items()
        for name, digest in record["outputs"].items()
    }
    known = {finding.path for finding in findings}
    expected |= {
        path: (str(folder / MANIFEST), digest)
        for path, digest in held.items()
        if path not in expected and path not in known
    }
    place = _placing(folder, records)
    inputs = {place(name) for record in records.values() for name in record["inputs"]}
    wanted = sorted(path for path in inputs | set(expected) if path and os.path.isfile(path))
    now, size_bytes = _digests(wanted, workers, lambda count, size: show(count, size, len(wanted)))
    pruned = {path for path in (pruning.pruned(plan) if plan else ()) if not os.path.lexists(path)}
    for path, (record, digest) in sorted(expected.items()):
        if path in pruned:
            continue
        rebuild = _target(path)
        if path not in now:
            kind, said = (
                ("unreadable", "the file cannot be read")
                if os.path.lexists(path)
                else ("missing", f"{Path(record).name} names it, but the file does not exist")
            )
            findings.append(Finding(kind, path, said, rebuild))
        elif now[path] != digest:
            findings.append(Finding(*_damage(path, digest, Path(record).name), rebuild))
    wrong = {finding.path for finding in findings if finding.kind == "misplaced"}
    in_place = {path: record for path, record in records.items() if path not in wrong}
    stale, absent = _stale(in_place, expected, now, place, wrong)
    outside = sum(there is None or not Path(there).is_relative_to(folder) for _, there in absent)
    verified = Verified(findings + stale, len(wanted), size_bytes, len(records), outside)
    verified.imported = bool(held)
    verified.left_out = sum(not (folder / name).exists() for name in listed(folder, LEFT_OUT))
    asked = asked_for(plan, in_place, expected) if plan else in_place
    # A driver deletes what it recomputes, and an archive may leave out inputs.
    if not held and not find_driver(str(folder), time.time()).alive:
        deleted = Counter(
            there
            for record, there in absent
            if record in asked and there and Path(there).is_relative_to(folder)
        )
        verified.findings += [
            Finding("deleted", path, f"{_jobs(count)} read it; it has no record", _target(path))
            for path, count in sorted(deleted.items())
            if not os.path.lexists(path)
        ]
    claimed, verified.pruned = set(expected) | {str(folder / MANIFEST)}, len(pruned)
    verified.notes = pin.notes(folder, in_place)
    verified.strangers = sum(
        path not in claimed and not path.endswith(f"/{ORDER}") for path in files
    )
    if plan:
        unrecorded, unmade = _unrecorded(plan, claimed, pruned)
        verified.unmade = 0 if held else unmade
        named = {finding.path for finding in verified.findings if finding.kind == "damaged record"}
        verified.findings += [
            finding
            for finding in unrecorded
            if not any(Path(path).parent == Path(finding.path).parent for path in named)
        ]
    if plan and planned:
        other, verified.uncompared = _other_settings(folder, asked, planned, bool(held))
        verified.findings += other
    return verified


def _target(path: str) -> str:
    """Return the target of Snakemake that recomputes a file."""
    # task.json is a target; the files of splits/ beside it are not.
    return re.sub(r"(/tasks/[^/]+)/splits/[^/]+$", r"\1/task.json", path)


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def _placing(folder: Path, records: dict[str, dict]) -> Callable[[str], str | None]:
    """Return a function: recorded input -> its present path (the run may have moved), or None."""
    own = next(
        (
            f"{parts[0]}/{parts[1]}/"
            for r in records.values()
            for name in r["inputs"]
            if (parts := name.split("/"))[0] == "results"
        ),
        None,
    )

    def place(name: str) -> str | None:
        if own and name.startswith(own):
            return str(folder / name.removeprefix(own))
        path = outside_file(folder, name)
        return str(path) if path.is_file() else None

    return place


def _damage(path: str, digest: str, record: str) -> tuple[str, str, str]:
    """Return (kind, path, details) of a file whose digest differs from its record."""
    size = os.path.getsize(path)
    if size == 0:
        return "empty", path, "the file has 0 bytes"
    if reason := _cut(path, size):
        return "cut short", path, f"the file has {size:,} bytes; {reason}"
    said = f"its digest differs from {digest[:12]}, the one in {record}: it was changed or replaced"
    return "damaged", path, said


def _cut(path: str, size: int) -> str:
    """Return how the file's format shows that the file was cut short; "" if it does not."""
    with open(path, "rb") as file:
        if path.endswith(".parquet"):
            file.seek(max(0, size - 4))
            return "" if file.read() == b"PAR1" else "a parquet file must end with PAR1"
        if path.endswith(".safetensors"):
            header = int.from_bytes(file.read(8), "little")
            if header > size:
                return "its header is incomplete"
            ends = [
                entry["data_offsets"][1]
                for entry in _header(file.read(header)).values()
                if "data_offsets" in entry
            ]
            whole = 8 + header + max(ends, default=0)
            return f"its header says {whole:,} bytes" if size < whole else ""
        if path.endswith((".json", ".jsonl", ".csv", ".yaml", ".svg", ".html")):
            file.seek(size - 1)
            return "" if file.read() in (b"\n", b">", b"}") else "its last line is incomplete"
    return ""


def _header(text: bytes) -> dict:
    try:
        return json.loads(text)
    except ValueError:
        return {}


def _stale(
    records: dict, expected: dict, now: dict, place, wrong: set[str]
) -> tuple[list[Finding], list[tuple[str, str | None]]]:
    """Return the jobs whose inputs have other digests now, and the inputs that are absent.

    Such an input was recomputed, replaced by an older file, or swapped. Inputs whose record is
    misplaced (`wrong`) are skipped. An absent input is a pair: the record of its reader, and its
    path, which is None for a file from outside the run.
    """
    findings: list[Finding] = []
    absent: list[tuple[str, str | None]] = []
    for path, record in records.items():
        for name, digest in record["inputs"].items():
            there = place(name)
            if there is None or (there not in now and there not in expected):
                absent.append((path, there))
                continue
            if there in expected and expected[there][0] in wrong:
                continue
            says = expected[there][1] if there in expected else now[there]
            if digest != says:
                source = "that file's record says" if there in expected else "that file now has"
                said = f"its job read {name} with digest {digest[:12]}; {source} {says[:12]}"
                findings.append(Finding("stale", path, said, path))
    return findings, absent


def _unrecorded(plan: Plan, claimed: set[str], pruned: set[str]) -> tuple[list[Finding], int]:
    """Return planned artifacts without record or running job, and the number of jobs not done."""
    findings, unmade = [], 0
    for work in jobs(plan):
        path = work.output
        if path.endswith(f"/{ORDER}"):
            continue
        if not os.path.exists(path):
            unmade += path not in pruned
        elif path not in claimed and not path.endswith("run.json") and not _held(path, work.lease):
            said = "no record names it: it was copied here, or its job died before the record"
            findings.append(Finding(UNRECORDED, path, said, path))
    return findings, unmade


def asked_for(plan: Plan, records: dict[str, dict], expected: dict) -> dict[str, dict]:
    """Return the records of jobs of the plan; the config may ask no longer for others."""
    outputs = [os.path.normpath(work.output) for work in jobs(plan)]
    paths = {expected[path][0] if path in expected else path for path in outputs}
    return {path: record for path, record in records.items() if path in paths}


def _other_settings(
    folder: Path, records: dict[str, dict], planned: Planned, imported: bool
) -> tuple[list[Finding], int]:
    """Return the records whose params are not those of the plan, and the number not compared."""
    findings, uncompared = [], 0
    for path, record in records.items():
        try:
            now = planned.of(
                f"{planned.plan.results}/{Path(path).relative_to(folder).as_posix()}",
                record["rule"],
            )
        except ValueError:
            uncompared += 1
            continue
        settings = other_settings(record, now) if now else {}
        if imported and any(OWN_CODE.search(key) for key in settings):
            # The file is in the archive, not at its path; it is compared as an input of the job.
            uncompared += 1
            settings = {key: one for key, one in settings.items() if not OWN_CODE.search(key)}
        if now and settings:
            kind = "other settings" if settings.keys() - {"recipe"} else "other recipe"
            findings.append(Finding(kind, path, said(planned.plan, now, settings), path))
    return findings, uncompared


def _held(path: str, lease: str | None) -> bool:
    """Return whether a live job holds the lease of an output."""
    if not lease or not (Path(path).parent / lease).is_dir():
        return False
    seen = look(Path(path).parent / lease, time.time())
    return seen is not None and seen.alive


def remedy(findings: list[Finding], snakemake: str, verify_again: str) -> list[str]:
    """Return the commands that delete and recompute the files, then all that depends on them.

    They delete no file without a record: it may be the only copy.
    """
    files = names(findings)
    if not files:
        return []
    there = [path for path in files if os.path.lexists(path)]
    after = f"{snakemake}    # then the files that depend on them, if their content changed"
    if len(files) > TYPED:
        return [
            f"{verify_again} --names > again.txt",
            f"{LINES} rm -f",
            f"{LINES} {snakemake}",
            after,
        ]
    return [
        *([f"rm {shlex.join(there)}"] if there else []),
        f"{snakemake} {shlex.join(files)}",
        after,
    ]


def names(findings: list[Finding]) -> list[str]:
    """Return the files to recompute: all but those without a record."""
    recorded = (finding for finding in findings if finding.kind != UNRECORDED)
    return list(dict.fromkeys(finding.rebuild for finding in recorded))
