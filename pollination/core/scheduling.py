"""Let Snakemake's scheduler work only when there is something to decide.

This concerns Snakemake 9.27. In a run of thousands of jobs, its driver would otherwise use a core.
"""

import threading
from collections.abc import Iterable
from typing import Any

CHANGED = ("update_input_sizes", "_schedule_reevalutation")


def install(scheduler: Any) -> None:
    """Change `scheduler`, Snakemake's class `JobScheduler`.

    - It looks at the size of an input once, instead of each time that a job ends. Inputs of jobs
      that can start are finished files. A thousand jobs have tens of thousands.
    - It wakes up later only if the limit of jobs in a time span (--max-jobs-per-timespan) keeps a
      job from starting, and by one timer. Otherwise each job that starts or ends adds a timer that
      looks at all waiting jobs each second, until none waits.
    """
    if not all(hasattr(scheduler, name) for name in CHANGED):
        return  # another version, which runs as it is
    plain = scheduler._schedule_reevalutation

    async def update_input_sizes(self: Any, jobs: Iterable[Any]) -> None:
        sizes = self._input_sizes
        for path in {path for job in jobs for path in job.input} - sizes.keys():
            sizes[path] = await path.size() if await path.exists() else None

    def schedule_reevaluation(self: Any, delay: float) -> None:
        def wake() -> None:
            self._wakes_up = False
            self._open_jobs.release()

        if self.workflow.dag.has_unfinished_queue_input_jobs():
            plain(self, delay)
        elif not self.job_rate_limiter.get_free_jobs() and not getattr(self, "_wakes_up", False):
            self._wakes_up = True
            threading.Timer(delay, wake).start()

    scheduler.update_input_sizes = update_input_sizes
    scheduler._schedule_reevalutation = schedule_reevaluation
