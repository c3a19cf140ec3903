"""python -m pollination COMMAND: questions about a run that need no GPU and no job.

Exit status: 0 the answer is yes (or there is one), 1 it is no (mistakes, findings, differences), 2 the question cannot be answered.
"""

import argparse
import os
import sys
from importlib import import_module

from pollination import __version__, printable

COMMANDS = ("check", "cost", "status", "files", "lineage", "verify", "reproduce", "diff")


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pollination", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f"pollination.commands.{name}")
        first = module.__doc__.splitlines()[0]
        command = commands.add_parser(
            name,
            help=first,
            description=module.__doc__,
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run_command=module.run)
    arguments = parser.parse_args(words)
    try:
        return arguments.run_command(arguments)
    except BrokenPipeError:  # piped into `head`, say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except (ValueError, OSError) as error:
        print("error: " + "\n".join(map(printable.line, str(error).split("\n"))), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
