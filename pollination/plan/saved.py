"""Read the plan of a run from its folder."""

import os
from pathlib import Path

from pollination.core import pin
from pollination.core.settings import schema, whole
from pollination.plan.config.loading import read_yaml
from pollination.plan.jobs import jobs
from pollination.plan.plan import Plan


def saved_config(folder: str) -> tuple[Path, dict] | None:
    """Return the path and content of the resolved config that the last snakemake of a run had.

    A run without pins (core/pin.py) has its config.yaml. None: neither exists. ValueError: the file
    cannot be read.
    """
    if pinned := pin.latest_config(Path(folder)):
        return pinned
    path = Path(folder, "config.yaml")
    return (path, read_yaml(path)) if path.is_file() else None


def read_run(folder: str) -> Plan:
    """Return the plan of a run from its folder, results/{run}, which holds the resolved config."""
    saved = saved_config(folder)
    if saved is None:
        why = "not the folder of a run, because it has no config.yaml"
        if not os.path.lexists(folder):
            why = "there is no such folder"
        elif not Path(folder).is_dir():
            why = "not a folder"
        raise ValueError(f"{folder}: {why}; give the path of a results/{{run}} folder")
    path, config = saved
    if "experiments" not in config:
        raise ValueError(
            f"{path}: not the config of a run; delete the file and run snakemake, which rewrites it"
        )
    try:
        plan = Plan(whole(config, schema()), str(Path(folder)))
        for _ in jobs(plan):
            pass
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise ValueError(
            f"{path}: not the config of a run of this version ({type(error).__name__}: {error}); "
            "delete the file and run snakemake, which rewrites it"
        ) from None
    return plan
