"""Every example of docs/extending/ by real Snakemake runs, in a copy of the checkout."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pollination.core import artifacts
from tests.conftest import ROOT, snakemake
from tests.docs.pages import apply, files, pages, save, typed

PAGES = pages("extending")
COPIED = ("pollination", "rules", "workflow", "profiles", "envs", "config")
IN_PACKAGE = ("corpus", "selection", "mutation", "decoding", "figure")


def test_every_extension_point_has_a_page():
    index = (ROOT / "docs/extending.md").read_text()
    assert {page.stem for page in PAGES} == set(re.findall(r"^extending/(\w+)$", index, re.M))
    for page in PAGES:
        assert f"(extending/{page.name})" in index, page


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A folder with the files of all pages, and a copy of the project (`project`, `config`) to
    which the changes of all pages are applied.
    """
    folder = tmp_path_factory.mktemp("extending")
    project = folder / "project"
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, project / name, ignore=ignored)
    shutil.copy2(ROOT / "Snakefile", project)
    for page in PAGES:
        apply(page, project)
        save(page, project)
    (folder / "own").symlink_to(project / "own")
    (folder / "config").symlink_to(project / "config")
    return folder


def run(checkout: Path, *words: str, config: str) -> str:
    python = os.pathsep.join([str(checkout / "project"), str(ROOT)])
    return snakemake(
        checkout,
        *words,
        configfile=checkout / config,
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": python},
    )


def configs() -> list[tuple[str, str]]:
    """(config, target) of every line on the pages that starts snakemake."""
    found = []
    for page in PAGES:
        saved = [name for name in files(page) if re.fullmatch(r"own/\w+\.yaml", name)]
        lines = [line for line in typed(page) if line.startswith("snakemake ")]
        matches = [re.search(r"--configfile (\S+) -- (\S+)$", line) for line in lines]
        assert sorted(saved) == sorted(match[1] for match in matches), page
        found += [(match[1], match[2]) for match in matches]
    return found


def python(checkout: Path, code: str) -> None:
    """Run code in a process that has the pages' changes."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout / "project")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_config_of_the_pages_is_sound(checkout):
    code = f"""
from pollination.cli import main
for config, _ in {configs()}:
    assert main(["check", "--configfile", config]) == 0, config
"""
    python(checkout, code)


def merged(checkout: Path) -> str:
    """One config with what all pages set, so that the examples share their founders."""
    change: dict = {}
    for config, _ in configs():
        change |= yaml.safe_load((checkout / config).read_text())["overlay"]["set"]
    change["experiments.population.select.rule"] = "boltzmann"
    rules = yaml.safe_load((checkout / "own/lexicase.yaml").read_text())["overlay"]["set"]
    (rule,) = rules.values()
    change["experiments.questions"] = {
        "population": 4,
        "select": {"task": "knowledge", "rule": rule},
    }
    raw = {"run": "all", "overlay": {"base": "config/test/toy.yaml", "set": change}}
    path = checkout / "own/all.yaml"
    path.write_text(yaml.safe_dump(raw))
    return "own/all.yaml"


@pytest.mark.slow
def test_every_example_runs(checkout):
    results = "results/all"
    targets = [re.sub(r"^results/\w+", results, target) for _, target in configs()]
    targets.append(f"{results}/questions/gen0/selection.json")
    run(checkout, "--", *dict.fromkeys(targets), config=merged(checkout))
    folder = checkout / results
    corpus = artifacts.read_json(folder / "corpora/letters/corpus.json")
    assert corpus["kind"] == "csv" and corpus["files"] == 1
    assert sum(corpus["documents"].values()) == 6
    for name in ("population", "questions"):
        choice = artifacts.read_json(folder / name / "gen0/selection.json")
        assert len(set(choice["parents"])) == 2 and choice["confidence"] is None
    record = artifacts.read_record(folder / "population/gen0/parent0/run.json")
    assert "row" in str(record["params"])
    shard = artifacts.read_table(folder / "line/gen0/synthetic0/shard0.parquet")
    assert shard.num_rows > 10
    scores = artifacts.read_json(folder / "founders/human/member0/scores.json")
    assert 0 < scores["measures"]["variety"]["share"] <= 1
    assert 0 <= scores["tasks"]["people"]["accuracy"] <= 1
    numbers = pd.read_csv(folder / "report/lengths.csv")
    assert set(numbers.role) == {"population", "line"} and (numbers.words > 0).all()


def test_the_examples_do_what_the_pages_say(checkout):
    """Numbers of the operators, in a process that has the pages' changes."""
    code = """
import numpy as np, torch
from pollination.evolution.mutation import mutate
from pollination.evolution.rules import Member
from pollination.evolution.selection import choose
state = {"w": torch.randn(3, 5000) * torch.tensor([[0.1], [1.0], [10.0]]), "b": torch.ones(1)}
noise = mutate(state, 1.0, "row", 7)["w"] - state["w"]
spread = noise.std(dim=-1) * 12**0.5 / state["w"].std(dim=-1)
assert torch.allclose(spread, torch.ones(3), rtol=0.05), spread
assert torch.equal(mutate(state, 1.0, "row", 7)["w"] - state["w"], noise)
members = [Member(slot, 0, slot / 10, {}, np.arange(10) < slot) for slot in range(10)]
drawn = [choose("boltzmann", members, 1, np.random.default_rng(i))[0] for i in range(900)]
counts = np.bincount(drawn, minlength=10)
assert counts[0] < 10 and abs(counts[9] / 900 - 0.865) < 0.05, counts
from pollination.models import min_p, sampling
logits = torch.tensor([[0.0, -1.0, -2.0, -9.0]]).repeat(2000, 1)
keys = sampling.row_keys(list(range(2000)), 1)[:, 0]
tokens, sound = min_p._draw(logits, keys, sampling.Decoding("min_p", temperature=1.0), 0.2)
assert sound.all() and sorted(set(tokens.tolist())) == [0, 1], set(tokens.tolist())
"""
    python(checkout, code)
