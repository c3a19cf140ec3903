"""pollination COMMAND: questions about a run that need no GPU and no job.

Exit status: 0 the answer is yes (or there is one), 1 it is no (mistakes, findings, differences), 2
the question cannot be answered.
"""

import argparse
import os
import sys
from importlib import import_module

from pollination import ROOT, __version__
from pollination.core import sanitize
from pollination.core.settings import SCHEMA

COMMANDS = (
    "check",
    "cost",
    "status",
    "files",
    "lineage",
    "verify",
    "reproduce",
    "diff",
    "completion",
)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pollination",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f"pollination.cli.{name}")
        first = str(module.__doc__).splitlines()[0]
        command = commands.add_parser(
            name,
            help=first,
            description=module.__doc__,
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run_command=module.run)
    return parser


def main(words: list[str] | None = None) -> int:
    """Run one command; `words` default to those of the command line. Returns the exit status."""
    if not SCHEMA.is_file():
        print(
            f"error: {ROOT}: the package lies there without its workflow/ and config/; install it "
            "from a checkout with `pip install --editable .`",
            file=sys.stderr,
        )
        return 2
    parser = make_parser()
    if "_ARGCOMPLETE" in os.environ:  # the shell asks what TAB completes
        import argcomplete

        argcomplete.autocomplete(parser)
    arguments = parser.parse_args(words)
    try:
        return arguments.run_command(arguments)
    except BrokenPipeError:  # piped into `head`, say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except (ValueError, OSError) as error:
        print("error: " + "\n".join(map(sanitize.line, str(error).split("\n"))), file=sys.stderr)
        return 2
