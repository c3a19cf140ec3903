"""The command of a Slurm job: one step, in which one Snakemake runs the job, or a group of jobs.

The plugin starts a Snakemake that only starts the step, in which another one runs the job. In a
group, it gives each job a step and a Snakemake of its own. With one Snakemake, the jobs of a group
are forks of one process (pollination/core/warm.py), and members are scored by a process that stays.
"""

import shlex

from snakemake_executor_plugin_slurm_jobstep import (
    get_cpu_setting,
    get_gpu_setting,
    get_node_setting,
)


def step(job) -> str:
    """Return the start of the command. In a group, it tells rules/common.smk that it is one.

    Slurm sends its warning signal to steps, and so to all processes of the job.
    """
    words = ["srun -n1 --cpu-bind=q", get_cpu_setting(job, bool(job.resources.get("gpu")))]
    if job.is_group():
        words += ["--nodes=1", "--export=ALL,POLLINATION_GROUP=1"]
    else:
        words += [get_gpu_setting(job), get_node_setting(job), "--export=ALL"]
    return " ".join(filter(None, words))


def arguments(job) -> str:
    """Return Snakemake's arguments: what has been allocated limits the jobs of a group.

    A failed job does not keep the others from their turn.
    """
    limits = [
        f"{name}={job.resources[name]}"
        for name in ("gpu", "mem_mb")
        if isinstance(job.resources.get(name), int)
    ]
    resources = f" --resources {shlex.join(limits)}" if limits else ""
    return f"--cores {max(1, job.threads)}{resources} --keep-going"
