"""Put one generation of a run into an archive that can be verified and recomputed elsewhere.

The archive is the folder of the run, with fewer files: artifacts, records and the resolved config.
Beside them lie the locked environment, the Snakefile, a README and RO-Crate metadata (crate.py).
"""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from pollination import ROOT, __version__
from pollination.cli.runs.archive import (
    CONFIG,
    LEFT_OUT,
    MANIFEST,
    digest_lines,
    mirrored,
    outside_file,
    write,
)
from pollination.cli.runs.closure import closure, deleted, relative, require_inputs
from pollination.cli.runs.crate import METADATA, WORKFLOW, Part, metadata
from pollination.core import artifacts, commit
from pollination.core.settings import lean, schema
from pollination.plan.plan import Plan

README = "README.md"
ENVIRONMENT = {"requirements.txt": "requirements.txt", "environment.yaml": "pollination.yaml"}
KINDS = {
    "results": "an artifact of the generation",
    "inputs": "an input of the generation",
    "records": "the record of a job: settings, versions, digests",
    "others": "a file about the archive",
}


@dataclass(frozen=True)
class Exported:
    """An archive: its place, digest and size in bytes; its files, and the inputs left out."""

    archive: str
    sha256: str
    size_bytes: int
    files: int
    left_out: int


class Contents:
    """The entries of an archive: content or place, digest and kind of each."""

    def __init__(self) -> None:
        self.files: dict[str, Path | bytes] = {}
        self.digests: dict[str, str] = {}
        self.kinds: dict[str, str] = {}

    def add(self, kind: str, name: str, content: Path | bytes, digest: str = "") -> None:
        self.files[name], self.kinds[name] = content, kind
        if isinstance(content, bytes):
            digest = hashlib.sha256(content).hexdigest()
        else:
            digest = digest or artifacts.digest(content)
        self.digests[name] = digest

    def size_bytes(self, name: str) -> int:
        content = self.files[name]
        return len(content) if isinstance(content, bytes) else content.stat().st_size

    def parts(self) -> dict[str, list[Part]]:
        """Return the files of each kind, for the metadata; WORKFLOW is described there."""
        found: dict[str, list[Part]] = {kind: [] for kind in KINDS}
        for name in sorted(self.files):
            if name != WORKFLOW:
                kind = self.kinds[name]
                part = Part(name, self.size_bytes(name), self.digests[name], KINDS[kind])
                found[kind].append(part)
        return found


def export(
    plan: Plan,
    name: str,
    generation: int,
    original: Path,
    target: Path,
    inputs: bool,
    licence: str | None,
    date: str | None,
    show: Callable[[int], None],
) -> Exported:
    """Write the archive of a generation to `target`.

    `inputs`: also the files that recomputing it needs. `licence`: an SPDX identifier. `date`: of
    publication; by default, the day of the commit that made the files. ValueError: a file of the
    generation, or with `inputs` an input, is missing or damaged, or `target` exists.
    """
    if os.path.lexists(target):
        raise ValueError(f"{target} exists, and nothing was overwritten; name a new file with --to")
    found, gone = closure(plan, name, generation, original), deleted(plan, original)
    if inputs:
        require_inputs(plan, found, original, None)
        _refuse_home(plan.config, list(found.outside))
    contents, left_out = Contents(), dict[str, str]()

    def add(kind: str, path: str, digest: str) -> None:
        inside = Path(path).relative_to(original).as_posix()
        if path in gone:
            left_out[inside] = digest
        elif Path(path).is_file():
            contents.add(kind, inside, Path(path), digest)
        else:
            raise ValueError(f"{path}: no such file; recompute it with snakemake, then export")

    for path, digest in found.files(found.own):
        add("results", path, digest)
    for path, digest in found.files(found.before):
        if inputs:
            add("inputs", path, digest)
        else:
            left_out[Path(path).relative_to(original).as_posix()] = digest
    for path, digest in found.outside.items():
        if inputs:
            contents.add("inputs", mirrored(path), outside_file(original, path), digest)
        else:
            left_out[mirrored(path)] = digest
    if not inputs:  # an imported run may have no records of them
        left_out |= {
            relative(plan, path): digest
            for path, digest in found.read.items()
            if path not in found.outside
        }
    for path, digest in found.files(found.lists):
        add("others", path, digest)
    for path in (*found.own, *(found.before if inputs else ()), *found.lists):
        contents.add("records", Path(path).relative_to(original).as_posix(), Path(path))
    # No job of a generation reads these two sections, whose files may not be here.
    config = lean(plan.config, schema()) | {"fingerprint": {}, "theory": {}}
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    contents.add("inputs", CONFIG, text.encode())
    for entry, file in ENVIRONMENT.items():
        contents.add("others", entry, (ROOT / "envs" / file).read_bytes())
    contents.add("others", WORKFLOW, (ROOT / "Snakefile").read_bytes())
    if left_out:
        contents.add("others", LEFT_OUT, digest_lines(left_out).encode())
    commits = sorted({found.all[path].get("commit", "unknown") for path in found.own})
    title = f"Generation {generation} of experiment {name}, run {plan.config['run']}"
    about = readme(plan, name, generation, title, commits, contents, len(left_out))
    contents.add("others", README, about.encode())
    day = date or _day(commits, [original / path for path in _of(contents, "results")])
    about = (
        f"One generation of language models: artifacts and records, of pollination {__version__}"
    )
    described = metadata(title, about, day, licence, ", ".join(commits), contents.parts())
    contents.add("others", METADATA, described)
    digest = write(target, contents.files, contents.digests, show)
    size_bytes, files = target.stat().st_size, len(contents.files) + 1
    return Exported(str(target), digest, size_bytes, files, len(left_out))


