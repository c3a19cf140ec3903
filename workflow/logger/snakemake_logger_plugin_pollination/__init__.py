"""Snakemake's terminal output in one line per job: `snakemake --logger pollination`.

Snakemake finds this package by its name. It imports nothing of `pollination`, because Snakemake
imports it before it knows whose code the Snakefile uses. The complete output stays in
.snakemake/log.
"""

from snakemake_logger_plugin_pollination.handler import LogHandler

__all__ = ["LogHandler"]
