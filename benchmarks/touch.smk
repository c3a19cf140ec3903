# The peer of benchmarks/planning.py: it rebuilds the DAG of the file `graph`, with the same rules,
# jobs, files and dependencies. Each rule only touches its files.
import json
import sys
from pathlib import Path

sys.setrecursionlimit(1_000_000)

GRAPH = json.loads(Path(config["graph"]).read_text(encoding="utf-8"))


def first_file(job):
    return f"{GRAPH['rules'][job]}/{job}.0"


def before(wildcards):
    return [first_file(job) for job in GRAPH["before"].get(wildcards.job, [])]


wildcard_constraints:
    job=r"\d+",


rule all:
    input:
        [first_file(job) for job in GRAPH["before"][GRAPH["all"]]],


for rule_name, files in GRAPH["files"].items():

    rule:
        name:
            rule_name
        input:
            before,
        output:
            [f"{rule_name}/{{job}}.{number}" for number in range(files)],
        shell:
            "touch {output}"
