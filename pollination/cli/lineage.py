"""List a model's ancestors and the text that they trained on.

A parent passes on its weights, its text, or both. Snakemake must have finished
the generations before the model. MODEL is the path of a member:
  population/gen2/member1               a member of an experiment
  founders/human/member0                a founder
  results/demo/population/gen2/member1  the same, with the folder of the run

Exit status:
  0: the ancestors are listed
  2: the command could not run (no such member, or no parents are selected yet)
"""

import json
import os
import re
from pathlib import Path

from pollination.cli.common import add_configfile, find_experiment, read_plan
from pollination.plan import pruning
from pollination.plan.lineage import ancestry, format_ancestry
from pollination.plan.plan import Plan
from pollination.plan.saved import read_run, saved_config

EXAMPLE = "pollination lineage population/gen4/member0"
FORM = re.compile(
    r"(?:(?P<folder>.+)/)?"
    r"(?:founders/(?P<pool>[^/]+)|(?P<experiment>[^/]+)/gen(?P<generation>\d+))"
    r"/member(?P<member>\d+)"
)


def add_arguments(parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="path of a member, as above")
    parser.add_argument(
        "--json", action="store_true", help="print the ancestors as JSON (default: as text)"
    )
    add_configfile(parser)


def run(arguments) -> int:
    plan, place = find_model(arguments.model, arguments.configfile)
    try:
        tree = ancestry(plan, *place)
    except FileNotFoundError as error:
        raise ValueError(
            f"model {arguments.model!r}: the run has not selected its parents yet "
            f"({error.filename} does not exist); start or resume the run first: snakemake "
            "--profile profiles/local --configfile CONFIG"
        ) from None
    tree["deleted"] = _deleted(plan, tree)
    print(json.dumps(tree, indent=1) if arguments.json else format_ancestry(tree))
    return 0


def _deleted(plan: Plan, tree: dict) -> list[str]:
    """Return the files of an ancestry that the run deleted (config key `keep`) and has not here."""
    files = [
        path
        for node in tree["nodes"]
        for path in (f"{node['model']}/model.safetensors", *node["shards"])
    ]
    gone = pruning.pruned(plan)
    return [path for path in files if os.path.normpath(path) in gone and not os.path.exists(path)]


def find_model(path: str, configfile: str) -> tuple[Plan, tuple[str, int, int]]:
    """Return the plan and (experiment, generation, member) of a member's path.

    The path may name the run; otherwise the config does. ValueError: no such member.
    """
    match = FORM.fullmatch(path.rstrip("/").removesuffix("/model.safetensors").removeprefix("./"))
    if not match:
        raise ValueError(
            f"model {path!r} is not the path of a member; allowed: a path such as "
            "EXPERIMENT/gen2/member1 or founders/POOL/member0"
        )
    folder = match["folder"]
    plan = read_run(folder) if folder and saved_config(folder) else read_plan(configfile)
    if folder and Path(folder) != Path(plan.results):
        raise ValueError(
            f"model {path!r} is not in the run {plan.results}; give the config of its run with "
            "--configfile"
        )
    name, pool = match["experiment"], match["pool"]
    generation, member = int(match["generation"] or 0), int(match["member"])
    if pool:
        experiments = plan.config["experiments"]
        name = next((name for name in experiments if experiments[name]["founders"] == pool), None)
        if name is None:
            raise ValueError(
                f"no experiment uses founders {pool!r}; allowed: "
                f"{', '.join(plan.config['founders'])}"
            )
    find_experiment(plan, name, generation)
    size = plan.pool_sizes[pool] if pool else plan.experiment(name)["population"]
    if member >= size:
        raise ValueError(f"member {member} is not in {pool or name!r}; allowed: 0 to {size - 1}")
    return plan, (name, generation, member)