def _of(contents: Contents, kind: str) -> list[str]:
    return [name for name in contents.files if contents.kinds[name] == kind]


def _day(commits: list[str], files: list[Path]) -> str:
    """Return the latest day of the commits; if git knows none, that of the newest file (UTC)."""
    days = [day for one in commits if (day := commit.date(ROOT, one))]
    newest_s = max((path.stat().st_mtime for path in files), default=0.0)
    return max(days, default=time.strftime("%Y-%m-%d", time.gmtime(newest_s)))


def _refuse_home(config: object, outside: list[str]) -> None:
    """Raise ValueError if a file from outside the run is named by a path that begins with ~."""
    if isinstance(config, dict | list):
        for item in config.values() if isinstance(config, dict) else config:
            _refuse_home(item, outside)
    elif isinstance(config, str) and config.startswith("~"):
        path = os.path.expanduser(config.split(":")[0])
        if any(name == path or name.startswith(f"{path}/") for name in outside):
            raise ValueError(
                f"{config!r}: this path of the config depends on the home folder, so it means "
                "another file elsewhere; export without --inputs"
            )


def readme(
    plan: Plan,
    name: str,
    generation: int,
    title: str,
    commits: list[str],
    contents: Contents,
    left_out: int,
) -> str:
    """Return the README of an archive: what it is, and what to type."""
    run, code = plan.config["run"], commits[0].rstrip("+?")
    counts = {kind: len(_of(contents, kind)) for kind in KINDS}
    checkout = f"git checkout {code}" if code != "unknown" else "# the version of the run"
    also = "".join(f"- Commit: {one}\n" for one in commits)
    if any(one.endswith(("+", "?")) for one in commits):
        also += "- A commit with + or ? had changes that were not committed.\n"
    held = counts["inputs"] - 1  # the config is no input of a job
    if held:
        inputs = f"- `{held}` files that recomputing the generation needs."
        again = f"""
Recompute the generation from its inputs, and compare each file bit by bit:

```bash
pollination reproduce {name} {generation} --run results/{run}
```
"""
    else:
        inputs = f"- No inputs. `{LEFT_OUT}` lists the digests of {left_out} files."
        again = """
This archive cannot be recomputed alone. Ask for one of `pollination export --inputs`.
"""
    return f"""# {title}

This archive was made by `pollination export` (version {__version__}). It holds:

- `{counts["results"]}` artifacts of the generation: models, scores, texts.
- `{counts["records"]}` records (`run.json`): settings, seeds, versions and digests of each job.
{inputs}
- `{CONFIG}`: the resolved config. `requirements.txt`, `environment.yaml`: the locked packages.
- `{WORKFLOW}`: the Snakefile. Its rules and scripts are in the repository, at the commit below.
- `{METADATA}`: RO-Crate metadata (Workflow Run Crate 0.5).
- `{MANIFEST}`: digests. `sha256sum --check {MANIFEST}` compares the unpacked files.

{also}
## What to type

Install the project at that commit:

```bash
git clone ADDRESS-OF-THE-REPOSITORY pollination && cd pollination
{checkout}
make setup
source .venv/bin/activate
```

Unpack the archive into `results/{run}`, and compare each file with its record:

```bash
pollination import {run}.{name}.gen{generation}.zip
pollination verify results/{run}
```
{again}"""
