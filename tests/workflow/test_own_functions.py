"""The user's own rule of selection and own measure, by real Snakemake runs: the examples of
config/README.md run to the end, and a changed file reruns what depends on it.
"""

import os
import re
import shutil
from pathlib import Path

import pytest
import yaml

from pollination.core import artifacts
from tests.conftest import ROOT, TOY, planned, snakemake
from tests.workflow.test_errors import the_error

RUN = "results/toy"
RULES, MEASURES = "own/rules.py", "own/measures.py"


def config(folder: Path) -> Path:
    raw = yaml.safe_load(TOY.read_text())
    del raw["experiments"]["line"], raw["evaluate"]["semantics"]
    raw["defaults"]["generations"] = 2
    raw["experiments"]["population"]["select"]["rule"] = f"{RULES}:tournament"
    raw["evaluate"]["measures"] = {"entropy": f"{MEASURES}:entropy"}
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run in a folder that holds the two examples of config/README.md."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own").mkdir()
    page = (ROOT / "config/README.md").read_text()
    for path, text in re.findall(r"(?s)```python\n# (own/\w+\.py)\n(.*?)```", page):
        (folder / path).write_text(text)
    snakemake(folder, configfile=config(folder))
    return folder


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run", copy_function=shutil.copy2))


def plan(folder: Path, changed: str) -> dict[str, int]:
    """The jobs that a change of a file plans."""
    path = folder / changed
    path.write_text(path.read_text() + "\n# changed\n")
    os.utime(path, (1, 1))  # as an older file that is moved into its place
    return planned(snakemake(folder, "-n", configfile=config(folder)))


@pytest.mark.slow
def test_a_run_with_an_own_rule_and_an_own_measure_is_complete(finished):
    assert "Nothing to be done" in snakemake(finished, configfile=config(finished))
    for place in ("founders/human", "population/gen1"):
        for m in range(4):
            member = finished / RUN / place / f"member{m}"
            scores = artifacts.read_json(member / "scores.json")
            assert 0 < scores["measures"]["entropy"] < 6
            record = artifacts.read_record(member / "scores.run.json")
            assert record["inputs"][MEASURES] == artifacts.digest(finished / MEASURES)
    for g in range(2):
        choice = artifacts.read_json(finished / RUN / f"population/gen{g}/selection.json")
        assert len(set(choice["parents"])) == 2 and choice["confidence"] is None
        record = artifacts.read_record(finished / RUN / f"population/gen{g}/selection.run.json")
        assert record["inputs"][RULES] == artifacts.digest(finished / RULES)
        assert record["params"]["select"] == {
            "task": "knowledge",
            "k": 2,
            "rule": f"{RULES}:tournament",
            "seed": 42,
            "code": {RULES: artifacts.digest(finished / RULES)},
            "splits": {"knowledge": "half", "coreference": "half"},
        }
    assert not list((finished / "own").rglob("*.pyc"))


def test_a_changed_rule_reruns_the_selections_and_what_follows_alone(copy):
    jobs = plan(copy, RULES)
    assert (jobs["select_parents"], jobs["mutate_parent"], jobs["train_child"]) == (2, 2, 4)
    assert jobs["evaluate_member"] == 4  # the children
    assert not {"train_founder", "build_requests", "stage_task", "pack_tokens"} & set(jobs)


def test_a_changed_measure_reruns_the_evaluations_and_what_follows_alone(copy):
    jobs = plan(copy, MEASURES)
    assert (jobs["evaluate_member"], jobs["select_parents"], jobs["train_child"]) == (8, 2, 4)
    assert not {"train_founder", "build_requests", "stage_task", "pack_tokens"} & set(jobs)


def test_a_function_that_is_not_there_stops_the_run_before_any_job(copy):
    (copy / RULES).write_text("def turnament(members, k, rng):\n    pass\n")
    output = snakemake(copy, configfile=config(copy), ok=False)
    (line,) = [line for line in output.splitlines() if "own.yaml:" in line]
    assert "experiments.population.select.rule: own/rules.py does not define a function" in line
    assert "did you mean 'turnament'" in line and "Traceback" not in output


@pytest.mark.parametrize(
    ("file", "target", "text", "words"),
    [
        (
            RULES,
            "population/gen0/selection.json",
            "def tournament(members, k, rng):\n    return members[0].scores['luck']\n",
            "select.rule: own/rules.py:tournament, line 2: KeyError: 'luck'",
        ),
        (
            MEASURES,
            "founders/human/member1/scores.json",
            "def entropy(member):\n    return member.sequences('nowhere')\n",
            "evaluate.measures.entropy: own/measures.py:entropy, line 2: ValueError: text 'nowhe",
        ),
    ],
)
def test_a_function_that_fails_is_one_line_and_leaves_nothing(copy, file, target, text, words):
    (copy / file).write_text(text)
    target = f"{RUN}/{target}"
    line = the_error(snakemake(copy, "--", target, configfile=config(copy), ok=False))
    assert words in line
    assert not (copy / target).exists()
