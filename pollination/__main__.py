"""python -m pollination COMMAND: questions about a run that need no GPU and no job."""

import argparse
import sys
from pathlib import Path

import yaml

from pollination import __version__
from pollination.config import check_files, resolve
from pollination.lease import kept_copies
from pollination.lineage import ancestry, format_ancestry
from pollination.status import report
from pollination.workflow import Plan


def read_plan(configfile: str) -> Plan:
    """The plan of a config file; ConfigError and OSError say what is wrong with it."""
    try:
        raw = yaml.safe_load(Path(configfile).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{configfile}: not readable as YAML: {' '.join(str(error).split())}") from None
    config = resolve(raw, configfile)
    return Plan(config, f"results/{config['run']}")


def find_experiment(plan: Plan, name: str, generation: int) -> None:
    if name not in plan.config["experiments"]:
        raise ValueError(f"experiment {name!r} is not in this config; allowed: {', '.join(plan.config['experiments'])}")
    last = plan.experiment(name)["generations"] - 1
    if not 0 <= generation <= last:
        raise ValueError(f"generation {generation} is not in {name!r}; allowed: 0 to {last}")


def files(arguments: argparse.Namespace) -> None:
    """List the files that one generation consists of (to delete them, with --kept; or to ask snakemake for them)."""
    plan = read_plan(arguments.configfile)
    find_experiment(plan, arguments.experiment, arguments.generation)
    paths = plan.generation_files(arguments.experiment, arguments.generation)
    print("\n".join(paths + [copy for path in paths for copy in kept_copies(path) if arguments.kept]))


def lineage(arguments: argparse.Namespace) -> None:
    """List a model's ancestors and the text that it and they have read."""
    plan = read_plan(arguments.configfile)
    find_experiment(plan, arguments.experiment, arguments.generation)
    size = plan.experiment(arguments.experiment)["population"]
    if not 0 <= arguments.member < size:
        raise ValueError(f"member {arguments.member} is not in {arguments.experiment!r}; allowed: 0 to {size - 1}")
    print(format_ancestry(ancestry(plan, arguments.experiment, arguments.generation, arguments.member)))


def check(arguments: argparse.Namespace) -> None:
    """Check a config file: every mistake in one line; else print how many models it makes."""
    plan = read_plan(arguments.configfile)
    check_files(plan.config, arguments.configfile)
    models = len(plan.evaluations("scores.json")) - len(plan.bases)
    founders = sum(plan.pool_sizes.values())
    print(f"{arguments.configfile}: fine. {len(plan.config['experiments'])} experiments, {models} models, {founders} of them founders.")


def status(arguments: argparse.Namespace) -> None:
    """Show how a run fares: what is done, running, failed or waiting, and why."""
    print(report(read_plan(arguments.configfile)))


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pollination", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    generation = ("experiment", "generation")
    for function, positions in ((check, ()), (status, ()), (files, generation), (lineage, (*generation, "member"))):
        command = commands.add_parser(function.__name__, help=function.__doc__, description=function.__doc__)
        for name in positions:
            command.add_argument(name, type=str if name == "experiment" else int)
        command.add_argument("--configfile", default="config/config.yaml", help="the config file (default: %(default)s)")
        if function is files:
            command.add_argument("--kept", action="store_true", help="their kept second names too: what is linked again is not made again")
        command.set_defaults(function=function)
    arguments = parser.parse_args(words)
    try:
        arguments.function(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
