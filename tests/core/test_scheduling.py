"""Snakemake's scheduler looks at each input once, and wakes up only for a reason."""

import asyncio
import os
import subprocess
import sys
from types import SimpleNamespace

from snakemake.scheduling.job_scheduler import JobScheduler

from pollination.core import scheduling
from tests.conftest import ROOT


class Path(str):
    looks = 0

    async def exists(self):
        Path.looks += 1
        return True

    async def size(self):
        return len(self)


def test_a_snakemake_with_other_names_is_left_alone():
    class Scheduler:
        pass

    scheduling.install(Scheduler)
    assert not vars(Scheduler).keys() & set(scheduling.CHANGED)
    assert all(hasattr(JobScheduler, name) for name in scheduling.CHANGED)


def test_an_input_is_looked_at_once():
    class Scheduler(JobScheduler):
        def __init__(self):
            self._input_sizes = {}

    scheduling.install(Scheduler)
    scheduler = Scheduler()
    jobs = [SimpleNamespace(input=[Path("shared"), Path(name)]) for name in ("a", "bb")]
    for _ in range(3):
        asyncio.run(scheduler.update_input_sizes(jobs))
    assert scheduler._input_sizes == {"shared": 6, "a": 1, "bb": 2} and Path.looks == 3
    asyncio.run(scheduler.update_input_sizes([SimpleNamespace(input=[Path("new")])]))
    assert scheduler._input_sizes["new"] == 3 and Path.looks == 4


# 12 jobs. Each look of the scheduler at its ready jobs says a word.
SNAKEFILE = """
from snakemake.scheduling.job_scheduler import JobScheduler
from pollination.core import scheduling

if {patched}:
    scheduling.install(JobScheduler)
select = JobScheduler.job_selector
def seen(self, jobs):
    print("look", file=sys.stderr)
    return select(self, jobs)
JobScheduler.job_selector = seen

rule all:
    input:
        expand("{{number}}.txt", number=range(12)),

rule wait:
    output:
        "{{number}}.txt",
    shell:
        "sleep 1; touch {{output}}"
"""


def looks(folder, patched: bool, *words: str, cores: int = 2) -> int:
    folder.mkdir()
    (folder / "Snakefile").write_text(SNAKEFILE.format(patched=patched))
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), *words]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(folder.glob("*.txt"))) == 12
    return done.stderr.count("look\n")


def test_the_scheduler_looks_at_ready_jobs_only_when_a_job_starts_or_ends(tmp_path):
    """Twelve jobs give at most a look at the start and one for each end."""
    assert looks(tmp_path / "patched", True) <= 13 < looks(tmp_path / "plain", False)


def test_a_limited_rate_goes_on(tmp_path):
    """Four jobs may start in two seconds. They end before the next four may start."""
    assert looks(tmp_path / "limited", True, "--max-jobs-per-timespan", "4/2s", cores=12) >= 3
