"""Compute one table of the Gaussian theory: the one that the rule's outputs name."""

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.analysis.theory import tables
    from pollination.core import artifacts

    names = [name for name in job.output.keys() if name != "run"]
    made = {
        "recursion": tables.recursion,
        "sensitivity": tables.sensitivity,
        "bound": tables.bounds,
    }[names[0]](job.params.theory)
    for name, table in zip(names, made if isinstance(made, tuple) else (made,), strict=True):
        artifacts.write_table(job.output[name], table)
        job.log.info("%s: %d rows", name, len(table))
