"""The two profiles agree where they must, and every key of the Slurm profile is explained."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from yte import process_yaml

from pollination.plan.config.resolve import resolve
from pollination.plan.jobs import jobs
from pollination.plan.plan import Plan
from tests.conftest import ROOT, TOY

LOCAL, SLURM = (
    yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text())
    for name in ("local", "slurm")
)
GPU_RULES = {
    "preflight",
    "train_founder",
    "train_child",
    "generate_shard",
    "evaluate_member",
    "measure_disagreement",
    "measure_quality",
    "embed_samples",
}


def test_what_runs_again_is_the_same_on_both():
    for key in ("rerun-triggers", "max-checksum-file-size", "rerun-incomplete", "keep-going"):
        assert LOCAL[key] == SLURM[key]


def test_the_rules_that_ask_for_a_gpu_name_its_type_and_no_other_does():
    rules = "".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk"))).split(
        "\nrule "
    )
    assert {rule.split(":")[0] for rule in rules if " gpu=" in rule} == GPU_RULES
    assert {
        rule for rule, sizes in SLURM["set-resources"].items() if sizes["gpu_model"] == "a100"
    } == GPU_RULES
    assert (ROOT / "profiles/slurm/config.yaml").read_text().count("a100\n") == 1  # named once
    assert not {"gpu", "gpu_model", "gres"} & set(SLURM["default-resources"])


def test_every_key_stands_under_a_comment():
    lines = (ROOT / "profiles/slurm/config.yaml").read_text().splitlines()
    keys = [n for n, line in enumerate(lines) if line and not line.startswith((" ", "#"))]
    bare = [
        lines[n]
        for n in keys
        if not lines[n - 1].startswith("#")
        and n + 1 < len(lines)
        and not lines[n + 1].lstrip().startswith("#")
    ]
    same_as_local = [f"{key}:" for key in LOCAL]
    assert not [line for line in bare if not line.startswith(tuple(same_as_local))]


JOBS = """rule all:
    input: expand("done{n}", n=range(6))
rule job:
    output: "done{n}"
    resources: gpu=1
    shell: "mkdir -p now/{wildcards.n}; sleep 1; ls now | wc -l > {output}; rmdir now/{wildcards.n}"
"""


def at_once(folder: Path, **environment: str) -> int:
    """The most GPU jobs that ran at once, of six."""
    folder.mkdir()
    (folder / "Snakefile").write_text(JOBS)
    profile = ["--profile", str(ROOT / "profiles/local"), "--cores", "6"]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *profile],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return max(int(path.read_text()) for path in folder.glob("done*"))


def test_the_local_profile_starts_one_job_for_each_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    driver = tmp_path / "nvidia-smi"
    driver.write_text(
        "#!/bin/sh\n" + "".join(f"echo 'GPU {n}: H200 (UUID: GPU-{n})'\n" for n in "01")
    )
    driver.chmod(0o755)
    assert at_once(tmp_path / "two", CUDA_VISIBLE_DEVICES="1,0") == 2
    assert at_once(tmp_path / "none", CUDA_VISIBLE_DEVICES="") > 2


LIMIT = """
import sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.resources import Resources
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings
with SnakemakeApi(OutputSettings()) as api:
    given = Resources.parse(["gpu=2"], allow_expressions=False)
    settings = ResourceSettings(cores=1, nodes=eval(sys.argv[3]), resources=given)
    config = ConfigSettings(configfiles=[Path(sys.argv[2])])
    calls = api.workflow(settings, config_settings=config, snakefile=Path(sys.argv[1]))
    workflow = calls._get_workflow()
    workflow.include(calls.snakefile)
    print("limit", workflow.global_resources["gpu"].value > 1_000_000)
