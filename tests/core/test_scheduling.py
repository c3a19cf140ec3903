"""Snakemake's scheduler looks at each input once."""

import asyncio
from types import SimpleNamespace

from snakemake.scheduling.job_scheduler import JobScheduler

from pollination.core import scheduling


class Path(str):
    looks = 0

    async def exists(self):
        Path.looks += 1
        return True

    async def size(self):
        return len(self)


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
