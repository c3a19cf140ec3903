"""`pollination status`: what the files alone tell of a run."""

import json
import logging
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
import yaml

from pollination.cli import main
from pollination.cli.runs import planned as rules_of
from pollination.cli.runs.drivers import Driver
from pollination.cli.runs.states import was_interrupted
from pollination.cli.runs.status import report
from pollination.core import code
from pollination.core.driver import FOLDER
from pollination.core.lease import Lease
from pollination.core.pin import Pin
from pollination.core.settings import lean, schema
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
        == plan["total"] - plan["all"] - plan["write_config"]
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


def begin(folder, name: str = FOLDER, **about: str) -> Lease:
    """A driver of the toy run, at work in `folder`."""
    lease = Lease(folder / "results/toy" / name, logging.getLogger(), **about)
    assert lease.wait()
    return lease


def save_config(folder, change=lambda config: None) -> None:
    """Save the config of the toy run, as its job does."""
    config = json.loads(json.dumps(lean(TOY_PLAN.config, schema())))
    change(config)
    write(folder / "results/toy/config.yaml", yaml.safe_dump(config, sort_keys=False))


def test_without_a_driver_and_a_lease_nothing_runs(tmp_path, monkeypatch):
    """As after the deletion of a generation whose logs are young."""
    monkeypatch.chdir(tmp_path)
    log = tmp_path / LOGS / "select.log"
    write(log, f"{TIME} INFO comparing 4 members\n")
    text = report(TOY_PLAN, "toy.yaml")
    assert " 0 running, 0 failed, 1 stopped" in text
    assert "no driver has worked on this run yet" in text
    assert "type: snakemake --profile profiles/local --configfile toy.yaml" in text
    driver = begin(tmp_path, command="snakemake --profile profiles/slurm")
    text = report(TOY_PLAN)
    assert " 1 running, 0 failed, 0 stopped" in text
    assert f"driver: process {os.getpid()} on " in text and "works on this run since 20" in text
    os.utime(log, (time.time() - 300,) * 2)  # of the driver before this one
    assert " 0 running, 0 failed, 1 stopped" in report(TOY_PLAN)
    driver.release()
    text = report(TOY_PLAN)
    assert f"no driver is alive: process {os.getpid()} on " in text and " ended " in text
    assert "to resume the run, type: snakemake --profile profiles/slurm\n" in text


def test_a_killed_driver_needs_an_unlock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    driver = begin(tmp_path, command="snakemake -c 2")
    driver.bell.set()
    path = tmp_path / "results/toy" / FOLDER / "lease.0"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"started": "1"}))
    text = report(TOY_PLAN)
    assert " died without releasing its lease; last beat " in text
    assert "type: snakemake -c 2 --unlock once, then without --unlock\n" in text


