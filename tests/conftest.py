"""Shared fixtures: where real data lies, and real Snakemake runs of the toy config."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock
from xdist.scheduler import LoadFileScheduling

from pollination.core.settings import schema, whole
from pollination.plan.config.resolve import resolve
from pollination.plan.plan import Plan

ROOT = Path(__file__).parent.parent
TOY = ROOT / "config/test/toy.yaml"
SHAPE = ("population", "replicates", "weights", "text", "select", "mutate")  # of an experiment
TOY_PLAN = Plan(resolve(yaml.safe_load(TOY.read_text())), "results/toy")


def study_a() -> dict:
    """The demo's config with other experiments: a population, and three lines of one founder."""
    raw = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    raw.pop("figures", None)
    raw["fingerprint"]["members"].pop("experiments", None)
    raw["defaults"] = {k: v for k, v in raw["defaults"].items() if k not in SHAPE} | {
        "generations": 5
    }
    raw["experiments"] = {
        "population": {"population": 4, "select": {"task": "knowledge"}, "mutate": {"scale": 0.01}},
        "line": {"population": 1, "seeds": [42, 123, 456], "weights": "own", "text": "own"},
    }
    return raw


# A shell's background job ignores SIGINT, and so would the processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # tiny models: more threads only wait for each other


def shared(relative: str) -> Path:
    """A path inside the shared real data (POLLINATION_DATA, else ../shared); skips the test where
    it is absent.
    """
    for base in (os.environ.get("POLLINATION_DATA"), ROOT.parent / "shared"):
        if base and (path := Path(base) / relative).exists():
            return path
    pytest.skip(
        f"real data {relative!r} is not here: set POLLINATION_DATA to the folder that holds it"
    )


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """Commands that run in this process set variables; no later test sees them."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@contextmanager
def serving(answers: type[BaseHTTPRequestHandler], **state) -> Iterator[ThreadingHTTPServer]:
    """A local HTTP server whose handler finds `state` as attributes of the server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), answers) as server:
        vars(server).update(state)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def as_read(params: dict) -> dict:
    """A figure's part of the config as its job reads it."""
    return whole(params, schema())


def command(folder: Path, *words: str, configfile: Path = TOY) -> list[str]:
    """snakemake in `folder`, with the project's copy there if it has one."""
    project = folder / "project" if (folder / "project").exists() else ROOT
    base = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(project / "Snakefile"),
        "--directory",
        str(folder),
    ]
    return [
        *base,
        "--profile",
        str(ROOT / "profiles/local"),
        "--cores",
        "2",
        "--configfile",
        str(configfile),
        *words,
    ]


def snakemake(folder: Path, *words: str, configfile: Path = TOY, ok: bool = True, **process) -> str:
    """What a call of snakemake prints; its exit status is checked. `process`: of subprocess.run."""
    result = subprocess.run(
        command(folder, *words, configfile=configfile),
        capture_output=True,
        text=True,
        timeout=900,
        **process,
    )
    output = result.stdout + result.stderr
    told = [line for line in output.splitlines() if "error" in line.lower()]
    assert (result.returncode == 0) == ok, "\n".join([*told[:20], output[-5000:]])
    return output


def planned(output: str) -> dict[str, int]:
    """Rule -> jobs, from the table of a dry run."""
    table = re.search(r"^\d+ jobs? to run:\n\n(.*?)\n\n", output, re.M | re.S)
    cells = re.findall(r"(\d+)  (\S+)", table.group(1)) if table else []
    return {rule: int(count) for count, rule in cells}


class Scheduling(LoadFileScheduling):
    """Tests of one file share a process, and so do all tests on a Slurm: a machine has one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "slurm" if "slurm" in file else file


def pytest_xdist_make_scheduler(config, log) -> Scheduling:
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on a Slurm come first, because they mostly wait. Then come files with slow tests, so
    that the processes end together.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: ("slurm" not in item.path.stem, item.path not in slow))


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id) -> Path:
    """A finished run of the toy config, made by a copy of the project that a test may change; by a
    user whose home (`home`) and temporary folder (`temporary`) were empty, and whose umask lets
    others read nothing.

    Each process of pytest has a copy.
    """
    own = tmp_path_factory.getbasetemp() / "toy"
    made = own if worker_id == "master" else own.parent.with_name("toy")
    with FileLock(f"{made}.lock"):
        if not made.exists():
            finish(tmp_path_factory.mktemp("making") / "toy").rename(made)
    if made != own:
        subprocess.run(["cp", "-a", made, own], check=True)  # keeps hard links
    return own


def finish(folder: Path) -> Path:
    """The toy's run in a new folder."""
    folder.mkdir()
    for name in ("rules", "workflow", "pollination", "profiles", "envs"):
        shutil.copytree(
            ROOT / name, folder / "project" / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy2(ROOT / "Snakefile", folder / "project")
    (folder / "home").mkdir()
    (folder / "temporary").mkdir()
    places = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "temporary")}
    caches = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    snakemake(folder, umask=0o027, env=caches | places)
    return folder
