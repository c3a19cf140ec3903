"""Read the records of a run, and find those that are damaged or belong elsewhere."""

import os
from dataclasses import dataclass
from pathlib import Path

from pollination.core import artifacts
from pollination.core.artifacts import DamagedArtifact

PARTS = {
    "member": ("member{}", "deal{}", "mix{}"),
    "gen": ("gen{}",),
    "rank": ("parent{}", "synthetic{}", "soup{}"),
    "shard": ("shard{}",),
}
# Wildcards that are folders of a path, or words of its file name between dots
NAMES = {"experiment", "pool", "model", "corpus", "task", "place", "survey", "split"}


@dataclass(frozen=True)
class Finding:
    """One fault of the file `path`.

    `kind`: the fault in one or two words; `said`: its details; `rebuild`: the file to recompute.
    """

    kind: str
    path: str
    said: str
    rebuild: str


def read_records(folder: Path) -> tuple[dict[str, dict], list[Finding], list[str]]:
    """Return a run's records by path, the findings on records, and all other files."""
    records, findings, files, walked = {}, [], [], {os.path.realpath(folder)}
    # A user may have moved a folder to another disk and linked it.
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and not (Path(place) == folder and name in ("logs", "benchmarks"))
            and not (Path(place, name).is_symlink() and _is_walked(Path(place, name), walked))
        )
        for name in sorted(names):
            path = Path(place, name)
            if name != "run.json" and not name.endswith(".run.json"):
                files += [] if name.startswith(".") else [str(path)]
                continue
            try:
                record = artifacts.read_record(path)
                record["outputs"], record["inputs"], record["wildcards"]
            except (DamagedArtifact, KeyError, OSError) as error:
                if not os.path.lexists(path):  # a running job has just deleted it
                    continue
                said = (
                    "is empty"
                    if path.exists() and path.stat().st_size == 0
                    else str(error).removeprefix(f"{path}: ").split(";")[0]
                )
                findings.append(Finding("damaged record", str(path), said, str(path)))
                continue
            if not _in_place(record, path.relative_to(folder)):
                wildcards = ", ".join(
                    f"{key} {value}" for key, value in record["wildcards"].items()
                )
                said = f"this is the record of {record['rule']}, {wildcards}"
                findings.append(Finding("misplaced", str(path), said, str(path)))
            records[str(path)] = record
    return records, findings, files


def _is_walked(link: Path, walked: set[str]) -> bool:
    """Return whether a linked folder was walked before, or leads back to the run."""
    target = os.path.realpath(link)
    known = target in walked or any(one.startswith(f"{target}/") for one in walked)
    walked.add(target)
    return known


def _in_place(record: dict, path: Path) -> bool:
    """Return whether a record is where its job writes it, and not in an exchanged folder."""
    text = path.as_posix().removesuffix("run.json").removesuffix(".")
    parts, (folder, _, name) = set(text.split("/")), text.rpartition("/")
    for key, value in record["wildcards"].items():
        if key in PARTS:
            if not parts & {form.format(value) for form in PARTS[key]}:
                return False
        elif key in NAMES and f"/{value}/" not in f"/{folder}/" and f".{value}." not in f".{name}.":
            return False
    return True
