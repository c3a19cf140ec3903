"""One generation made again in a folder of its own, and why it differs where it does.

The folder is a project of its own: results/{run}/ with links to all that the generation descends from, records beside it, and a copy
of the config with absolute paths. Snakemake finds all inputs there, so it makes the generation and nothing before it.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pollination import artifacts
from pollination.comparison import differing
from pollination.config import ROOT
from pollination.twin import expand
from pollination.verification import read_records
from pollination.workflow import Plan
from pollination.yamlfile import read_yaml

STEPS = re.compile(r"(\d+) of (\d+) steps")


def prepare(plan: Plan, configfile: str, name: str, generation: int, original: Path, into: Path) -> int:
    """Link what the generation's jobs read into `into`; returns how many files. ValueError: the generation is not whole, `into` is taken."""
    if into.exists() and any(into.iterdir()):
        raise ValueError(f"--into: {into} is not empty; delete it or name a new folder")
    made = set(plan.generation_files(name, generation))
    records, _, _ = read_records(original)
    writer = {os.path.normpath(Path(path).parent / file): path for path, record in records.items() for file in record["outputs"]}
    there = {path: str(original / _relative(plan, path)) for path in made}
    for path in there.values():
        if path not in writer or not Path(path).is_file():
            what = "no record names it" if Path(path).is_file() else "it is not there"
            raise ValueError(f"{path}: {what}; a generation is reproduced once it is finished")
    own = {writer[path] for path in there.values()}
    inputs = {path for record in own for path in records[record]["inputs"]} - made
    missing = [path for path in sorted(inputs) if path.startswith(f"{plan.results}/") and not (original / _relative(plan, path)).is_file()]
    if missing:
        raise ValueError(f"{missing[0]}: this input of the generation is not there; snakemake makes it again")
    # all that the inputs descend from is linked too: Snakemake would make again what is missing
    waiting, seen = [*inputs, *plan.staged()], set(own)
    linked, now_s = 0, time.time()
    while waiting:
        source = str(original / _relative(plan, waiting.pop()))
        record = writer.get(source)
        if record is None or record in seen:
            continue
        seen.add(record)
        for path in (record, *(os.path.normpath(Path(record).parent / file) for file in records[record]["outputs"])):
            linked += _link(Path(path), into / plan.results / Path(path).relative_to(original), now_s)
        waiting += [path for path in records[record]["inputs"] if path.startswith(f"{plan.results}/")]
    order = into / plan.results / "staged/complete"  # founders wait for it
    order.parent.mkdir(parents=True, exist_ok=True)
    order.touch()
    (into / "config.yaml").write_text(
        yaml.safe_dump(_absolute(expand(read_yaml(configfile))), sort_keys=False, allow_unicode=True),
        encoding="utf-8",
    )
    return linked


def _relative(plan: Plan, path: str) -> str:
    return path.removeprefix(f"{plan.results}/")


def _link(source: Path, target: Path, time_s: float) -> bool:
    """A link to `source`, if that is there. Links all have one time stamp, so that none of them is newer than what was made from it."""
    if not source.is_file():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(source.resolve())
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
    os.utime(target, (time_s, time_s), follow_symlinks=False)
    return True


def _absolute(raw: dict) -> dict:
    """A config whose local paths mean the same from every folder."""
    full = lambda path: path if path.startswith("{data}") else os.path.abspath(os.path.expanduser(path))  # noqa: E731
    every = lambda paths: full(paths) if isinstance(paths, str) else [full(path) for path in paths]  # noqa: E731
    folder = lambda name: full(name) if Path(name.replace("{data}", str(raw.get("data", ".")))).expanduser().is_dir() else name  # noqa: E731
    found = {**raw, "data": os.path.abspath(os.path.expanduser(str(raw.get("data", "."))))}
    for corpus in found.get("corpora", {}).values():
        if corpus.get("kind") == "files":
            corpus |= {"path": every(corpus["path"])} if corpus.get("path") else {}
            corpus |= {"splits": {split: every(path) for split, path in corpus["splits"].items()}} if corpus.get("splits") else {}
        elif corpus.get("kind") == "hub" and corpus.get("name"):
            corpus["name"] = folder(corpus["name"])
    for model in found.get("models", {}).values():
        if isinstance(model.get("pretrained"), str):
            model["pretrained"] = folder(model["pretrained"])
        if (model.get("tokenizer") or {}).get("source"):
            model["tokenizer"] = model["tokenizer"] | {"source": folder(model["tokenizer"]["source"])}
    for task in found.get("tasks", {}).values():
        if task.get("data"):
            task["data"] = {split: full(path) for split, path in task["data"].items()}
    for survey in (found.get("fingerprint") or {}).values():
        survey |= {key: every(survey[key]) for key in ("path", "models") if survey.get(key)}
    return found


