"""Pin the config and the code of a run when its driver starts, and compare runs of snakemake.

Without a pin, a job on a cluster would read the config file and the code again when it starts,
perhaps days after the driver planned it. A driver writes

    results/{run}/.driver/pins/{digest}/config.json    the resolved config
    results/{run}/.driver/pins/{digest}/pin.json       digests of the config and of each code file,
                                                       the commit, versions of libraries
    results/{run}/.driver/pins/order                   the names of the pins, the latest last

and gives its jobs the path of this config.json instead of the user's config files. So each job has
the pin of the driver that submitted it, whatever a later driver pins.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pollination import ROOT
from pollination.core import artifacts, code
from pollination.core.code import few
from pollination.core.driver import FOLDER
from pollination.core.holder import beat_s
from pollination.core.job import git_commit, versions
from pollination.core.sanitize import reason

PINS = "pins"
NAME = re.compile(r"^[0-9a-f]{16}$", re.M)
KEPT = 20  # pins of a run; a job in the queue needs the one of its driver
SHOWN = 3  # groups of jobs that a note names
LINES = 5  # notes on one subject


def start(
    workflow, found: dict[str, str], config: dict, results: str, own: dict, base: str | None
) -> None:
    """Pin the config and the code `found`, and let all jobs of Snakemake's `workflow` use them.

    `own`: digests of the user's code, by path; `base`: the base of an overlay. A thread watches
    the code from now on. Exits with one line if the pin cannot be written.
    """
    try:
        pin = Pin(results, found, config, own)
        pin.write()
    except OSError as error:
        sys.exit(f"error: {error.filename or results}: {reason(error)}; snakemake cannot start")
    given = code.digests(map(os.path.abspath, [*workflow.configfiles, *([base] if base else [])]))
    # Snakemake puts these two on the command line of its jobs.
    workflow.config_settings.configfiles = [pin.folder / "config.json"]
    workflow.config_settings.config_args = ""
    os.environ[code.VARIABLE] = str(pin.folder)
    threading.Thread(target=pin.watch, args=(given,), daemon=True).start()


def enter(configfiles: list[Path]) -> dict:
    """Return the pinned config of a job on a cluster, after comparing its code.

    `configfiles`: those of the job's command line. Exits with one line if the job has no pin, or
    other code than its driver.
    """
    folder = Path(configfiles[0]).parent if configfiles else Path()
    if folder.parent.name != PINS:
        sys.exit(
            "error: this job has no pinned config: its snakemake had --no-hooks or is of an "
            f"earlier release; {code.AGAIN}, without --no-hooks"
        )
    try:
        config = code.read_config(folder)
        code.check(code.read(folder))
    except (ValueError, OSError) as mistake:
        sys.exit(f"error: {mistake}")
    os.environ[code.VARIABLE] = str(folder)
    return config


def given(configfiles: list[Path]) -> dict | None:
    """Return the config of a pin whose config.json a driver got as its config file.

    `pollination reproduce` gives one: the config of a run, already resolved. None: another file.
    Exits with one line if the pin was changed.
    """
    folder = Path(configfiles[0]).parent if len(configfiles) == 1 else Path()
    if folder.parent.name != PINS:
        return None
    try:
        return code.read_config(folder)
    except (ValueError, OSError) as mistake:
        sys.exit(f"error: {mistake}")


class Pin:
    """The config and the code that a driver found at its start."""

    def __init__(self, results: str, found: dict[str, str], config: dict, own: dict) -> None:
        self.config = json.dumps(config, ensure_ascii=False).encode()  # keys keep their order
        self.content = {
            "config": hashlib.sha256(self.config).hexdigest(),
            "code": found,
            # Snakemake changes the working folder back before it ends.
            "own": {os.path.abspath(path): digest for path, digest in own.items()},
            "root": str(ROOT),
            "commit": git_commit(ROOT),
            "versions": versions(),
        }
        self.text = artifacts.as_json(self.content).encode()
        name = hashlib.sha256(self.text).hexdigest()[:16]
        # Absolute, because jobs may start in another folder.
        self.folder = Path(results, FOLDER, PINS, name).absolute()

    def write(self) -> None:
        """Write the pin, make it the latest, and delete the oldest of more than KEPT."""
        for name, text in (("config.json", self.config), ("pin.json", self.text)):
            with artifacts.atomic(self.folder / name) as temporary:
                temporary.write_bytes(text)
        pins = self.folder.parent
        order = [name for name in _order(pins) if name != self.folder.name] + [self.folder.name]
        with artifacts.atomic(pins / "order") as temporary:
            temporary.write_text("".join(f"{name}\n" for name in order[-KEPT:]))
        for old in pins.iterdir():
            if old.is_dir() and old.name not in order[-KEPT:]:
                shutil.rmtree(old, ignore_errors=True)

    def watch(self, given: dict[str, str]) -> None:
        """Compare the code at each beat; if it changes, say so and let Snakemake end.

        Running jobs finish and no others start. A deleted pin is written again. A change of a
        config file (`given`: their digests) is said once.
        """
        pause_s = beat_s()
        while True:
            time.sleep(pause_s)
            with suppress(OSError):
                if not (self.folder / "pin.json").is_file():
                    self.write()
                if given and (edited := code.different(given, code.digests(given))):
                    print(
                        f"note: {few(edited)} changed; the jobs of this snakemake keep the config "
                        "that was read at its start",
                        file=sys.stderr,
                        flush=True,
                    )
                    given = {}
                try:
                    code.check(self.content)
                except ValueError as changed:
                    print(f"error: {changed}", file=sys.stderr, flush=True)
                    os.kill(os.getpid(), signal.SIGTERM)
                    return


def _order(pins: Path) -> list[str]:
    """Return the names of a run's pins, the latest last; of a damaged file, those left in it."""
    with suppress(OSError):
        return NAME.findall((pins / "order").read_text(errors="replace"))
    return []


