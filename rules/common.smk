"""What all rules share: the adapter that asks the plan, and sizes that grow with `attempt`."""

import gc
import os
import sys

from pollination.core.driver import hold
from pollination.core.settings import lean, node_at
from pollination.plan.paper import target_files

# Hundreds of generations are one chain of jobs, which Snakemake follows recursively.
sys.setrecursionlimit(1_000_000)
# A plan is millions of lasting objects. Collecting garbage among them took an eighth of its time.
gc.set_threshold(100_000)


onstart:
    hold(plan.results)


def grows(size, most=float("inf")):
    """A resource that grows by `size` with each attempt, up to `most`."""
    return lambda wildcards, attempt: min(size * attempt, most)


def minutes(size):
    """Minutes that grow with each attempt, up to a day: Slurm starts no job above its limit."""
    return grows(size, most=24 * 60)


def setting(path):
    """The config value at a path of keys, which may hold wildcards, as params hold it.

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
    """A wildcard constraint: the entries of config[kind] whose `key` is in `value`, or no entry."""
    chosen = [re.escape(name) for name, spec in config[kind].items() if spec[key] in value]
    return "|".join(chosen) or "(?!)"


def ask(function, *wildcard_names, **fixed):
    """An input or parameter: `function(plan, ...)` with the values of these wildcards.

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
    """The path of a figure's code, an input of its rule: a changed figure is drawn again.

    The path is relative, so that a project can be moved.
    """
    return os.path.relpath(f"{workflow.basedir}/pollination/figures/{module.replace('.', '/')}.py")


def files_or_reason(target):
    """The files of a figure or table of the studies; exits with one line if its role is empty."""

    def files(wildcards):
        try:
            return target_files(plan, target)
        except ValueError as missing:
            sys.exit(f"error: {missing}")

    return files
