"""The whole loop by real Snakemake runs at toy size: complete, idempotent, minimal in its reruns,
resumable, reproducible.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from pollination.core.lease import kept_copies
from pollination.plan.jobs import everything
from pollination.plan.outputs import generation_files
from pollination.plan.report import report_files
from tests.chaos.comparison import digests
from tests.conftest import TOY, TOY_PLAN, planned, snakemake


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run", copy_function=shutil.copy2))


def change(tmp_path: Path, **experiment) -> Path:
    raw = yaml.safe_load(TOY.read_text())
    raw["experiments"]["population"] |= experiment
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_a_finished_run_has_every_file_and_a_second_call_does_nothing(finished):
    for path in everything(TOY_PLAN):
        empty = path.endswith("staged/complete")  # it only sets the order of jobs
        assert empty or (finished / path).stat().st_size > 0, path
    assert not list(finished.rglob("*.tmp"))
    for work in finished.rglob(
        ".*.work"
    ):  # of work in progress nothing is left: a free lease, and second names of finished files
        files = {path for path in work.rglob("*") if path.is_file()}
        (lease,) = work.glob("lease.*")
        assert '"released": true' in lease.read_text()
        assert all(
            path.parent.name == "finished" and path.stat().st_nlink == 2 for path in files - {lease}
        ), work
    assert "Nothing to be done" in snakemake(finished)


def test_the_report_is_one_file_with_every_figure(finished, tmp_path):
    snakemake(finished, "--report", str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    for path in report_files(TOY_PLAN):
        assert path.endswith(".png") or Path(path).name in page, path
    about = json.loads((finished / "results/toy/corpora/world/corpus.json").read_text())
    assert about["documents"]["test"] == 19  # few, and the toy's benchmark of 24 questions is small
    assert "19 test documents, fewer than 20" in page and "24 questions, fewer than 50" in page


def test_another_mutation_scale_reruns_only_what_depends_on_it(finished, tmp_path):
    plan = planned(snakemake(finished, "-n", configfile=change(tmp_path, mutate={"scale": 0.02})))
    assert (plan["mutate_parent"], plan["train_child"], plan["evaluate_member"]) == (
        4,
        8,
        8,
    )  # two generations of children
    assert (plan["generate_shard"], plan["select_parents"]) == (
        4,
        2,
    )  # the founders have written and been chosen already
    assert not {"train_founder", "build_microworld", "stage_task"} & set(plan)


def test_a_changed_plot_redraws_only_that_plot_and_the_page(finished):
    source = finished / "project/pollination/figures/accuracy.py"
    text = source.read_text()
    try:
        source.write_text(text + "\n# changed\n")
        jobs = set(planned(snakemake(finished, "-n")))
        assert jobs == {"draw_accuracy", "write_landing", "all", "total"}
    finally:
        source.write_text(text)
    assert "Nothing to be done" in snakemake(finished, "-n")


SECTIONS = ("corpus", "model", "task", "evaluate", "samples", "select", "generate", "train")


@pytest.mark.parametrize(
    "absent, rerun",
    [(3, set()), (2, {"build_microworld", "prepare_model", "train_founder", "write_config"})],
)
def test_a_new_key_reruns_a_finished_run_only_where_it_changes_something(finished, absent, rerun):
    """A release adds a key to every section: results are as before where it is 3, the default."""
    path = finished / "project/workflow/schemas/config.schema.yaml"
    text = path.read_text()
    schema = yaml.safe_load(text)
    for node in (schema, *(schema["$defs"][name] for name in SECTIONS)):
        node["properties"]["invented"] = {"type": "integer", "default": 3, "absent": absent}
    try:
        path.write_text(yaml.safe_dump(schema, sort_keys=False))
        output = snakemake(finished, "-n")
        assert rerun <= set(planned(output))
        assert rerun or "Nothing to be done" in output
    finally:
        path.write_text(text)


@pytest.mark.slow
def test_one_generation_rebuilds_bit_for_bit_and_nothing_later_is_scheduled(copy):
    before = digests(copy / "results/toy")
    files = generation_files(TOY_PLAN, "population", 1)
    for path in files:
        for name in (path, *kept_copies(str(copy / path))):
            (copy / name).unlink()
    # new interpreters, where the run's jobs were forks
    output = snakemake(copy, "--", *files, env=os.environ | {"POLLINATION_WARM": "0"})
    assert "train_child population gen1 member3" in output
    log = copy / "results/toy/logs/population/gen1/member3/train.log"
    assert "files were restored" not in log.read_text()  # really trained
    assert "gen2" not in output
    assert digests(copy / "results/toy") == before
    assert "Nothing to be done" in snakemake(copy, "-n")
