"""Take the files of a job from another run, in which the same job has finished.

It is the same job if its rule, wildcards and params are equal, and if its inputs have the same
bytes at the same places below the folder of the run. So names within a run count, and the name of
the run does not. The config key `reuse` names the other runs.
"""

import json
import os
from pathlib import Path
from typing import Any

from pollination.core import artifacts, sanitize
from pollination.core.lease import replace_by_link

# Snakemake touches outputs, and so their links in the other run. There it compares inputs up to
# this size by content (profiles/), and larger ones by time.
LINKED_BYTES = 10_000_000_000


def take(job: Any, runs: list[str], run: Path) -> str | None:
    """Link the files of a job (core/job.py) from another run, and write its record.

    Returns the record of the other run; None if no run has done this job. `run` is the folder of
    this run, `runs` are those of the others.
    """
    if not job.output.get("run"):
        return None
    record = Path(job.output.run)
    here = {
        "rule": job.rule,
        "wildcards": dict(job.wildcards.items()),
        "params": json.loads(json.dumps(job.recorded, default=str)),
        "inputs": _below(job.digests, run),
    }
    for other in map(Path, runs):
        theirs = other / os.path.relpath(record, run)
        try:
            known = artifacts.read_record(theirs)
            there = {key: known[key] for key in here}
            there["inputs"] = _below(there["inputs"], Path("results") / other.resolve().name)
            if differ := [key for key in here if here[key] != there[key]]:
                job.log.info("%s is of another job: its %s differ", theirs, ", ".join(differ))
                continue
            if not _are_of(known["outputs"], job, record.parent):
                job.log.warning("%s names other files than this job writes", theirs)
                continue
            sources = {name: theirs.parent / name for name in known["outputs"]}
            wrong = [
                path
                for name, path in sources.items()
                if artifacts.digest(path) != known["outputs"][name]
            ]
        except FileNotFoundError as error:
            if error.filename != str(theirs):
                job.log.info("%s: its file %s is gone", theirs, error.filename)
            continue
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            job.log.warning("%s cannot be used: %s", theirs, sanitize.reason(error))
            continue
        if wrong:
            job.log.warning("%s is damaged, so this job computes it again", wrong[0])
            continue
        for name, path in sources.items():
            replace_by_link(path, record.parent / name, links=_is_linkable(path))
        known = {key: value for key, value in known.items() if key != "seal"}
        known |= {"inputs": job.digests, "reused": str(theirs)}
        artifacts.write_json(record, artifacts.seal(known))
        return str(theirs)
    return None


def _are_of(names: dict[str, str], job: Any, folder: Path) -> bool:
    """Return whether a record names what a job writes, and nothing else on this disk."""
    own = [os.path.relpath(path, folder) for path in job.output if path != job.output.run]
    within = [
        {one for one in own if name == one or name.startswith(f"{one}/")}
        for name in names
        if name in own or ".." not in Path(name).parts
    ]
    return len(within) == len(names) and all(within) and set().union(*within) == set(own)


def _below(inputs: dict[str, str], run: Path) -> dict[str, str]:
    """Return path -> digest, with paths below a run relative to it."""
    return {path.removeprefix(f"{run}/"): digest for path, digest in inputs.items()}


def _is_linkable(path: Path) -> bool:
    """Return whether Snakemake may touch a link of a file; only its owner may."""
    found = path.stat()
    return found.st_uid == os.geteuid() and found.st_size <= LINKED_BYTES
