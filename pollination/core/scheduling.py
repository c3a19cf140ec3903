"""Let Snakemake look once at the size of an input, instead of each time that a job ends."""

from collections.abc import Iterable
from typing import Any


def install(scheduler: Any) -> None:
    """Let `scheduler`, a class of Snakemake, keep the sizes of inputs, which order its jobs.

    Inputs of jobs that can start are finished files. A thousand jobs have tens of thousands, and on
    a network file system one look at all of them takes seconds.
    """

    async def update_input_sizes(self: Any, jobs: Iterable[Any]) -> None:
        sizes = self._input_sizes
        for path in {path for job in jobs for path in job.input} - sizes.keys():
            sizes[path] = await path.size() if await path.exists() else None

    scheduler.update_input_sizes = update_input_sizes
