"""A dry run of study A's config against a Snakefile of the same DAG and number of jobs whose rules only touch."""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks.harness import OURS, ROOT, Row, call, measure

CONFIG = ROOT / "config/paper/data_pollination.yaml"
GENERATIONS, LONG_GENERATIONS = 5, 37  # the config's own, and as many as make about 10,000 jobs
POPULATIONS = 4


def _dry_run(snakefile: str, *words: str) -> dict:
    """Time snakemake -n in the current folder; the amount is the number of jobs. RuntimeError: it does not plan."""
    base = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "--profile", str(ROOT / "profiles/local"), "--directory", "."]
    begun_s = time.perf_counter()
    done = subprocess.run([*base, "--snakefile", str(ROOT / snakefile), *words], capture_output=True, text=True)
    seconds = time.perf_counter() - begun_s
    totals = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("total ")]
    if not totals:
        raise RuntimeError(f"snakemake -n of {snakefile} shows no jobs: {' '.join((done.stdout + done.stderr).split())[-300:]}")
    return {"seconds": seconds, "amount": totals[0], "result": totals[0]}


def plan_ours(generations: str) -> dict:
    import yaml

    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config["defaults"]["generations"] = int(generations)
    Path("config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return _dry_run("Snakefile", "--configfile", "config.yaml")


def plan_touch_only(generations: str, extra: str) -> dict:
    return _dry_run("benchmarks/touch.smk", "--config", f"populations={POPULATIONS}", f"generations={generations}", f"extra={extra}")


def sides(generations: int) -> dict:
    """Both plans are made once beforehand: jobs that only ours has (figures, staging) are made up for beside the peer's DAG."""
    ours = call(plan_ours, generations)
    extra = measure(ours, 1).result - measure(call(plan_touch_only, generations, 0), 1).result
    return {OURS: ours, "touch-only Snakefile": call(plan_touch_only, generations, extra)}


def job_counts(ours: int, theirs: int) -> str:
    return f"{ours:,} and {theirs:,} jobs"


ROWS = [
    Row("planning", "snakemake -n of study A's config", "jobs", 1 / 1.5, partial(sides, GENERATIONS), job_counts),
    Row(
        "planning-long",
        f"snakemake -n of study A's config with {LONG_GENERATIONS} generations",
        "jobs",
        1 / 1.5,
        partial(sides, LONG_GENERATIONS),
        job_counts,
    ),
]
