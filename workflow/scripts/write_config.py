"""Save the resolved config beside the results."""

import yaml

from pollination.core import artifacts
from pollination.core.job import Job

with Job(snakemake) as job, artifacts.atomic(job.output.config) as temporary:
    temporary.write_text(
        yaml.safe_dump(job.params.config, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