def _latest(results: Path) -> dict | None:
    """Return the latest pin of a run; of a run without pins, what one of its records says."""
    pins = results / FOLDER / PINS
    for name in reversed(_order(pins)):
        with suppress(ValueError):
            return code.read(pins / name)
    with suppress(OSError, ValueError, KeyError):
        record = artifacts.read_json(results / "config.run.json")
        return {"commit": record["commit"], "versions": record["versions"]}
    return None


def latest_config(results: Path) -> tuple[Path, dict] | None:
    """Return the path and content of the config that the last snakemake of a run pinned.

    None: no pin can be read.
    """
    pins = results / FOLDER / PINS
    for name in reversed(_order(pins)):
        with suppress(ValueError):
            return pins / name / "config.json", code.read_config(pins / name)
    return None


def upcoming(results: Path, found: dict[str, str] | None = None) -> list[str]:
    """Return one line for each difference between the next snakemake and the last one of a run.

    `found`: the code of the next one. A run without artifacts has no differences.
    """
    last = _latest(results)
    if last is None or not any(results.rglob("*run.json")):
        return []
    said = []
    found = found or code.files()
    if "code" in last:
        if code.results(found) != code.results(last["code"]):
            names = [n for n in code.different(found, last["code"]) if not n.startswith(code.APART)]
            said.append(
                f"the code has changed since the last snakemake of this run: {few(names)} (digest "
                f"{code.results(last['code'])[:12]}, commit {_short(last['commit'])}; now "
                f"{code.results(found)[:12]}, commit {_short(git_commit(ROOT))})"
            )
    elif (commit := git_commit(ROOT)) != last["commit"]:
        said.append(
            f"the commit has changed since the last snakemake of this run: "
            f"{_short(last['commit'])}, now {_short(commit)}"
        )
    if changes := _changes(last["versions"], versions()):
        said.append(f"libraries have changed since the last snakemake of this run: {changes}")
    return said


