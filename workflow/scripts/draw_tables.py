"""Draw one figure of the theory or the fingerprints from its tables, and save its numbers."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.figures import drawing

    tables = {
        name: job.file(name) for name in job.input.keys() if name != "code" and job.files(name)
    }
    drawing(job.params.figure).draw(tables, Path(job.output.numbers).with_suffix(""))
