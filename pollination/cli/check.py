"""Check a config file for mistakes before you run it.

The command prints one line per mistake: file, key, value, what is allowed. If
it finds no mistake, it prints how many models the config trains.

Warnings name splits of a corpus with few documents, and benchmarks with few
questions. The command reads local text to count them. It cannot count text that
is not on this machine yet; the logs of the jobs warn of it.

Exit status:
  0: the config has no mistakes; it may have warnings
  1: it has mistakes
  2: the command could not run (the file is absent, or not readable as YAML)
"""

import sys

from pollination.cli.common import add_configfile, few, read_plan
from pollination.plan import outputs
from pollination.plan.config.places import Places
from pollination.plan.config.resolve import ConfigError, check_files

EXAMPLE = "pollination check --configfile config/real/openstax.yaml"
add_arguments = add_configfile


def run(arguments) -> int:
    try:
        places = Places([arguments.configfile])
        plan = read_plan(arguments.configfile, places)
        check_files(plan.config, places)
        said = few(plan, places)
    except ConfigError as mistakes:
        print(
            *(f"error: {mistake}" for mistake in str(mistakes).split("\n")),
            sep="\n",
            file=sys.stderr,
        )
        return 1
    print(*(f"warning: {line}" for line in said), sep="\n", end="\n" * bool(said), file=sys.stderr)
    models = len(outputs.evaluations(plan, "scores.json")) - len(plan.bases)
    founders = sum(plan.pool_sizes.values())
    print(
        f"{arguments.configfile}: no mistakes. Experiments: {len(plan.config['experiments'])}; "
        f"models to train: {models}, including {founders} founder{'s' * (founders != 1)}."
    )
    return 0