def notes(results: Path, records: dict[str, dict] | None = None) -> list[str]:
    """Return one line for each difference between the parts of a run, with the artifacts affected.

    The parts differ in their code or in their libraries. The last lines compare the next snakemake
    with the last one. `records`: path -> record, if they have been read already.
    """
    results = Path(results)
    if records is None:
        records = dict(_read(results))
    known = {  # commit without changes -> code, for records of releases that wrote no code
        record["commit"]: record["code"]
        for record in records.values()
        if "code" in record and not record["commit"].endswith(("+", "?"))
    }
    by_code: dict[str, list] = defaultdict(list)
    by_versions: dict[tuple, list] = defaultdict(list)
    for record in records.values():
        commit = record.get("commit", "unknown")
        by_code[record.get("code") or known.get(commit, commit)].append(record)
        by_versions[tuple(sorted(record.get("versions", {}).items()))].append(record)
    pinned = {}
    pins = results / FOLDER / PINS
    for name in _order(pins):
        with suppress(ValueError):
            files = code.read(pins / name)["code"]
            pinned[code.results(files)] = files

    def code_said(one: str, most: str) -> str:
        said = f"other code ({_code(by_code[one], one)}) than most ({_code(by_code[most], most)})"
        if one in pinned and most in pinned:
            names = code.different(pinned[one], pinned[most])
            said += f", which differs in {few([n for n in names if not n.startswith(code.APART)])}"
        return said

    def versions_said(one: tuple, most: tuple) -> str:
        return f"other libraries than most ({_changes(dict(most), dict(one))})"

    mixed = _mixed(by_code, code_said) + _mixed(by_versions, versions_said)
    return mixed + upcoming(results)


def _read(results: Path) -> Iterable[tuple[str, dict]]:
    """Yield the records of a run that can be read; verify reports the others."""
    for place, folders, names in os.walk(results):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name != "benchmarks"
        )
        for name in sorted(names):
            if name == "run.json" or name.endswith(".run.json"):
                path = os.path.join(place, name)
                with suppress(OSError, ValueError), open(path, "rb") as file:
                    record = json.loads(file.read())
                    if isinstance(record, dict) and {"rule", "outputs"} <= record.keys():
                        yield path, record


def _mixed(groups: dict, said) -> list[str]:
    """Return one line for each group of records but the largest: its artifacts, and `said`."""
    size = {key: sum(len(one["outputs"]) for one in group) for key, group in groups.items()}
    most, *others = sorted(groups, key=lambda key: -size[key]) or [None]
    lines = [
        f"{size[key]:,} of {sum(size.values()):,} artifacts were made with {said(key, most)}: "
        f"{_spans(groups[key])}"
        for key in others[:LINES]
    ]
    rest = len(others) - LINES
    return lines + ([f"... and {rest} more such groups of artifacts"] if rest > 0 else [])


def _spans(records: list[dict]) -> str:
    """Return which jobs made artifacts, as in "train_child population gen1-gen3 (12)"."""
    numbers: dict[str, list[int]] = defaultdict(list)
    counts: Counter[str] = Counter()
    for record in records:
        wildcards = record.get("wildcards", {})
        where = [wildcards[key] for key in ("experiment", "pool", "place") if key in wildcards]
        name = " ".join([record["rule"], *where])
        counts[name] += 1
        if str(wildcards.get("gen", "")).isdigit():
            numbers[name].append(int(wildcards["gen"]))
    texts = []
    for name, count in counts.items():
        span = ""
        if found := numbers[name]:
            first, last = min(found), max(found)
            span = f" gen{first}" + (f"-gen{last}" if last > first else "")
        texts.append(f"{name}{span}" + (f" ({count})" if count > 1 else ""))
    rest = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {rest} more kinds" if rest > 0 else "")


def _code(records: list[dict], key: str) -> str:
    commits = Counter(record.get("commit", "unknown") for record in records)
    commit = f"commit {_short(commits.most_common(1)[0][0])}"
    return commit if key in commits else f"digest {key[:12]}, {commit}"


def _short(commit: str) -> str:
    return commit if len(commit) < 40 else commit[:9] + commit[40:]


def _changes(before: dict[str, str], after: dict[str, str]) -> str:
    """Return the libraries that differ, as in "torch 2.12.0 -> 2.13.0"."""
    return ", ".join(
        f"{name} {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in before | after
        if before.get(name) != after.get(name)
    )
