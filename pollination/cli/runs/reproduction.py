"""Recompute one generation in a new folder, and explain every difference.

The folder holds a copy of the config with absolute paths, and results/{run}/ with links to all
ancestors of the generation and to their records. Snakemake finds every input there, so it computes
this generation and nothing before it.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pollination import ROOT
from pollination.cli.runs.verification import read_records
from pollination.core import artifacts
from pollination.core.settings import UNREAD, differing, schema, whole
from pollination.plan import pruning
from pollination.plan.config.loading import read_yaml
from pollination.plan.config.overlay import expand
from pollination.plan.corpora import CORPUS_KINDS
from pollination.plan.inputs import staged_files
from pollination.plan.job_kinds import ORDER
from pollination.plan.outputs import generation_files
from pollination.plan.plan import Plan

STEPS = re.compile(r"(\d+) of (\d+) steps")


def prepare(
    plan: Plan, configfile: str, name: str, generation: int, original: Path, into: Path
) -> int:
    """Link the inputs of the generation's jobs into `into`; return the number of files.

    Outputs that the run deleted on purpose (config key `keep`) may be absent, since their record
    has the digests.
    ValueError: the generation or an input of it is missing, or `into` is not empty.
    """
    if into.exists() and any(into.iterdir()):
        raise ValueError(f"--into: {into} is not empty; delete it or name a new folder")
    made = set(generation_files(plan, name, generation))
    records, _, _ = read_records(original)
    writer = {
        os.path.normpath(Path(path).parent / file): path
        for path, record in records.items()
        for file in record["outputs"]
    }
    there = {path: str(original / _relative(plan, path)) for path in made}
    gone = deleted(plan, original)
    for path in there.values():
        if path not in writer or not (Path(path).is_file() or path in gone):
            what = "no record names this file" if Path(path).is_file() else "no such file"
            raise ValueError(
                f"{path}: {what}; reproduce needs a finished generation, so run snakemake first"
            )
    own = {writer[path] for path in there.values()}
    inputs = {path for record in own for path in records[record]["inputs"]} - made
    missing = [
        path
        for path in sorted(inputs)
        if path.startswith(f"{plan.results}/") and not (original / _relative(plan, path)).is_file()
    ]
    absent = {os.path.normpath(original / _relative(plan, path)) for path in missing}
    if absent & gone:
        wanted = [path for path in missing if str(original / _relative(plan, path)) in gone]
        more = f" and {len(wanted) - 1} more" if len(wanted) > 1 else ""
        raise ValueError(
            f"{wanted[0]}{more}: the run deleted this input of the generation on purpose (config "
            "key keep); recompute it first: snakemake --profile profiles/local --configfile "
            f"{configfile} -- {shlex.join(wanted)}"
        )
    if missing:
        raise ValueError(
            f"{missing[0]}: this input of the generation is missing; run snakemake to recompute it"
        )
    # Without the ancestors of the inputs, Snakemake would recompute them.
    waiting, seen = [*inputs, *staged_files(plan)], set(own)
    linked, now_s = 0, time.time()
    while waiting:
        source = str(original / _relative(plan, waiting.pop()))
        record = writer.get(source)
        if record is None or record in seen:
            continue
        seen.add(record)
        outputs = [Path(record).parent / file for file in records[record]["outputs"]]
        for path in (record, *map(os.path.normpath, outputs)):
            target = into / plan.results / Path(path).relative_to(original)
            linked += _link(Path(path), target, now_s)
        waiting += [
            path for path in records[record]["inputs"] if path.startswith(f"{plan.results}/")
        ]
    order = into / plan.results / ORDER  # founders wait for it
    order.parent.mkdir(parents=True, exist_ok=True)
    order.touch()
    config = _absolute(expand(read_yaml(configfile)))
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    (into / "config.yaml").write_text(text, encoding="utf-8")
    return linked


def deleted(plan: Plan, original: Path) -> set[str]:
    """Return the files that a run deleted on purpose (config key `keep`) and has not here."""
    listed = pruning.pruned(Plan(plan.config, str(original)))
    return {path for path in listed if not os.path.lexists(path)}


def _relative(plan: Plan, path: str) -> str:
    return path.removeprefix(f"{plan.results}/")


def _link(source: Path, target: Path, time_s: float) -> bool:
    """Link `target` to `source` if that exists; return whether it does.

    All links get one time stamp, so that no input is newer than the files made from it.
    """
    if not source.is_file():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(source.resolve())
    except OSError:  # the file system has no links
        shutil.copyfile(source, target)
    os.utime(target, (time_s, time_s), follow_symlinks=False)
    return True


def _absolute(raw: dict) -> dict:
    """Return the config with absolute local paths."""

    def full(path: str) -> str:
        return path if path.startswith("{data}") else os.path.abspath(os.path.expanduser(path))

    def every(paths: str | list[str]) -> str | list[str]:
        return full(paths) if isinstance(paths, str) else [full(path) for path in paths]

    def folder(name: str) -> str:
        place = Path(name.replace("{data}", str(raw.get("data", "."))))
        return full(name) if place.expanduser().is_dir() else name

    config = {**raw, "data": os.path.abspath(os.path.expanduser(str(raw.get("data", "."))))}
    for corpus in config.get("corpora", {}).values():
        kind = CORPUS_KINDS.get(corpus.get("kind"))
        if kind and kind.local:
            if corpus.get("path"):
                corpus["path"] = every(corpus["path"])
            if corpus.get("splits"):
                corpus["splits"] = {split: every(path) for split, path in corpus["splits"].items()}
        elif kind and kind.stager and corpus.get("name"):
            corpus["name"] = folder(corpus["name"])
    for model in config.get("models", {}).values():
        if isinstance(model.get("pretrained"), str):
            model["pretrained"] = folder(model["pretrained"])
        if (model.get("tokenizer") or {}).get("source"):
            source = folder(model["tokenizer"]["source"])
            model["tokenizer"] = model["tokenizer"] | {"source": source}
    for task in config.get("tasks", {}).values():
        if task.get("data"):
            task["data"] = {split: full(path) for split, path in task["data"].items()}
        if task.get("include_path"):
            task["include_path"] = full(task["include_path"])
    for survey in (config.get("fingerprint") or {}).values():
        survey |= {key: every(survey[key]) for key in ("path", "models") if survey.get(key)}
    return config


def make(
    plan: Plan,
    name: str,
    generation: int,
    into: Path,
    profile: str | None,
    cores: str,
    show: Callable[..., None],
) -> None:
    """Run Snakemake for the generation's files in `into`.

    ValueError: Snakemake fails; the message names its log.
    """
    if profile and Path(profile).is_dir():
        profile = str(Path(profile).resolve())
    profile = profile or str(ROOT / "profiles/local")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(into), "--profile", profile]
    command += ["--configfile", str((into / "config.yaml").resolve()), "--cores", cores]
    command += ["--rerun-triggers", "mtime", "--"]
    log = into / "snakemake.log"
    with open(log, "w", encoding="utf-8", buffering=1) as file:
        words = [*command, *generation_files(plan, name, generation)]
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                if steps := STEPS.search(line):
                    show(f"{steps[1]} of {steps[2]} jobs done", last=steps[1] == steps[2])
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()
    if process.returncode:
        last = [line for line in log.read_text(encoding="utf-8").splitlines() if "rror" in line]
        raise ValueError(
            f"snakemake failed ({last[0].strip() if last else 'no message'}); the reason is in "
            f"{log}"
        )


def compare(
    plan: Plan, name: str, generation: int, original: Path, into: Path
) -> tuple[int, list[tuple[str, str]], list[str]]:
    """Return (number of equal files, [(file, why it differs)], notes), by the files' digests.

    A file that the original run deleted on purpose is compared by the digest in its record.
    """
    equal, unequal, notes = 0, [], []
    gone = deleted(plan, original)

    def sides(path: str) -> tuple[Path, Path]:
        return original / _relative(plan, path), into / path

    changed = {}
    for path in generation_files(plan, name, generation):
        digests = [
            _record(side)[1] if str(side) in gone else artifacts.digest(side)
            for side in sides(path)
        ]
        if digests[0] == digests[1]:
            equal += 1
        else:
            changed[path] = digests
    reasons: dict[tuple[Path, ...], str] = {}
    for path, digests in changed.items():
        records = [_record(side) for side in sides(path)]
        key = tuple(record[0] for record in records)
        if key not in reasons:
            reasons[key] = why(*(artifacts.read_json(record) for record in key))
        damaged = records[0][1] != digests[0]
        same = records[1][1] == records[0][1]
        reason = reasons[key]
        if damaged:
            reason = "the original does not match its record (type pollination verify)" + (
                "; the new file does" if same else f"; {reason}"
            )
        unequal.append((path, reason))
    settings = original / "config.yaml"
    if settings.is_file():
        settings_that_differ = differing(whole(read_yaml(settings), schema()), plan.config)
        notes += [
            f"note: the config has changed since the run: {key} was {before!r}, is {after!r}"
            for key, (before, after) in settings_that_differ.items()
        ]
    return equal, unequal, notes


def _record(path: Path) -> tuple[Path, str]:
    record = artifacts.find_record(path)
    if record is None:
        raise ValueError(
            f"{path}: no record (run.json) lists this file, so the cause of the difference is "
            "unknown. Type `pollination verify`: it prints the commands that recompute the file"
        )
    return record


def why(there: dict, here: dict) -> str:
    """Return why one job gave different results, from its two records.

    The reasons are settings, inputs, versions and code; if these are equal, the hardware. In the
    text, "was" is the original and "is" the new result.
    """
    reasons = [
        f"{key} was {_said(before)}, is {_said(after)}"
        for key, (before, after) in differing(there["params"], here["params"]).items()
        if key not in UNREAD
    ]
    inputs = [
        path
        for path, digest in there["inputs"].items()
        if here["inputs"].get(path, digest) != digest
    ]
    inputs += sorted(there["inputs"].keys() ^ here["inputs"].keys())
    if inputs:
        more = f" and {len(inputs) - 1} more" if len(inputs) > 1 else ""
        reasons.append(f"the job read a different {inputs[0]}{more}")
    reasons += [
        f"{key} was {before}, is {after}"
        for key, (before, after) in differing(there["versions"], here["versions"]).items()
    ]
    if there["commit"] != here["commit"]:
        reasons.append(
            f"commit was {there['commit'][:9]}{_dirty(there)}, "
            f"is {here['commit'][:9]}{_dirty(here)}"
        )
    elif there.get("code") and here.get("code") and there["code"] != here["code"]:
        reasons.append(f"the code was {there['code'][:12]}, is {here['code'][:12]} (digests)")
    if reasons:
        return "; ".join(reasons)
    hardware = differing(there.get("hardware", {}), here.get("hardware", {}))
    if hardware:
        return "other hardware: " + "; ".join(
            f"{key} was {_said(before)}, is {_said(after)}"
            for key, (before, after) in hardware.items()
        )
    device = hardware_of(there)
    return (
        "settings, inputs, versions and commit are equal, so the reason is the hardware (device "
        f"{device}) or threads that a library started on its own"
    )


def hardware_of(record: dict) -> str:
    """Return the device that a record names; earlier versions named only the config's."""
    return record.get("hardware", {}).get("device", record["params"].get("device", "cpu"))


def _said(value: Any) -> str:
    return "absent" if value is None else str(value)


def _dirty(record: dict) -> str:
    marks = {"+": " with uncommitted changes", "?": " (git did not say whether files differ)"}
    return marks.get(record["commit"][-1:], "")
