"""Other Snakefiles: one that includes the workflow, the catalog's, and one that uses a module."""

import subprocess
from pathlib import Path

from tests.conftest import ROOT, TOY, command, planned

OWN = f"""\
include: "{ROOT}/Snakefile"
workflow.default_target = "all"

rule mine:
    input: "results/toy/report/accuracy.svg"
    output: "mine.txt"
    shell: "cp {{input}} {{output}}"
"""
MODULE = f"""\
configfile: "{TOY}"
module pollination:
    snakefile: "{ROOT}/Snakefile"
    config: config
use rule * from pollination
"""


def dry(folder: Path, snakefile: Path, *words: str) -> subprocess.CompletedProcess:
    """A dry run of another Snakefile."""
    line = command(folder, "-n", *words)
    line[line.index("--snakefile") + 1] = str(snakefile)
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=900)


def test_a_rule_of_ones_own_reads_what_the_workflow_makes(tmp_path):
    (tmp_path / "Snakefile").write_text(OWN)
    done = dry(tmp_path, tmp_path / "Snakefile", "mine")
    assert done.returncode == 0, done.stderr
    jobs = planned(done.stdout + done.stderr)
    assert jobs["mine"] == 1 and jobs["train_child"] > 2
    done = dry(tmp_path, tmp_path / "Snakefile")
    jobs = planned(done.stdout + done.stderr)
    assert jobs["all"] == 1 and "mine" not in jobs


def test_the_file_for_the_catalog_makes_everything(tmp_path):
    both = [dry(tmp_path, ROOT / name) for name in ("Snakefile", "workflow/Snakefile")]
    jobs = [planned(done.stdout + done.stderr) for done in both]
    assert jobs[0] == jobs[1] and jobs[0]["all"] == 1


def test_a_module_is_refused_because_its_driver_would_not_be_checked(tmp_path):
    (tmp_path / "Snakefile").write_text(MODULE)
    done = dry(tmp_path, tmp_path / "Snakefile")
    assert done.returncode == 1
    assert 'write instead: include: "CLONE/Snakefile"' in done.stderr
    assert "Traceback" not in done.stderr
