"""Check a config file: every mistake in one line; else how many models it makes.

Exit status: 0 it is sound, 1 it is not, 2 it cannot be read.
"""

import sys

from pollination.commands import add_configfile, read_plan
from pollination.config import ConfigError, check_files

EXAMPLE = "python -m pollination check --configfile config/real/openstax.yaml"
add_arguments = add_configfile


def run(arguments) -> int:
    try:
        plan = read_plan(arguments.configfile)
        check_files(plan.config, arguments.configfile)
    except ConfigError as mistakes:
        print(f"error: {mistakes}", file=sys.stderr)
        return 1
    models = len(plan.evaluations("scores.json")) - len(plan.bases)
    founders = sum(plan.pool_sizes.values())
    print(f"{arguments.configfile}: fine. {len(plan.config['experiments'])} experiments, {models} models, {founders} of them founders.")
    return 0
