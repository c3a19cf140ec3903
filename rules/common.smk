"""Functions that all rules share: questions to the plan, and resources that grow per attempt."""

import gc
import os
import sys
from pathlib import Path

from snakemake.logging import logger
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.settings.types import DeploymentMethod
from snakemake.shell import shell

from pollination.core import commit, container, interrupts, scheduling, warm
from pollination.core.driver import confirm, hold
from pollination.core.settings import lean, node_at
from pollination.plan.config import engine
from pollination.plan.inputs import own_code, train_gpus
from pollination.plan.paper import target_files

# Snakemake recurses along the chain of jobs, which hundreds of generations make long.
sys.setrecursionlimit(1_000_000)
# No result is planned for one device, so jobs read `device` from the config (core/job.py). The
# param is a constant, the default, for which Snakemake's notes on earlier runs show no change.
ANY_DEVICE = "auto"
# A plan holds millions of objects. Garbage collection among them took an eighth of the time.
gc.set_threshold(100_000)


# Rules that use the network. If they are no local rules, a cluster gets them as jobs.
downloads_are_local = config["downloads"] == "local"


if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
    try:
        image = container.image(root, compare=workflow.is_main_process)
    except ValueError as error:
        sys.exit(f"error: {error}")

    # Without --sdm apptainer, an image would differ from the environment of earlier runs.
    container: image


# One job in a process of its own has no gain from a worker, but a group has (workflow/executor).
if workflow.is_main_process or os.environ.get("POLLINATION_GROUP"):
    warm.install(shell)
if workflow.is_main_process:
    interrupts.install(shell)
    scheduling.install(JobScheduler)
    for difference in pin.upcoming(Path(plan.results), code_read):
        logger.warning(f"note: {difference}")
    # The local profile counts the GPUs; jobs on the CPU need not wait for one.
    if config["device"] == "cpu" and workflow.resource_settings.nodes is None:
        workflow.register_resource("gpu", sys.maxsize)


onstart:
    engine.confirm(workflow, config)
    hold(plan.results)
    commit.warn(root)
    pin.start(workflow, code_read, plan.config, plan.results, own_code(plan), places.base)


# Before Snakemake removes its locks, which another driver may have taken over with the run.
onsuccess:
    confirm()


onerror:
    confirm()


def grows(size, most=float("inf")):
    """Return a resource that grows by `size` with each attempt, up to `most`."""
    return lambda wildcards, attempt: min(size * attempt, most)


def minutes(size):
    """Return minutes that grow per attempt, up to a day: Slurm starts no job above its limit."""
    return grows(size, most=24 * 60)


def by_gpus(size, grow=False):
    """Return a resource of `size` for each GPU of a training, which may grow with each attempt."""
    count = ask(train_gpus, "place")
    if grow:
        return lambda wildcards, attempt: size * count(wildcards) * attempt
    return lambda wildcards: size * count(wildcards)


def setting(path):
    """Return a param: the config value at a path of keys, which may contain wildcards.

    Snakemake's own `lookup` reads the whole config for every job.
    """
    schema_node = node_at(path.split("/"))

    def value(wildcards):
        node = config
        for key in path.format(**wildcards).split("/"):
            node = node[key]
        return lean(node, schema_node)

    return value


def names(kind, key, value):
    """Return a wildcard constraint: the entries of config[kind] whose `key` is in `value`."""
    chosen = [re.escape(name) for name, spec in config[kind].items() if spec[key] in value]
    return "|".join(chosen) or "(?!)"


def ask(function, *wildcard_names, **fixed):
    """Return an input or param that calls `function(plan, ...)` with these wildcards' values.

    Rules for founders and for children have no wildcard `place`; `ask` derives it for them.
    """

    def answer(wildcards):
        given = dict(wildcards.items())
        if "pool" in given:
            given["place"] = f"founders/{given['pool']}"
        elif "gen" in given:
            given["place"] = f"{given['experiment']}/gen{given['gen']}"
        numbers = {name: int(given[name]) for name in ("gen", "member", "rank") if name in given}
        return function(plan, *((given | numbers)[name] for name in wildcard_names), **fixed)

    return answer


def figure_source(module):
    """Return the path of a figure's code, an input of its rule: changed code redraws the figure.

    The path is relative, so that users can move the project.
    """
    return os.path.relpath(f"{root}/pollination/figures/{module.replace('.', '/')}.py")


def landing_source():
    """Return the code of the landing page, and the captions that it shows."""
    found = [root / "pollination/figures/landing", root / "workflow/report"]
    paths = [path for folder in found for path in folder.iterdir() if path.is_file()]
    return sorted(os.path.relpath(path) for path in paths)


def files_or_reason(target):
    """Return the files of a study's figure or table; exit with one line if its role is empty."""

    def files(wildcards):
        try:
            return target_files(plan, target)
        except ValueError as missing:
            sys.exit(f"error: {missing}")

    return files
