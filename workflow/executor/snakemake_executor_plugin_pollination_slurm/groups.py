"""The command of a group of jobs: one step of Slurm, in which one Snakemake runs them all.

The plugin gives each job of a group a step and a Snakemake of its own. With one Snakemake, jobs are
forks of one process (pollination/core/warm.py), and members are scored by a process that stays.
"""

import shlex

from snakemake_executor_plugin_slurm.submit_string import get_cpu_setting


def step(job) -> str:
    """Return the start of a group's command, which tells rules/common.smk that it is a group.

    Slurm sends its warning signal to steps, and so to all processes of the group.
    """
    cores = get_cpu_setting(job, bool(job.resources.get("gpu")))
    return f"srun -n1 --nodes=1 --cpu-bind=q {cores} --export=ALL,POLLINATION_GROUP=1"


def arguments(job) -> str:
    """Return Snakemake's arguments: what the group has been allocated limits its jobs.

    A failed job does not keep the others from their turn.
    """
    limits = [
        f"{name}={job.resources[name]}"
        for name in ("gpu", "mem_mb")
        if isinstance(job.resources.get(name), int)
    ]
    resources = f" --resources {shlex.join(limits)}" if limits else ""
    return f"--cores {max(1, job.threads)}{resources} --keep-going"
