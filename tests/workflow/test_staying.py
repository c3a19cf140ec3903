"""Evaluations of a generation by one process, which reads the benchmarks once."""

import os
from pathlib import Path

import pytest

from pollination.core.lease import kept_copies
from pollination.plan.layout import member_files
from pollination.plan.plan import EVALUATION_FILES
from tests.chaos.comparison import digests
from tests.conftest import TOY_PLAN, planned, snakemake
from tests.workflow.test_loop import copy

__all__ = ["copy"]  # a fixture
SCORES = member_files(TOY_PLAN, "population", 1, "scores.json")
KEPT = "kept from the member before: 2 of 2 benchmarks, the model\n"


def log(run: Path, member: int) -> Path:
    return run / f"results/toy/logs/population/gen1/member{member}/evaluate.log"


@pytest.fixture
def unscored(copy) -> Path:
    """A finished run without the scores of four members."""
    for file in EVALUATION_FILES:
        for path in member_files(TOY_PLAN, "population", 1, file):
            for one in (path, *kept_copies(str(copy / path))):
                (copy / one).unlink()
    for member in range(4):
        log(copy, member).unlink()
    return copy


@pytest.mark.slow
def test_one_process_scores_a_generation_with_the_bytes_of_separate_ones(unscored, finished):
    plan = planned(snakemake(unscored, "-n", "--", *SCORES))
    assert plan == {"evaluate_member": 4, "total": 4}
    snakemake(unscored, "--cores", "1", "--", *SCORES)
    texts = [log(unscored, member).read_text() for member in range(4)]
    assert sum(KEPT in text for text in texts) == 3
    together = digests(unscored / "results/toy")
    assert together == digests(finished / "results/toy")
    for path in SCORES[:1]:
        for one in (path, *kept_copies(str(unscored / path))):
            (unscored / one).unlink()
    alone = os.environ | {"POLLINATION_WARM": "0"}
    snakemake(unscored, "--", *SCORES, env=alone)
    assert KEPT not in log(unscored, 0).read_text()
    assert digests(unscored / "results/toy") == together
    assert "Nothing to be done" in snakemake(unscored, "-n")


@pytest.mark.slow
def test_a_member_that_cannot_be_scored_costs_no_other_one(unscored, finished):
    weights = unscored / "results/toy/population/gen1/member1/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] + b"\xff\xff\xff\xff")
    output = snakemake(unscored, "--cores", "1", "--", *SCORES, ok=False)
    assert "1 of 4 jobs failed, 3 finished" in output and "member1" in output
    weights.write_bytes(whole)
    assert planned(snakemake(unscored, "-n", "--", *SCORES))["evaluate_member"] == 1
    snakemake(unscored, "--", *SCORES)
    assert digests(unscored / "results/toy") == digests(finished / "results/toy")
