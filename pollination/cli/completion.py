"""Print the shell code that completes commands, options, config files and experiments on TAB.

For bash, add this line to ~/.bashrc (zsh: ~/.zshrc, below `compinit`):

  eval "$(pollination completion bash)"

For fish: pollination completion fish > ~/.config/fish/completions/pollination.fish
"""

from argparse import Action, Namespace
from collections.abc import Callable
from glob import escape, glob
from pathlib import Path

from pollination import ROOT
from pollination.plan.config.loading import preset, read_yaml
from pollination.plan.config.overlay import expand

EXAMPLE = 'eval "$(pollination completion bash)"'
SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser) -> None:
    parser.add_argument("shell", choices=SHELLS)


def run(arguments) -> int:
    import argcomplete  # only here and to answer TAB, so that all commands start without it

    print(argcomplete.shellcode(["pollination"], shell=arguments.shell))
    return 0


def completed_by(completer: Callable, argument: Action) -> None:
    """Let argcomplete ask `completer(prefix=, parsed_args=, ...)` for the values of `argument`."""
    argument.completer = completer  # type: ignore[attr-defined]  # argcomplete's own protocol


def config_files(prefix: str, **_) -> list[str]:
    """Folders and YAML files that begin with `prefix`: the current folder's, and the presets."""
    here = {path: Path(path) for path in glob(escape(prefix) + "*")}
    presets = {path: ROOT / path for path in glob(escape(prefix) + "*", root_dir=ROOT)}
    every = {path: at for path, at in presets.items() if path.startswith("config")} | here
    folders = [f"{path}/" for path, at in every.items() if at.is_dir()]
    return sorted(folders + [path for path in every if path.endswith((".yaml", ".yml"))])


def experiments(prefix: str, parsed_args: Namespace, **_) -> list[str]:
    """The experiments of the config file that the command line names so far."""
    try:
        config = expand(read_yaml(preset(parsed_args.configfile)))
    except (ValueError, OSError):
        return []
    return [name for name in config.get("experiments") or {} if str(name).startswith(prefix)]
