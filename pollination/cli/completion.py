"""Print shell code that lets TAB complete commands and options.

TAB then also completes config files and the names of experiments. Install it once:

bash, in ~/.bashrc:
  eval "$(pollination completion bash)"

zsh, in ~/.zshrc below `compinit`:
  eval "$(pollination completion zsh)"

fish, in a terminal:
  pollination completion fish > ~/.config/fish/completions/pollination.fish

Exit status:
  0: the code is printed
  2: the command could not run
"""

from argparse import Action, Namespace
from collections.abc import Callable
from glob import escape, glob
from pathlib import Path

from pollination import ROOT
from pollination.plan.config.loading import preset, read_yaml
from pollination.plan.config.overlay import expand
from pollination.plan.saved import saved_config

EXAMPLE = 'eval "$(pollination completion bash)"'
SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell that you use")


def run(arguments) -> int:
    import argcomplete  # imported here, so that all other commands start without it

    print(argcomplete.shellcode(["pollination"], shell=arguments.shell))
    return 0


def completed_by(completer: Callable, argument: Action) -> None:
    """Complete `argument` with the values that `completer(prefix=, parsed_args=, ...)` returns."""
    argument.completer = completer  # type: ignore[attr-defined]  # argcomplete's protocol


def config_files(prefix: str, **_) -> list[str]:
    """Return the folders and YAML files that begin with `prefix`, presets included."""
    here = {path: Path(path) for path in glob(escape(prefix) + "*")}
    presets = {path: ROOT / path for path in glob(escape(prefix) + "*", root_dir=ROOT)}
    every = {path: at for path, at in presets.items() if path.startswith("config")} | here
    folders = [f"{path}/" for path, at in every.items() if at.is_dir()]
    return sorted(folders + [path for path in every if path.endswith((".yaml", ".yml"))])


def experiments(prefix: str, parsed_args: Namespace, **_) -> list[str]:
    """Return the experiments of the run or config file that the command line names."""
    try:
        if (folder := getattr(parsed_args, "run", None)) and not parsed_args.configfile:
            saved = saved_config(folder)
            config = saved[1] if saved else {}
        else:
            config = expand(read_yaml(preset(parsed_args.configfile or "config/config.yaml")))
    except (ValueError, OSError):
        return []
    return [name for name in config.get("experiments") or {} if str(name).startswith(prefix)]
