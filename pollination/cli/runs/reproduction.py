"""Recompute one generation in a new folder, and explain every difference.

The folder holds results/{run}/ with the pinned config, in which all paths are absolute, and with
links to all ancestors of the generation and to their records. Snakemake finds every input there, so
it computes this generation and nothing before it.
"""

import copy
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pollination import ROOT
from pollination.cli.runs.archive import OUTSIDE, mirrored
from pollination.cli.runs.closure import closure, deleted, relative, require_inputs
from pollination.core import artifacts, code, pin, userfile
from pollination.core.settings import UNREAD, differing, schema, whole
from pollination.plan.config.loading import read_yaml
from pollination.plan.corpora import CORPUS_KINDS
from pollination.plan.inputs import own_code
from pollination.plan.job_kinds import ORDER
from pollination.plan.outputs import generation_files
from pollination.plan.plan import Plan

STEPS = re.compile(r"(\d+) of (\d+) steps")


def prepare(
    plan: Plan, configfile: str | None, name: str, generation: int, original: Path, into: Path
) -> int:
    """Link the inputs of the generation's jobs into `into`; return the number of files.

    ValueError: the generation or an input of it is missing, or `into` is not empty.
    """
    if into.exists() and any(into.iterdir()):
        raise ValueError(f"--into: {into} is not empty; delete it or name a new folder")
    found = closure(plan, name, generation, original)
    require_inputs(plan, found, original, configfile)
    linked, now_s = 0, time.time()
    for path in [*found.before, *(path for path, _ in found.files(found.before))]:
        target = into / plan.results / Path(path).relative_to(original)
        linked += _link(Path(path), target, now_s)
    order = into / plan.results / ORDER  # founders wait for it
    order.parent.mkdir(parents=True, exist_ok=True)
    order.touch()
    # Snakemake takes a pinned config as it is, resolved. No job of a generation reads these two
    # sections, whose files may not be here.
    config = located(plan.config, original) | {"fingerprint": {}, "theory": {}}
    own = own_code(Plan(config, plan.results))
    pin.Pin(str(into / plan.results), code.files(), config, own).write()
    return linked


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


def located(config: dict, original: Path) -> dict:
    """Return a resolved config in which each local path is absolute.

    Files from outside the run lie in the run's own folder if it was imported.
    """
    config, imported = copy.deepcopy(config), (original / OUTSIDE).is_dir()

    def full(path: str) -> str:
        path = os.path.expanduser(path)
        return os.path.abspath(original / mirrored(path) if imported else path)

    def every(paths: str | list[str]) -> str | list[str]:
        return full(paths) if isinstance(paths, str) else [full(path) for path in paths]

    def folder(name: str) -> str:
        return full(name) if Path(name).expanduser().is_dir() else name

    def own(text: str) -> str:
        path, function = userfile.split(text)
        return f"{full(path)}:{function}"

    config["data"] = full(config["data"])
    for corpus in config["corpora"].values():
        kind = CORPUS_KINDS[corpus["kind"]]
        if kind.local:
            if corpus.get("path"):
                corpus["path"] = every(corpus["path"])
            if corpus.get("splits"):
                corpus["splits"] = {split: every(path) for split, path in corpus["splits"].items()}
        elif kind.stager and corpus.get("name"):
            corpus["name"] = folder(corpus["name"])
    for model in config["models"].values():
        if isinstance(model["pretrained"], str):
            model["pretrained"] = folder(model["pretrained"])
        if model["tokenizer"].get("source"):
            model["tokenizer"]["source"] = folder(model["tokenizer"]["source"])
    for task in config["tasks"].values():
        if task["data"]:
            task["data"] = {split: full(path) for split, path in task["data"].items()}
        if task.get("include_path"):
            task["include_path"] = full(task["include_path"])
    measures = config["evaluate"]["measures"]
    measures |= {name: own(text) for name, text in measures.items()}
    for experiment in config["experiments"].values():
        if userfile.is_own(experiment["select"]["rule"]):
            experiment["select"]["rule"] = own(experiment["select"]["rule"])
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
    config, _ = pin.latest_config(into / plan.results) or (into, {})
    command += ["--configfile", str(config.resolve()), "--cores", cores]
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
        return original / relative(plan, path), into / path

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
