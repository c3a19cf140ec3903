"""The installed package: the command from any folder, shell completion, and what it loads."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_layout import HEAVY

COMMAND = Path(sys.executable).with_name("pollination")


def say(folder: Path, *words: str, **process) -> subprocess.CompletedProcess:
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, **process)


def test_the_command_finds_presets_from_any_folder(tmp_path):
    done = say(tmp_path, COMMAND, "check", "--configfile", "config/test/toy.yaml")
    assert done.returncode == 0
    assert all(line.startswith("warning: ") for line in done.stderr.splitlines())
    assert done.stdout.startswith(f"{ROOT}/config/test/toy.yaml: no mistakes.")
    done = say(tmp_path, COMMAND, "check", "--configfile", "config/test/toys.yaml")
    assert done.returncode == 2 and "config/test/toys.yaml" in done.stderr


def test_a_config_of_the_current_folder_comes_before_a_preset(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("run: [")
    done = say(tmp_path, COMMAND, "check")
    assert re.match(r"error: config/config.yaml:\d+: not readable as YAML", done.stderr)


def test_help_loads_nothing_heavy(tmp_path):
    code = (
        f"import sys; from pollination.cli import make_parser; make_parser().format_help(); "
        f"print(*set({HEAVY}) & sys.modules.keys())"
    )
    done = say(tmp_path, sys.executable, "-c", code, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_a_package_without_its_checkout_says_how_to_install_it(tmp_path):
    shutil.copytree(ROOT / "pollination", tmp_path / "pollination")
    done = say(tmp_path, sys.executable, "-m", "pollination", "check")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {tmp_path}: the package is installed without its workflow/ and config/ folders; "
        "run `pip install --editable .` in a checkout\n"
    )


def test_jobs_run_the_package_beside_the_snakefile(tmp_path):
    """Where the environment has another checkout installed, in editable mode too."""
    (tmp_path / "pollination").mkdir()
    (tmp_path / "pollination/__init__.py").write_text("")
    (tmp_path / "where.py").write_text(
        "import pollination\nopen(snakemake.output[0], 'w').write(pollination.__file__)\n"
    )
    (tmp_path / "Snakefile").write_text("rule:\n  output: 'said'\n  script: 'where.py'\n")
    done = say(tmp_path, sys.executable, "-m", "snakemake", "--cores", "1", "--quiet")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "said").read_text() == str(tmp_path / "pollination/__init__.py")


def complete(folder: Path, line: str) -> list[str]:
    """What the shell is told when TAB is pressed at the end of `line`."""
    out = folder / "completions"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(out),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    say(folder, COMMAND, env=os.environ | asked)
    return [word.strip() for word in out.read_text().split("\n")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pollination rep", ["reproduce"]),
        ("pollination check --conf", ["--configfile"]),
        ("pollination completion ", ["bash", "zsh", "fish"]),
        ("pollination check --configfile mi", ["mine.yaml"]),
        ("pollination check --configfile config/te", ["config/test/"]),
        ("pollination check --configfile config/test/to", ["config/test/toy.yaml"]),
        ("pollination files --configfile config/test/toy.yaml ", ["population", "line"]),
        ("pollination files --configfile mine.yaml p", []),
    ],
)
def test_tab_completes_commands_files_and_experiments(tmp_path, line, words):
    (tmp_path / "mine.yaml").write_text("run: [")
    (tmp_path / "mine.txt").write_text("")
    completed = [word for word in complete(tmp_path, line) if word and not word.startswith("-h")]
    assert set(words) <= set(completed)
    assert all(word.startswith("--") for word in set(completed) - set(words))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_code_for_each_shell(tmp_path, shell):
    done = say(tmp_path, COMMAND, "completion", shell)
    assert done.returncode == 0 and "pollination" in done.stdout
    if shutil.which(shell):
        assert say(tmp_path, shell, "-n", input=done.stdout).returncode == 0