@pytest.mark.parametrize("content", ["", "[1, 2]", "null", '{"token": "x"}', "\0\0\0"])
def test_unreadable_leases_are_named(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    for folder in (f"results/toy/{FOLDER}", f"{MEMBER}/.train.work"):
        write(tmp_path / folder / "lease.3", content)
        write(tmp_path / folder / "lease.0~", content)
        (tmp_path / folder / "lease.9").mkdir()
        os.utime(tmp_path / folder / "lease.3", (1e9, 1e9))
    text = report(TOY_PLAN)
    assert " 0 running, 0 failed, 1 stopped" in text
    assert f"no driver is alive, as far as can be seen: results/toy/{FOLDER}/lease.3: " in text
    assert f"its lease cannot be read: {MEMBER}/.train.work/lease.3: " in text


def test_an_edited_config_is_not_done(tmp_path, monkeypatch):
    """The children of the line were trained at another rate; those of the population were not."""
    monkeypatch.chdir(tmp_path)
    trained = [work for work in jobs(TOY_PLAN) if work.kind.rule == "train_child"]
    line = [work for work in trained if work.group == "line"]
    with rules_of.planned(TOY_PLAN) as rules:
        for work in trained:
            write(tmp_path / work.output, "x")
            record = {
                "params": rules.of(work.output, "train_child").params,
                "outputs": {"model.safetensors": "a digest"},
            }
            path = (tmp_path / work.output).with_name("run.json")
            path.write_text(json.dumps(record))
    save_config(tmp_path)
    edited = yaml.safe_load(TOY.read_text())
    edited["experiments"]["line"]["train"] = {"learning_rate": 0.005}
    plan = Plan(resolve(edited), "results/toy")
    text = report(plan, "toy.yaml")
    assert f", {len(trained) - len(line)} done, " in text and f", {len(line)} outdated\n" in text
    assert (
        "\ntoy.yaml differs from results/toy/config.yaml:\n  experiments.line.train."
        "learning_rate: 0.001 in the run, 0.005 in the config file\n"
        f"{len(line)} finished jobs have other settings than the config file, so snakemake will "
        "recompute them" in text
    )
    text = report(TOY_PLAN)
    assert f", {len(trained)} done, " in text and "differs" not in text
    # The next driver has saved and pinned the edited config, and has recomputed nothing yet.
    write(tmp_path / "results/toy/config.yaml", yaml.safe_dump(lean(plan.config, schema())))
    before, after = (
        Pin("results/toy", code.files(), one, {}) for one in (TOY_PLAN.config, plan.config)
    )
    after.write()
    before.write()
    pinned = before.folder.relative_to(tmp_path)
    assert f"differs from {pinned}/config.json:" in report(plan)
    after.write()
    text = report(plan)
    assert f", {len(line)} outdated\n" in text and "differs" not in text
    for work in line:
        write((tmp_path / work.output).with_name("run.json"), "{")  # `verify` names it
        os.utime(tmp_path / work.output, (1e9, 1e9))
    assert f", {len(trained)} done, " in report(plan)


QUEUE = {
    "run_id": "pollination_1",
    "problem": "Slurm does not answer since 120 s",
    "jobs": [
        {
            "slurm": "17",
            "output": f"{MEMBER}/model.safetensors",
            "rule": "train_child",
            "state": "PENDING",
            "reason": "JobHeldAdmin",
            "restarts": 3,
        },
        {"slurm": "18", "output": f"{MEMBER}/scores.json", "state": "RUNNING"},
        {"slurm": 19, "output": 5},
        None,
    ],
}


def test_a_finished_job_whose_output_is_deleted_waits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / LOGS / "member2/train.log", f"{TIME} INFO step 3/3\n")
    assert ", 1 stopped, " in report(TOY_PLAN)
    timings = LOGS.replace("logs", "benchmarks")
    write(tmp_path / timings / "member2/train.tsv", "s\n1.0\n")
    assert ", 0 stopped, " in report(TOY_PLAN)
    os.utime(tmp_path / timings / "member2/train.tsv", (1e9, 1e9))  # of an earlier start
    assert ", 1 stopped, " in report(TOY_PLAN)


def test_printed_commands_have_the_profile_of_the_last_driver():
    assert Driver().profile == "profiles/local"
    assert Driver(command="snakemake --profile profiles/slurm -n").profile == "profiles/slurm"
    assert Driver(command="snakemake --profile=a/b").profile == "a/b"
    assert Driver(command="snakemake --default-profile x").profile == "profiles/local"


