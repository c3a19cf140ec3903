"""Cut the human text of one founder out of its packed corpus."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake, check_last=True) as job:
    from pollination.data.segments import cut

    member, spec = int(job.wildcards.member), job.params.segment
    blocks, numbers = Path(job.output.blocks), Path(job.output.numbers)
    about = cut(job.file("blocks"), spec, member, job.params.data_seed, blocks, numbers)
    job.log.info("%s", about)
