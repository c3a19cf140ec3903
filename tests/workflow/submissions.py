"""Print how Snakemake would submit a run, as JSON: python -m tests.workflow.submissions WORD...

The words are those of a `snakemake` command in an empty folder. It is a dry run. Each submission
has the number of its jobs by rule, and the resources that Slurm would be asked for.
"""

import json
import sys
from collections import Counter
from copy import copy

from snakemake import cli
from snakemake.dag import DAG
from snakemake.resources import GroupResources

ASKED = ("gpu", "gpu_model", "mem_mb", "runtime", "_cores")


def asked(unit) -> dict:
    """What a job or a group asks of the cluster. A dry run itself adds the resources of a group up,
    as for a group on this machine.
    """
    if not unit.is_group():
        return unit.resources
    limits = copy(unit.global_resources)
    limits["_cores"] = None  # no limit on a cluster
    return GroupResources.basic_layered(unit.toposorted, limits, False, ["runtime"], ["runtime"])


def submissions(dag) -> list[dict]:
    """The submissions of a DAG: its groups, and its jobs outside groups that are not local."""
    found = {}
    for job in dag.needrun_jobs():
        unit = dag._group.get(job, job)
        if unit.is_group() or not (job.rule.norun or job.rule.name in dag.workflow._localrules):
            found[id(unit)] = unit
    return [
        {
            "group": unit.groupid if unit.is_group() else None,
            "jobs": Counter(job.rule.name for job in (unit.jobs if unit.is_group() else [unit])),
            "asks": {name: value for name, value in asked(unit).items() if name in ASKED},
        }
        for unit in found.values()
    ]


if __name__ == "__main__":
    found: list[list[dict]] = []
    check = DAG._check_groups

    def look(self) -> None:
        check(self)
        found.append(submissions(self))

    DAG._check_groups = look
    parser, arguments = cli.parse_args([*sys.argv[1:], "--dry-run"])
    if not cli.args_to_api(arguments, parser):
        sys.exit(1)
    print(json.dumps(max(found, key=len)))