def test_slurm_jobs_show_their_reason_and_what_to_type(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    driver = begin(tmp_path)
    path = tmp_path / "results/toy" / FOLDER / "jobs.json"
    write(path, json.dumps(QUEUE | {"checked": time.time()}))
    text = report(TOY_PLAN)
    assert "\nproblem: Slurm does not answer since 120 s\n" in text
    assert (
        "in the queue of Slurm:\n  population/gen1/member2/model.safetensors: Slurm job 17: "
        "pending; JobHeldAdmin; an administrator holds it; ask for: scontrol release 17; "
        "restarted 3 times" in text
    )
    assert "population/gen1/member2: evaluate: starting (Slurm job 18)" in text
    for content in ("", "[]", "null", "{", '{"checked": "x"}', '{"checked": 1e999, "jobs": 3}'):
        path.write_text(content)
        assert "Slurm" not in report(TOY_PLAN)
    write(path, json.dumps(QUEUE | {"checked": 1000.0}))  # an earlier driver's
    assert "Slurm" not in report(TOY_PLAN)
    write(path, json.dumps(QUEUE | {"checked": time.time()}))
    driver.release()
    assert "Slurm job 17" not in report(TOY_PLAN)


def test_a_run_without_its_config_yaml_has_the_config_of_its_last_driver(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Pin("results/toy", code.files(), TOY_PLAN.config, {}).write()
    assert main(["status", "results/toy"]) == 0
    total = len(list(jobs(TOY_PLAN)))
    assert capsys.readouterr().out.startswith(f"results/toy: {total} jobs, 0 done")


def test_the_folder_of_a_run_needs_no_configfile(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_config(tmp_path)
    (tmp_path / "copy").mkdir()
    (tmp_path / "results/toy").rename(tmp_path / "copy/elsewhere")
    assert main(["status", "copy/elsewhere"]) == 0
    total = len(list(jobs(TOY_PLAN)))
    assert capsys.readouterr().out.startswith(f"copy/elsewhere: {total} jobs, 0 done, 0 running")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "damaged/config.yaml", "experiments: {a: {}}\n")
    write(tmp_path / "cut/config.yaml", "experiments: {a: {")
    for name, said in {
        "absent": "absent: there is no such folder; give the path of a results/{run} folder",
        "empty": "empty: not the folder of a run, because it has no config.yaml",
        "cut/config.yaml": "cut/config.yaml: not a folder",
        "damaged": "damaged/config.yaml: not the config of a run of this version",
        "cut": "cut/config.yaml:1: not readable as YAML",
    }.items():
        assert main(["status", name]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {said}")
    with pytest.raises(SystemExit, match="2"):
        main(["status", "copy/elsewhere", "--configfile", str(TOY)])
    assert "not allowed with argument" in capsys.readouterr().err
    for seconds in ("copy/elsewhere", "0", "nan", "-3"):
        assert main(["status", f"--watch={seconds}"]) == 2
        assert "is not a number of seconds; allowed: 0.1 to 86400" in capsys.readouterr().err


def test_json_has_stable_keys(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_config(tmp_path)
    begin(tmp_path, command="snakemake")
    path = tmp_path / "results/toy" / FOLDER / "jobs.json"
    write(path, json.dumps(QUEUE | {"checked": time.time()}))
    assert main(["status", "results/toy", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    page = (ROOT / "docs/reference/status.md").read_text()
    assert set(found) == {key for key in found if f"| `{key}` |" in page}
    assert found["counts"]["waiting"] == len(list(jobs(TOY_PLAN))) - 1
    assert found["complete"] is False and found["problem"] == QUEUE["problem"]
    (job,) = [job for job in found["jobs"] if job["slurm"] and job["slurm"]["slurm"] == "17"]
    assert job["state"] == "waiting" and job["slurm"]["restarts"] == 3
    assert job["rule"] == "train_child" and job["generation"] == 1
    assert found["driver"]["alive"] and found["driver"]["command"] == "snakemake"


def test_the_time_left_follows_from_the_timings_of_finished_jobs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin(tmp_path)
    every = [work for work in jobs(TOY_PLAN) if work.kind.rule == "train_child"]
    others = [work for work in jobs(TOY_PLAN) if work.kind.rule != "train_child"]
    for work in [*others, *every[:2]]:
        write(tmp_path / work.output, "x")
    write(tmp_path / every[2].log, f"{TIME} INFO step 1\n")
    assert " left" not in report(TOY_PLAN)  # nothing is known
    for n, work in enumerate(every[:2]):
        path = work.log.replace("/logs/", "/benchmarks/").replace(".log", ".tsv")
        write(tmp_path / path, f"s\th:m:s\tmax_rss\n{3000 + 1200 * n}.5\t1:00:00\t-\n")
    left_s = (len(every) - 2.5) * 3600.5  # one runs, and has done half
    assert f"about {left_s // 3600:.0f} h" in report(TOY_PLAN)


def watching(folder, *words: str, **streams) -> subprocess.Popen:
    base = [sys.executable, "-m", "pollination", "status", "results/toy", "--watch", "0.2"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([*base, *words], cwd=folder, env=env, **streams)


def test_watch_prints_a_report_per_change_and_ends_with_the_run(tmp_path):
    save_config(tmp_path)
    every = list(jobs(TOY_PLAN))
    for work in every[1:]:
        write(tmp_path / work.output, "x")
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process, lines = watching(tmp_path, **pipe), []
    while not lines or "waiting" not in lines[-1]:
        lines.append(process.stdout.readline())
    time.sleep(1)  # nothing changes
    write(tmp_path / every[0].output, "x")
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "".join(lines + [rest]).count("\n--- 20") == 1
    assert f"{len(every)} jobs, {len(every)} done" in rest and "[######" in rest


def test_watch_refreshes_a_terminal_in_place_and_ctrl_c_ends_it(tmp_path):
    save_config(tmp_path)
    ours, theirs = pty.openpty()
    process = watching(tmp_path, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while shown.count(b"\033[H\033[J") < 3:
        shown += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(10) == 130
    assert shown.startswith(b"\033[?1049h") and b"\033[?1049l" in shown
    assert b"[......" in shown and b"Traceback" not in shown and shown.endswith(b"Stopped.\r\n")


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