def make(plan: Plan, name: str, generation: int, into: Path, profile: str | None, cores: str, show: Callable[..., None]) -> None:
    """Have Snakemake make the generation's files in `into`. ValueError, where it cannot, says where the reason stands."""
    profile = str(Path(profile).resolve()) if profile and Path(profile).is_dir() else profile or str(ROOT / "profiles/local")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(into), "--profile", profile]
    command += ["--configfile", str((into / "config.yaml").resolve()), "--cores", cores]
    command += ["--rerun-triggers", "mtime", "--"]
    log = into / "snakemake.log"
    with open(log, "w", encoding="utf-8", buffering=1) as file:
        words = [*command, *plan.generation_files(name, generation)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
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
        raise ValueError(f"snakemake could not make it ({last[0].strip() if last else 'no message'}); {log} says why")


def compare(plan: Plan, name: str, generation: int, original: Path, into: Path) -> tuple[int, list[tuple[str, str]], list[str]]:
    """(files equal, [(file, why it differs)], what else there is to say), by the digests of the files themselves."""
    equal, found, notes = 0, [], []
    files = plan.generation_files(name, generation)
    sides = lambda path: (original / _relative(plan, path), into / path)  # noqa: E731
    changed = {}
    for path in files:
        digests = [artifacts.digest(side) for side in sides(path)]
        if digests[0] == digests[1]:
            equal += 1
        else:
            changed[path] = digests
    reasons: dict[tuple[Path, ...], str] = {}
    for path, digests in changed.items():
        records = [artifacts.find_record(side) for side in sides(path)]
        key = tuple(record[0] for record in records)
        if key not in reasons:
            reasons[key] = why(*(artifacts.read_json(record) for record in key))
        damaged = records[0][1] != digests[0]
        same = records[1][1] == records[0][1]
        reason = reasons[key]
        if damaged:
            reason = "the original is not what its record says (verify)" + (", and what was made anew is" if same else f"; {reason}")
        found.append((path, reason))
    settings = original / "config.yaml"
    if settings.is_file():
        other = differing(read_yaml(settings), plan.config)
        notes += [f"note: the config differs from the run's in {key}: {one!r} there, {two!r} here" for key, (one, two) in other.items()]
    return equal, found, notes


def why(there: dict, here: dict) -> str:
    """What two records of one job say about different results: settings, inputs, versions, code, or (if nothing) hardware."""
    reasons = [f"{key}: {_said(one)} there, {_said(two)} here" for key, (one, two) in differing(there["params"], here["params"]).items()]
    inputs = [path for path, digest in there["inputs"].items() if here["inputs"].get(path, digest) != digest]
    inputs += sorted(there["inputs"].keys() ^ here["inputs"].keys())
    reasons += [f"read another {inputs[0]}" + (f" and {len(inputs) - 1} more" if len(inputs) > 1 else "")] if inputs else []
    reasons += [f"{key} {one} there, {two} here" for key, (one, two) in differing(there["versions"], here["versions"]).items()]
    if there["commit"] != here["commit"]:
        reasons.append(f"commit {there['commit'][:9]}{_dirty(there)} there, {here['commit'][:9]}{_dirty(here)} here")
    if reasons:
        return "; ".join(reasons)
    other = differing(there.get("hardware", {}), here.get("hardware", {}))
    if other:
        return "other hardware: " + "; ".join(f"{key} {_said(one)} there, {_said(two)} here" for key, (one, two) in other.items())
    device = there["params"].get("device", "cpu")
    return f"same settings, inputs, versions and commit: the hardware (device {device}), or threads that a library started by itself"


def _said(value: Any) -> str:
    return "absent" if value is None else str(value)


def _dirty(record: dict) -> str:
    return " with changes" if record["commit"].endswith("+") else ""
