"""The tutorial's pages: every config is planned, and the first one runs, from what a page says."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pollination.cli import main
from pollination.core import artifacts
from pollination.plan.figures import REPORT
from tests.conftest import ROOT, planned, snakemake
from tests.docs.pages import files, pages, save, typed

PAGES = pages("tutorial")
CONFIGS = [name for page in PAGES for name in files(page)]
COUNTS = {"own/text.yaml": (9, 3), "own/model.yaml": (9, 4), "own/sweep.yaml": (16, 4)}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A folder as a fresh clone, with the files that the pages ask the reader to save."""
    folder = tmp_path_factory.mktemp("tutorial")
    for name in ("docs", "config"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "results").mkdir()
    shutil.copy2(ROOT / "results/README.md", folder / "results")
    for page in PAGES:
        save(page, folder)
        lines = [line for line in typed(page) if line.startswith(("mkdir ", "cat "))]
        subprocess.run("\n".join(["set -e", *lines]), shell=True, check=True, cwd=folder)
    return folder


def test_the_pages_hold_whole_configs():
    assert CONFIGS == ["own/sweep.yaml", "own/model.yaml", "own/pretrained.yaml", "own/text.yaml"]
    for page in PAGES:
        for name, text in files(page).items():
            assert f"`{name}`" in page.read_text() and re.search(r"(?m)^run: \w+$", text)


def test_the_figures_that_the_pages_name_are_in_the_report():
    titles = [figure.title for figure in REPORT.values()]
    for page in PAGES:
        named = re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", page.read_text())
        for name in map(" ".join, map(str.split, named)):
            assert any(title.startswith(name) for title in titles), f"{page}: {name}"


@pytest.mark.parametrize("name", COUNTS)
def test_a_config_is_sound_and_has_the_models_that_its_page_counts(
    checkout, monkeypatch, capsys, name
):
    monkeypatch.chdir(checkout)
    assert main(["check", "--configfile", name]) == 0
    models, founders = COUNTS[name]
    said = capsys.readouterr().out
    assert str(models) in said and str(founders) in said
    jobs = planned(snakemake(checkout, "-n", configfile=checkout / name, cwd=checkout))
    assert jobs.get("draw_sweep", 0) == (name == "own/sweep.yaml")
    assert (jobs["train_founder"], jobs["train_founder"] + jobs["train_child"]) == (
        founders,
        models,
    )


@pytest.mark.slow
def test_a_founder_of_one_run_is_the_pretrained_model_of_the_next(checkout):
    member = "results/model/founders/human/member0"
    weights = f"{member}/model.safetensors"
    snakemake(checkout, "--", weights, configfile=checkout / "own/model.yaml", cwd=checkout)
    pretrained = checkout / "own/pretrained.yaml"
    jobs = planned(snakemake(checkout, "-n", configfile=pretrained, cwd=checkout))
    assert (jobs["train_founder"], jobs["train_child"], jobs["evaluate_member"]) == (2, 3, 6)
    scores = "results/pretrained/base/mine/member0/scores.json"
    snakemake(checkout, "--", scores, configfile=pretrained, cwd=checkout)
    assert artifacts.read_json(checkout / scores)["perplexity"]["world/test"]["perplexity"] > 1


@pytest.mark.slow
def test_the_run_on_own_text_ends_with_its_figures(checkout):
    config = checkout / "own/text.yaml"
    figure = "results/text/report/aggregates.csv"
    texts = "results/text/report/continuations.html"
    snakemake(checkout, "--", figure, texts, configfile=config, cwd=checkout)
    assert (checkout / figure).read_text().count("\n") > 2
    scores = artifacts.read_json(checkout / "results/text/m2/gen2/member1/scores.json")
    assert 1 < scores["perplexity"]["pages/test"]["perplexity"] < 1000
