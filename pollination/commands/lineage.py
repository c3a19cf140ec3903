"""List a model's ancestors, by weights and by text, and the text that it and they have read.

MODEL is the path of a member: population/gen2/member1, founders/human/member0, or with the run's folder in front of it.
"""

import json
import re
from pathlib import Path

from pollination.commands import add_configfile, find_experiment, read_plan, read_run
from pollination.lineage import ancestry, format_ancestry
from pollination.workflow import Plan

EXAMPLE = "python -m pollination lineage population/gen4/member0"
FORM = re.compile(r"(?:(?P<folder>.+)/)?(?:founders/(?P<pool>[^/]+)|(?P<experiment>[^/]+)/gen(?P<generation>\d+))/member(?P<member>\d+)")


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
    """The plan and (experiment, generation, member) of a member's path; the run is the path's, where it names one, else the config's."""
    found = FORM.fullmatch(path.rstrip("/").removesuffix("/model.safetensors").removeprefix("./"))
    if not found:
        raise ValueError(f"model {path!r} is not the path of a member; allowed: EXPERIMENT/gen2/member1 or founders/POOL/member0")
    folder = found["folder"]
    plan = read_run(folder) if folder and Path(folder, "config.yaml").is_file() else read_plan(configfile)
    if folder and Path(folder) != Path(plan.results):
        raise ValueError(f"model {path!r} is not of the run {plan.results}; name its config with --configfile")
    name, generation, member = found["experiment"], int(found["generation"] or 0), int(found["member"])
    if found["pool"]:
        pool = found["pool"]
        name = next((name for name, experiment in plan.config["experiments"].items() if experiment["founders"] == pool), None)
        if name is None:
            raise ValueError(f"founders {pool!r} are those of no experiment; allowed: {', '.join(plan.config['founders'])}")
    find_experiment(plan, name, generation)
    size = plan.pool_sizes[found["pool"]] if found["pool"] else plan.experiment(name)["population"]
    if member >= size:
        raise ValueError(f"member {member} is not in {found['pool'] or name!r}; allowed: 0 to {size - 1}")
    return plan, (name, generation, member)
