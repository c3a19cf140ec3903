"""The two profiles agree where they must, and every key of the Slurm profile is explained."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, TOY

LOCAL, SLURM = (
    yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text())
    for name in ("local", "slurm")
)
GPU_RULES = {
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
