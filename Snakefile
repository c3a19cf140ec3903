import re
import sys
from pathlib import Path

from snakemake.utils import min_version

# This file may be included by another one, such as workflow/Snakefile.
root = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).resolve()
if not workflow.modifier.is_main_snakefile():
    sys.exit(
        "error: Snakemake starts no `onstart` of a module, so two drivers could write to one run; "
        'clone the repository and write instead: include: "CLONE/Snakefile"'
    )
# A profile may have imported the package of another checkout.
loaded = sys.modules.get("pollination")
if loaded and Path(loaded.__file__).resolve().parents[1] != root:
    for name in [name for name in sys.modules if name.partition(".")[0] == "pollination"]:
        del sys.modules[name]

from pollination.core import code, pin

# `pollination verify` and `plan` set `pinned` to the config that they read (cli/runs/planned.py).
if "pinned" not in globals():
    # A job of another process: its code is compared before it reads more of the package.
    entered = pin.given if workflow.is_main_process else pin.enter
    pinned = entered(workflow.overwrite_configfiles)
code_read = code.files()

from pollination.plan.config.places import Places
from pollination.plan.config.resolve import checked
from pollination.plan.jobs import everything
from pollination.plan.plan import Plan

min_version("9.0")

# A config on the command line replaces the demo's config. A merge would run the demo's experiments.
if pinned is None and not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


if pinned is None:
    given = workflow.overwrite_configfiles or ["config/config.yaml"]
    places = Places(given, workflow.config_settings.config)
    config = checked(config, places)
else:
    config, places = pinned, Places([])
plan = Plan(config, f"results/{config['run']}")


pathvars:
    results=plan.results,
    logs=f"{plan.results}/logs",
    benchmarks=f"{plan.results}/benchmarks",


report: "workflow/report/workflow.rst"


wildcard_constraints:
    **dict.fromkeys(("gen", "member", "rank", "shard"), r"\d+"),
    experiment="|".join(map(re.escape, config["experiments"])) or "(?!)",
    pool="|".join(map(re.escape, config["founders"])) or "(?!)",
    survey="|".join(config["fingerprint"]) or "(?!)",
    part=r"[\w.-]+",
    place=r"(founders|base)/[\w.-]+|[\w.-]+/gen\d+",
    split="train|validation|test|prompts",


rule all:  # `snakemake` makes all files; `snakemake figures` only the report's figures
    input:
        everything(plan),
        "<results>/config.yaml",


stages = "common corpus train evaluate select generate prune semantics report paper theory"
for stage in [*stages.split(), "fingerprint"]:

    include: f"rules/{stage}.smk"
