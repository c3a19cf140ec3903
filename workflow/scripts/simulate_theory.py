"""One table of the Gaussian theory: which, its rule's outputs say."""

from pollination.job import Job

with Job(snakemake) as job:  # noqa: F821
    from pollination import artifacts
    from pollination.theory import tables

    names = [name for name in job.output.keys() if name != "run"]
    made = {"recursion": tables.recursion, "sensitivity": tables.sensitivity, "bound": tables.bounds}[names[0]](job.params.theory)
    for name, table in zip(names, made if isinstance(made, tuple) else (made,), strict=True):
        artifacts.write_table(job.output[name], table)
        job.log.info("%s: %d rows", name, len(table))
