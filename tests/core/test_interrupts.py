"""Ctrl-C ends a job in each of its phases with one line, and no traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DRIVER = """\
import subprocess, sys
from pollination.core import interrupts

class shell:
    _process_prefix = None

    @classmethod
    def prefix(cls, text):
        cls._process_prefix = text.format()

interrupts.install(shell)
command = f"{shell._process_prefix}{sys.executable} .snakemake/scripts/job.py"
job = subprocess.Popen(["bash", "-c", command])
try:
    job.wait()
except KeyboardInterrupt:
    open("interrupted", "w").close()
    job.wait()
    raise
"""
JOB = """\
import os, time
from pathlib import Path
from types import SimpleNamespace

from snakemake_parts import InputFiles, Log, OutputFiles, Params, Wildcards

Path("importing").touch()
while not Path("go").exists():
    time.sleep(0.01)
from pollination.core.job import Job

snakemake = SimpleNamespace(
    rule="copy", threads=1, input=InputFiles(), output=OutputFiles(), params=Params(),
    wildcards=Wildcards(), log=Log(["job.log"]), config={"device": "auto"},
)
with Job(snakemake):
    Path("working").touch()
    time.sleep(60)
"""
PARTS = """\
class Named(dict):
    def __iter__(self):
        return iter(self.values())

class InputFiles(Named): pass
class OutputFiles(Named): pass
class Params(Named): pass
class Wildcards(Named): pass
class Log(list): pass
"""


def wait_for(path: Path, process: subprocess.Popen) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end and process.poll() is None, path
        time.sleep(0.02)


@pytest.mark.parametrize("phase", ["importing", "working"])
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_is_one_line_in_each_phase_of_a_job(tmp_path, phase, times):
    (tmp_path / "driver.py").write_text(DRIVER)
    (tmp_path / "snakemake_parts.py").write_text(PARTS)
    (tmp_path / ".snakemake/scripts").mkdir(parents=True)
    (tmp_path / ".snakemake/scripts/job.py").write_text(JOB)
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    process = subprocess.Popen(
        [sys.executable, "driver.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths, "XDG_CACHE_HOME": str(tmp_path / "caches")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    if phase == "working":
        (tmp_path / "go").touch()
    wait_for(tmp_path / phase, process)
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
        if phase == "importing":
            wait_for(tmp_path / "interrupted", process)
    (tmp_path / "go").touch()
    out, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    said = "error: copy: stopped by SIGINT; the job saves no progress and will restart"
    deaf = phase == "importing" and times == 2  # it is ended before it can say anything
    assert out.splitlines() == ([] if deaf else [said])
    assert deaf or (tmp_path / "job.log").read_text().rstrip().endswith(said)
