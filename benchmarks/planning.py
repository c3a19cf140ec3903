"""Compare a dry run of study A's config with a Snakefile whose rules only touch their files.

Both have the same DAG: rules, jobs, files and dependencies.
"""

import atexit
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

from benchmarks.harness import OURS, ROOT, Row, call

CONFIG = ROOT / "config/paper/data_pollination.yaml"
GENERATIONS, LONG_GENERATIONS = 5, 23  # the config's own, and enough for about 10,000 jobs


def _snakemake(snakefile: str, *words: str) -> str:
    """Run Snakemake in the current folder; return its output. RuntimeError: it failed."""
    base = [
        sys.executable,
        "-m",
        "snakemake",
        "--profile",
        str(ROOT / "profiles/local"),
        "--snakefile",
        str(ROOT / snakefile),
    ]
    done = subprocess.run([*base, *words], capture_output=True, text=True)
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())[-300:]
        raise RuntimeError(f"snakemake {' '.join(words)} of {snakefile}: {said}")
    return done.stdout


def _dry_run(snakefile: str, *words: str) -> dict:
    """Time `snakemake -n`; the amount is the number of jobs."""
    begun_s = time.perf_counter()
    printed = _snakemake(snakefile, "-n", "--quiet", "rules", *words)
    seconds = time.perf_counter() - begun_s
    jobs = int(re.search(r"^ *(\d+) +total$", printed, re.MULTILINE).group(1))
    return {"seconds": seconds, "amount": jobs, "result": jobs}


def plan_ours(config: str) -> dict:
    return _dry_run("Snakefile", "--configfile", config)


def plan_touch_only(graph: str) -> dict:
    return _dry_run("benchmarks/touch.smk", "--config", f"graph={graph}")


def graph(folder: Path, config: Path) -> dict:
    """Return our DAG: rule and preceding jobs of each job, and the number of files per rule."""
    where = ("--directory", str(folder), "--configfile", str(config))
    dot = _snakemake("Snakefile", "--dag", *where)
    rules = dict(re.findall(r'^\s*(\d+)\[label = "(\w+)', dot, re.MULTILINE))
    before = defaultdict(list)
    for first, then in re.findall(r"^\s*(\d+) -> (\d+)", dot, re.MULTILINE):
        before[then].append(first)
    files = Counter(
        line.split("\t")[2]
        for line in _snakemake("Snakefile", "--summary", *where).splitlines()[1:]
    )
    jobs = Counter(rules.values())
    return {
        "all": next(job for job, rule in rules.items() if rule == "all"),
        "rules": rules,
        "before": before,
        "files": {rule: files[rule] // jobs[rule] for rule in jobs if rule != "all"},
    }


def sides(generations: int) -> dict:
    import yaml

    folder = Path(tempfile.mkdtemp(prefix="benchmark."))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config["defaults"]["generations"] = generations
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "graph.json").write_text(
        json.dumps(graph(folder, folder / "config.yaml")), encoding="utf-8"
    )
    return {
        OURS: call(plan_ours, folder / "config.yaml"),
        "touch-only Snakefile": call(plan_touch_only, folder / "graph.json"),
    }


def job_counts(ours: int, theirs: int) -> str:
    return f"{ours:,} and {theirs:,} jobs"


ROWS = [
    Row(
        "planning",
        "snakemake -n of study A's config",
        "jobs",
        1 / 1.5,
        partial(sides, GENERATIONS),
        job_counts,
    ),
    Row(
        "planning-long",
        f"snakemake -n of study A's config with {LONG_GENERATIONS} generations",
        "jobs",
        1 / 1.5,
        partial(sides, LONG_GENERATIONS),
        job_counts,
    ),
]
