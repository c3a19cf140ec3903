"""Check, estimate, watch, verify, reproduce and share runs of the workflow.

The commands need no GPU and start no jobs, except `reproduce`, which recomputes
one generation. Snakemake starts a run:
  snakemake --profile profiles/local --configfile CONFIG
"""

import argparse
import os
import sys
from importlib import import_module

from pollination import ROOT, __version__
from pollination.core import causes, sanitize
from pollination.core.settings import SCHEMA

COMMANDS = (
    "data",
    "check",
    "cost",
    "plan",
    "status",
    "watch",
    "files",
    "lineage",
    "verify",
    "reproduce",
    "export",
    "import",
    "diff",
    "compare",
    "completion",
)


EPILOG = """\
example:
  pollination check --configfile config/real/openstax.yaml

`pollination COMMAND --help` lists the options of a command, with an example.

Exit status of every command:
  0: the command succeeded, and the answer is yes
  1: the answer is no (mistakes, findings, differences, unknown amounts)
  2: the command could not run; standard error gives the reason in one line
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, with one subparser per command."""
    modules = {name: import_module(f"pollination.cli.{name}") for name in COMMANDS}
    firsts = {name: str(module.__doc__).splitlines()[0] for name, module in modules.items()}
    listed = "\n".join(f"  {name:<12}{first}" for name, first in firsts.items())
    parser = argparse.ArgumentParser(
        prog="pollination",
        usage="pollination [-h] [--version] COMMAND ...",
        description=f"{__doc__}\ncommands:\n{listed}\n",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=__version__, help="print the version and exit"
    )
    # argparse would break the longest names into two lines, so the description lists them.
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", prog="pollination", help=argparse.SUPPRESS
    )
    for name, module in modules.items():
        command = commands.add_parser(
            name,
            help=firsts[name],
            description=module.__doc__,
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run_command=module.run)
    return parser


def main(words: list[str] | None = None) -> int:
    """Run one command (`words`, by default those of the command line); return its exit status."""
    if not SCHEMA.is_file():
        print(
            f"error: {ROOT}: the package is installed without its workflow/ and config/ folders; "
            "run `pip install --editable .` in a checkout",
            file=sys.stderr,
        )
        return 2
    try:
        parser = make_parser()
        if "_ARGCOMPLETE" in os.environ:  # the shell asks for completions
            import argcomplete

            argcomplete.autocomplete(parser)
        arguments = parser.parse_args(words)
        return arguments.run_command(arguments)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, for example `head`, closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except (ValueError, OSError) as error:
        print(_message(error), file=sys.stderr)
        return 2


def _message(error: ValueError | OSError) -> str:
    """Return an error's text without control characters and without an errno.

    Every mistake of a config begins with "error:", and so does any other message.
    """
    from pollination.plan.config.resolve import ConfigError

    text = str(error)
    if known := causes.explain(error):
        text = known
    elif isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    lines = [sanitize.line(part) for part in text.split("\n")]
    return "error: " + ("\nerror: " if isinstance(error, ConfigError) else "\n").join(lines)
