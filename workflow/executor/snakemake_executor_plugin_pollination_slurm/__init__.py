"""Snakemake's Slurm executor for a cluster that misbehaves: `executor: pollination-slurm`.

Snakemake finds this package by its name. It extends snakemake-executor-plugin-slurm 2.8: it never
forgets a job, waits while Slurm refuses jobs, and says why a job ended. It imports nothing of
`pollination`, because Snakemake imports it before it knows whose code the Snakefile uses.
"""

from snakemake_executor_plugin_slurm import common_settings

from snakemake_executor_plugin_pollination_slurm.executor import Executor
from snakemake_executor_plugin_pollination_slurm.settings import ExecutorSettings

__all__ = ["Executor", "ExecutorSettings", "common_settings"]
