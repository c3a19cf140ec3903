"""List a model's ancestors, by weights and by text, and the text that it and they have read.

MODEL is the path of a member: population/gen2/member1, founders/human/member0, or either with the
run's folder in front of it.
"""

import json
import re
from pathlib import Path

from pollination.cli.common import add_configfile, find_experiment, read_plan, read_run
from pollination.plan.lineage import ancestry, format_ancestry
from pollination.plan.plan import Plan

EXAMPLE = "pollination lineage population/gen4/member0"
FORM = re.compile(
    r"(?:(?P<folder>.+)/)?"
    r"(?:founders/(?P<pool>[^/]+)|(?P<experiment>[^/]+)/gen(?P<generation>\d+))"
    r"/member(?P<member>\d+)"
)


def add_arguments(parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="path of a member")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    add_configfile(parser)


def run(arguments) -> int:
    plan, place = find_model(arguments.model, arguments.configfile)
    tree = ancestry(plan, *place)
    print(json.dumps(tree, indent=1) if arguments.json else format_ancestry(tree))
    return 0


def find_model(path: str, configfile: str) -> tuple[Plan, tuple[str, int, int]]:
    """The plan and (experiment, generation, member) of a member's path.

    The run is the one that the path names, else that of the config.
    """
    match = FORM.fullmatch(path.rstrip("/").removesuffix("/model.safetensors").removeprefix("./"))
    if not match:
        raise ValueError(
            f"model {path!r} is not the path of a member; allowed: EXPERIMENT/gen2/member1 or "
            "founders/POOL/member0"
        )
    folder = match["folder"]
    plan = (
        read_run(folder)
        if folder and Path(folder, "config.yaml").is_file()
        else read_plan(configfile)
    )
    if folder and Path(folder) != Path(plan.results):
        raise ValueError(
            f"model {path!r} is not of the run {plan.results}; name its config with --configfile"
        )
    name, pool = match["experiment"], match["pool"]
    generation, member = int(match["generation"] or 0), int(match["member"])
    if pool:
        experiments = plan.config["experiments"]
        name = next((name for name in experiments if experiments[name]["founders"] == pool), None)
        if name is None:
            raise ValueError(
                f"founders {pool!r} are those of no experiment; allowed: "
                f"{', '.join(plan.config['founders'])}"
            )
    find_experiment(plan, name, generation)
    size = plan.pool_sizes[pool] if pool else plan.experiment(name)["population"]
    if member >= size:
        raise ValueError(f"member {member} is not in {pool or name!r}; allowed: 0 to {size - 1}")
    return plan, (name, generation, member)
