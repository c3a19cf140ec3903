"""Check a config file for mistakes before you run it.

The command prints one line per mistake: file and line, key, value, what is
allowed. If it finds no mistake, it prints how many models the config trains.
"(default)" after the line says that the file does not set the key.

Warnings name splits of a corpus with few documents, benchmarks with few
questions, and founders for whose training the text seems too short. The command
reads local text to count documents. It estimates tokens. It knows nothing about
text that is not on this machine yet; the logs of the jobs warn of it.

With --deep, the command also rehearses the preparation of the run. It builds
each model and tokenizer, stages the benchmarks, imports your own functions, and
counts the tokens of local text. That may take a minute or more. It writes to a
temporary folder only, and downloads nothing. At the end, it lists what it could
not check.

Exit status:
  0: the config has no mistakes; it may have warnings
  1: it has mistakes
  2: the command could not run (the file is absent, or not readable as YAML)
"""

import os
import sys
from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pollination.cli.common import Progress, add_configfile, few, read_plan
from pollination.core import caches
from pollination.plan import outputs
from pollination.plan.config import engine
from pollination.plan.config.catalogue import read_catalogue, slug
from pollination.plan.config.endpoints import check_key
from pollination.plan.config.places import Places
from pollination.plan.config.resolve import ConfigError, check_files, check_templates
from pollination.plan.plan import Plan

if TYPE_CHECKING:
    from pollination.cli.runs.rehearsal import Rehearsal

EXAMPLE = "pollination check --configfile config/real/openstax.yaml --deep"


def add_arguments(parser: ArgumentParser) -> None:
    add_configfile(parser)
    parser.add_argument(
        "--deep",
        action="store_true",
        help="also rehearse the preparation of the run; this may take a minute or more",
    )


def run(arguments) -> int:
    unchecked: list[str] = []
    try:
        places = Places([arguments.configfile])
        plan = read_plan(arguments.configfile, places)
        check_files(plan.config, places)
        check_templates(plan.config, places)
        check_surveys(plan, places)
        said = engine.warnings(plan.config) + few(plan, places)
        if arguments.deep:
            rehearsal = _rehearse(plan, places)
            unchecked = rehearsal.unchecked
            # The estimates of text that the rehearsal has counted no longer count.
            estimated = tuple(f"founders.{pool}." for pool in rehearsal.counted)
            said = [line for line in said if not line.startswith(estimated)]
            said += [line for line in rehearsal.warnings if line not in said]
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
    if unchecked:
        print("Not checked:", *(f"  {line}" for line in unchecked), sep="\n")
    return 0


def check_surveys(plan: Plan, places: Places) -> None:
    """Raise ConfigError if a key may not be sent, or a finished collection has empty outputs."""
    mistakes = []
    for name, survey in plan.config["fingerprint"].items():
        for model, row in read_catalogue(survey["models"]).items() if _collects(survey) else ():
            outputs_of = Path(
                plan.results, "fingerprint", name, "outputs", f"{slug(model)}.parquet"
            )
            try:
                if outputs_of.exists():
                    from pollination.analysis.fingerprint.answers import check_collected

                    check_collected(outputs_of)
                else:
                    check_key(row)
            except ValueError as error:
                mistakes.append(f"fingerprint.{name}.models: {survey['models']}: {error}")
    if mistakes:
        raise ConfigError(mistakes, places)


def _collects(survey: dict) -> bool:
    return survey["kind"] == "collect"


def _rehearse(plan: Plan, places: Places) -> "Rehearsal":
    """Return the rehearsal after its run. ConfigError: it found mistakes."""
    caches.offline()  # before the libraries are imported
    progress = Progress("check --deep")
    progress.show("loading the libraries")
    with TemporaryDirectory(prefix="pollination-check-") as folder:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{folder}/compiled")
        from pollination.cli.runs.rehearsal import Rehearsal

        rehearsal = Rehearsal(plan, Path(folder), progress.show)
        rehearsal.run()
    progress.show("done", last=True)
    if rehearsal.mistakes:
        raise ConfigError(rehearsal.mistakes, places)
    return rehearsal
