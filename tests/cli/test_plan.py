"""`pollination plan`: it counts what `snakemake -n` counts, and says why, key by key."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pollination.cli.common import parameter_counts
from pollination.cli.runs.planned import Params, other_settings, phrases
from pollination.core import artifacts
from tests.conftest import TOY, TOY_PLAN, planned, snakemake

RUN = "results/toy"
SHORTER = [{"corpus": "world", "split": "test", "max_tokens": 500}]  # instead of 600


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory) -> Path:
    """A finished run and its project. The commands read only, so all tests share it."""
    folder = tmp_path_factory.mktemp("plan") / "run"
    os.system(f"cp -a '{finished}' '{folder}'")
    return folder


def edited(folder: Path, changes: dict) -> Path:
    """Write the toy config with changes: dotted key -> value."""
    config = yaml.safe_load(TOY.read_text())
    for key, value in changes.items():
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    path = folder / "edited.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def plan(run: Path, config: Path, *words: str) -> tuple[int, str]:
    """`pollination plan` with the project's copy beside the run, as its user would type it."""
    done = subprocess.run(
        [sys.executable, "-m", "pollination", "plan", "--configfile", str(config), *words],
        cwd=run,
        env=os.environ | {"PYTHONPATH": str(run / "project")},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, done.stdout


def counted(run: Path, config: Path) -> dict[str, int]:
    jobs = planned(snakemake(run, "-n", configfile=config))
    return {rule: count for rule, count in jobs.items() if rule != "total"}


def files(run: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in run.rglob("*"))


@pytest.mark.parametrize(
    ("changes", "causes", "again"),
    [
        (
            {"founders.human.train.learning_rate": 0.02},
            {"founders.human.train.learning_rate: 0.01 -> 0.02": {"train_founder": 4}},
            {"train_founder": 4, "train_child": 10, "generate_shard": 12},
        ),
        (
            {"experiments.line.generations": 4, "figures": {"distribution_text": "world/test"}},
            {},
            {"train_founder": 0, "train_child": 0},
        ),
        (
            {
                "tasks.arithmetic": {
                    "kind": "microworld",
                    "corpus": "world",
                    "benchmark": "arithmetic",
                }
            },
            {},
            {"evaluate_member": 14, "select_parents": 3, "train_founder": 0},
        ),
        (
            {"experiments.line.population": 2, "cpu_threads": 2},
            {"cpu_threads: 1 -> 2": {"train_founder": 4}},
            {"train_founder": 4},
        ),
        (
            {"evaluate.precision": "fp32"},
            {"evaluate.precision: auto -> fp32": {"evaluate_member": 14}},
            {"evaluate_member": 14, "train_founder": 0},
        ),
        (
            {"evaluate.perplexity": SHORTER},
            {"evaluate.perplexity.0.max_tokens: 600 -> 500": {"evaluate_member": 14}},
            {"evaluate_member": 14, "train_founder": 0},
        ),
    ],
    ids=["training", "generations", "benchmark", "population", "precision", "text"],
)
def test_plan_counts_what_snakemake_counts_and_names_the_keys(
    run, tmp_path, changes, causes, again
):
    config = edited(tmp_path, changes)
    status, out = plan(run, config, "--json")
    told = json.loads(out)
    assert told["jobs"] == counted(run, config)
    found = {job["rule"]: 0 for job in told["again"]}
    for job in told["again"]:
        found[job["rule"]] += 1
    assert status == int(bool(told["again"]))
    for rule, count in again.items():
        assert found.get(rule, 0) == count, (rule, found)
    for cause, rules in causes.items():
        assert rules.items() <= told["causes"][cause].items(), told["causes"]


def test_a_param_that_a_rule_leaves_out_at_its_default_differs_too():
    now = Params("evaluate_member", {"place": "founders/human", "member": "0"}, {"seed": 0})
    record = {"params": {"seed": 0, "precision": "bf16", "gone": 1}}
    assert other_settings(record, now) == {"precision": ["bf16", "auto"]}
    assert phrases(TOY_PLAN, now, other_settings(record, now), "{}: {} -> {}") == [
        "evaluate.precision: bf16 -> auto"
    ]
    assert other_settings({"params": {"seed": 0}}, now) == {}


def test_another_device_runs_nothing_again(run, tmp_path):
    config = edited(tmp_path, {"device": "cpu"})
    before = files(run)
    status, out = plan(run, config)
    assert status == 0 and "would run again: none of" in out, out
    assert "  device: auto -> cpu" in out
    assert files(run) == before  # it reads only
    assert counted(run, config) == {"write_config": 1, "all": 1}


def test_plan_tells_hours_and_what_is_not_asked_for_any_more(run, tmp_path):
    config = edited(tmp_path, {"founders.human.train.epochs": 8})
    told = json.loads(plan(run, config, "--json")[1])
    again, new = told["gpu_hours"]["train_founder"]
    timings = [run / RUN / f"benchmarks/founders/human/member{m}/train.tsv" for m in range(4)]
    spent_s = sum(float(path.read_text().splitlines()[1].split()[0]) for path in timings)
    # twice the epochs: not more than twice the measured time, because a part of it is the start
    assert spent_s <= 3600 * again <= 2 * spent_s and new == 0 and told["measured"] >= 4
    config = edited(tmp_path, {"experiments.line.generations": 2})
    out = plan(run, config)[1]
    assert "Finished jobs that the config does not ask for any more:" in out
    assert f"  {RUN}/line/gen2/member0/run.json" in out


def test_plan_names_jobs_whose_other_settings_snakemake_does_not_see(run, tmp_path):
    path = run / RUN / "founders/human/member0/run.json"
    text, times = path.read_bytes(), path.stat()
    record = artifacts.read_json(path)
    record["params"]["training"]["train"]["learning_rate"] = 0.005
    record.pop("seal")
    path.unlink()
    artifacts.write_json(path, artifacts.seal(record))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    try:
        status, out = plan(run, edited(tmp_path, {}))
    finally:
        path.unlink()
        path.write_bytes(text)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert status == 0 and "other settings that would not run again: 1." in out, out
    assert "run.json: founders.human.train.learning_rate: 0.005 -> 0.01" in out


@pytest.mark.parametrize("word", ["toy=0", "toy=1.7T", "toy", "other=5", "toy=-3"])
def test_counts_of_parameters_may_have_a_unit(word):
    given = ["a=1_700_000", "b=1.7B", "toy=350m"]
    models = {"a": {}, "b": {}, "toy": {}}
    counts = {"a": 1_700_000, "b": 1_700_000_000, "toy": 350_000_000}
    assert parameter_counts(given, models) == counts
    with pytest.raises(ValueError, match="such as 1_700_000_000 or 1.7B; models: a, b, toy"):
        parameter_counts([word], models)