"""


@pytest.mark.parametrize(
    ("device", "nodes", "lifted"),
    [("cpu", "None", True), ("auto", "None", False), ("cpu", "100", False)],
)
def test_jobs_on_the_cpu_do_not_wait_for_a_gpu(tmp_path, device, nodes, lifted):
    """On a cluster, the number of GPUs is the user's own limit."""
    config = tmp_path / "toy.yaml"
    config.write_text(TOY.read_text() + f"\ndevice: {device}\n")
    done = subprocess.run(
        [sys.executable, "-c", LIMIT, str(ROOT / "Snakefile"), str(config), nodes],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert f"limit {lifted}" in done.stdout, done.stdout + done.stderr


NETWORK = {
    "stage_corpus",
    "stage_model",
    "prepare_model",
    "stage_task",
    "stage_encoder",
    "stage_stopwords",
    "collect_outputs",
}
RULES = "".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))


def test_exactly_the_rules_that_use_the_network_follow_the_key_downloads():
    rules = {rule.split(":")[0]: rule for rule in RULES.split("\nrule ")[1:]}
    online = {
        name
        for name, rule in rules.items()
        for script in re.findall(r'"\.\./workflow/scripts/(\w+\.py)"', rule)
        if "online=" in (ROOT / "workflow/scripts" / script).read_text()
    }
    following = {name for name, rule in rules.items() if "localrule: downloads_are_local" in rule}
    assert online == following == NETWORK


