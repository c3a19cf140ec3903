"""`pollination status`: what the files alone tell of a run."""

import logging
import time

import pytest
import yaml

from pollination.cli import main
from pollination.cli.runs.status import report, was_interrupted
from pollination.core.lease import Lease
from pollination.plan.config.resolve import resolve
from pollination.plan.jobs import jobs
from pollination.plan.plan import Plan
from tests.conftest import ROOT, TOY, TOY_PLAN, planned, snakemake

MEMBER = "results/toy/population/gen1/member2"
LOGS = "results/toy/logs/population/gen1"
TIME = "2026-01-01 10:00:00,000"


def write(path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("configfile", [TOY, ROOT / "config/microworld_ecosystem.yaml"])
def test_it_counts_the_jobs_that_snakemake_plans(configfile, tmp_path):
    plan = planned(snakemake(tmp_path, "-n", configfile=configfile))
    config = resolve(yaml.safe_load(configfile.read_text()))
    assert (
        len(list(jobs(Plan(config, f"results/{config['run']}"))))
        == plan["total"] - plan["all"] - plan["write_config"] - plan["stage"]
    )


def test_a_run_that_has_not_begun_waits_and_a_finished_one_is_done(
    finished, tmp_path, monkeypatch, capsys
):
    total = len(list(jobs(TOY_PLAN)))
    monkeypatch.chdir(tmp_path)
    assert main(["status", "--configfile", str(TOY)]) == 0
    assert (
        f"{total} jobs, 0 done, 0 running, 0 failed, 0 stopped, {total} waiting"
        in capsys.readouterr().out
    )
    monkeypatch.chdir(finished)
    assert f"{total} jobs, {total} done" in report(TOY_PLAN)


def test_running_failed_and_stopped_jobs_say_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    lease = Lease(tmp_path / MEMBER / ".train.work", logging.getLogger())
    lease.wait()
    write(
        tmp_path / LOGS / "member2/train.log",
        f"{TIME} INFO step 12/40 loss 1.5, 800 tokens/s, 90 s left\n",
    )
    trace = (
        f"{TIME} ERROR KeyError: 'x'\nTraceback (most recent call last):\n  File ...\nKeyError: "
        "'x'\n"
    )
    write(tmp_path / LOGS / "member0/train.log", trace)
    write(
        tmp_path / LOGS / "member1/train.log",
        f"{TIME} ERROR error: train_child: stopped by SIGTERM at step 3 of 40; saved\n",
    )
    text = report(TOY_PLAN)
    assert "1 running, 1 failed, 1 stopped" in text
    assert (
        "population/gen1/member2: train: step 12/40 loss 1.5, 800 tokens/s, 90 s left (Slurm job "
        "77 on" in text
    )
    assert f"{LOGS}/member0/train.log: KeyError: 'x'" in text
    assert f"{LOGS}/member1/train.log: train_child: stopped by SIGTERM at step 3" in text
    (row,) = [
        line for line in text.splitlines() if line.startswith("population") and "gen 1" in line
    ]
    assert row.split()[3:7] == [".", "1", "1", "1"] and "train 0/4" in row
    lease.release()
    assert "0 running" in report(TOY_PLAN)


def test_thousands_of_jobs_take_seconds_and_fit_a_screen(tmp_path, monkeypatch):
    raw = yaml.safe_load(TOY.read_text())
    raw["experiments"] = {
        f"e{n}": {"population": 16, "generations": 20, "select": {"task": "knowledge"}}
        for n in range(10)
    }
    plan = Plan(resolve(raw, "large"), "results/large")
    monkeypatch.chdir(tmp_path)
    every = sorted(jobs(plan), key=lambda work: -1 if work.generation is None else work.generation)
    assert len(every) > 8000
    for work in every[: len(every) // 2]:
        write(tmp_path / work.output, "x")
    for work in every[len(every) // 2 : len(every) // 2 + 500]:
        write(tmp_path / work.log, f"{TIME} ERROR error: no\n")
    start = time.monotonic()
    text = report(plan)
    assert time.monotonic() - start < 5
    assert "500 failed" in text and len(text.splitlines()) < 60


def test_a_job_that_ctrl_c_ended_while_it_was_starting_is_stopped(tmp_path):
    """It had no time to say so: its log ends in Python's own traceback."""
    log = tmp_path / "train.log"
    log.write_text("Traceback (most recent call last):\n  import torch\nKeyboardInterrupt\n")
    assert was_interrupted(str(log))
    log.write_text("2026-01-01 00:00:00,000 INFO step 1\n")
    assert not was_interrupted(str(log))
    assert not was_interrupted(str(tmp_path / "absent.log"))
