"""Check a config file: print each mistake in one line, or count the models that it trains.

Exit status: 0 the config is sound, 1 it has mistakes, 2 it cannot be read.
"""

import sys

from pollination.cli.common import add_configfile, read_plan
from pollination.plan import outputs
from pollination.plan.config.resolve import ConfigError, check_files

EXAMPLE = "pollination check --configfile config/real/openstax.yaml"
add_arguments = add_configfile


def run(arguments) -> int:
    try:
        plan = read_plan(arguments.configfile)
        check_files(plan.config, arguments.configfile)
    except ConfigError as mistakes:
        print(f"error: {mistakes}", file=sys.stderr)
        return 1
    models = len(outputs.evaluations(plan, "scores.json")) - len(plan.bases)
    founders = sum(plan.pool_sizes.values())
    print(
        f"{arguments.configfile}: fine. {len(plan.config['experiments'])} experiments, {models} "
        f"models, {founders} of them founders."
    )
    return 0