def submitted(folder: Path, config: Path, profile: str) -> list[dict]:
    """What a run would submit, as tests/workflow/submissions.py prints it."""
    words = ["--snakefile", ROOT / "Snakefile", "--directory", folder, "--configfile", config]
    done = subprocess.run(
        [sys.executable, "-m", "tests.workflow.submissions", "--profile", ROOT / profile, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_all_jobs_of_a_round_are_one_slurm_job_and_downloads_are_jobs_if_asked(tmp_path):
    config = tmp_path / "eco.yaml"
    config.write_text((ROOT / "config/test/ecosystem.yaml").read_text() + "\ndownloads: cluster\n")
    found = submitted(tmp_path / "run", config, "profiles/slurm-rounds")
    groups = {one["group"]: one for one in found if one["group"]}
    singles = [rule for one in found if not one["group"] for rule in one["jobs"]]
    assert len(groups) == len([one for one in found if one["group"]])  # none is in two pieces
    assert not GPU_RULES & set(singles) and {"prepare_model", "stage_model"} <= set(singles)
    plan = Plan(resolve(yaml.safe_load(config.read_text())), "results/eco")
    assert {name: one["jobs"] for name, one in groups.items()} == rounds(plan)
    last = {"train_child": 2, "evaluate_member": 2, "measure_quality": 2, "measure_disagreement": 1}
    assert groups["round.families/gen2"]["jobs"] == last
    asks = {"gpu": 1, "gpu_model": "a100", "mem_mb": 32000, "runtime": 70, "_cores": 1}
    assert groups["round.families/gen2"]["asks"] == asks  # one job of 10 minutes after another
    for one in groups.values():
        assert one["asks"].get("gpu", 1) == 1 and one["asks"]["mem_mb"] <= 64000, one
        assert one["asks"]["runtime"] <= 10 * sum(one["jobs"].values())


def rounds(plan: Plan) -> dict[str, Counter]:
    """The rounds of a plan, and the jobs of each, by the paths of their outputs."""
    profile = process_yaml((ROOT / "profiles/slurm-rounds/config.yaml").read_text())
    found: dict[str, Counter] = {}
    for work in jobs(plan):
        folder, name, *_ = work.output.removeprefix(f"{plan.results}/").split("/")
        if work.kind.rule in profile["groups"]:
            place = f"{folder.replace('segments', 'founders')}/{name}"
            found.setdefault(f"round.{place}", Counter())[work.kind.rule] += 1
    return found


def test_the_number_of_slurm_jobs_of_study_b_is_that_of_its_plan():
    config = ROOT / "config/paper/epistemic_diversity.yaml"
    plan = Plan(resolve(yaml.safe_load(config.read_text())), "results/b")
    found, every = rounds(plan), Counter(work.kind.rule for work in jobs(plan))
    grouped = sum(map(Counter.total, found.values()))
    rest = every.total() - grouped - sum(every[rule] for rule in NETWORK)
    text = " ".join((ROOT / "profiles/slurm/README.md").read_text().split())
    assert f"The full study B has {every.total():,} jobs" in text
    assert f"needs {len(found):,} Slurm jobs for its rounds, and {rest} for the rest" in text
    largest = max(found.values(), key=Counter.total)
    cpu = largest.pop("deal_pool")
    assert f"A round of {cpu} models has {largest.total()} jobs on the GPU and {cpu} on" in text
    # Jobs on the GPU take turns; of the others, eight of 8,000 MB fit into 64,000 MB.
    assert f"{10 * (largest.total() + cpu // 8)} minutes" in text


def test_downloads_are_local_rules_and_members_jobs_of_their_own_by_default(tmp_path):
    found = submitted(tmp_path, ROOT / "config/test/ecosystem.yaml", "profiles/slurm")
    assert not [one for one in found if one["group"] or NETWORK & set(one["jobs"])]
    assert sum("train_child" in one["jobs"] for one in found) > 10


def copied(folder: Path, **values: str) -> str:
    """The Slurm profile with other values of its definitions."""
    profile = folder / "slurm"
    shutil.copytree(ROOT / "profiles/slurm", profile)
    text = (profile / "config.yaml").read_text()
    for name, value in values.items():
        text = re.sub(rf"- {name} = \d+\n", f"- {name} = {value}\n", text)
    (profile / "config.yaml").write_text(text)
    return str(profile)


def with_two_gpus(folder: Path) -> Path:
    """A config whose trainings use two GPUs each."""
    raw = yaml.safe_load(TOY.read_text())
    for block in (*raw["founders"].values(), raw["defaults"]):
        block["train"] = block.get("train", {}) | {"gpus": 2}
    (folder / "two.yaml").write_text(yaml.safe_dump(raw))
    return folder / "two.yaml"


def test_one_slurm_job_scores_as_many_members_as_the_profile_says(tmp_path):
    profile = copied(tmp_path, members_per_job="3")
    found = submitted(tmp_path / "run", with_two_gpus(tmp_path), profile)
    groups = [one for one in found if one["group"]]
    assert all(set(one["jobs"]) == {"evaluate_member"} for one in groups)
    sizes = Counter((one["group"], one["jobs"]["evaluate_member"]) for one in groups)
    # four members of a generation: three and one
    for name in ("founders/human", "population/gen1", "population/gen2"):
        assert sizes[f"score.{name}", 3] == sizes[f"score.{name}", 1] == 1, sizes
    asks = {"gpu": 1, "gpu_model": "a100", "mem_mb": 16000, "runtime": 45, "_cores": 1}
    assert next(one["asks"] for one in groups if sum(one["jobs"].values()) == 3) == asks
    trainings = [one for one in found if {"train_founder", "train_child"} & set(one["jobs"])]
    assert {one["asks"]["gpu"] for one in trainings} == {2}


def test_no_limit_takes_gpus_from_a_training_in_a_round():
    """Snakemake lowers each job's request to a limit, also if the limit is `local`."""
    profile = process_yaml((ROOT / "profiles/slurm-rounds/config.yaml").read_text())
    assert profile["resources"] == {"turn": 1, "mem_mb": 64000}
    sizes = profile["set-resources"]
    turns = {rule for rule in profile["groups"] if sizes[rule].get("turn")}
    assert turns == GPU_RULES & profile["groups"].keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [("members_per_job", "0"), ("members_per_job", "2.5"), ("minutes_per_member", "-1")],
)
def test_a_wrong_number_in_the_profile_is_named(tmp_path, name, value):
    profile = Path(copied(tmp_path, **{name: value}), "config.yaml")
    with pytest.raises(Exception, match=f"{name}: {value} is no whole number above 0; correct"):
        process_yaml(profile.read_text())
