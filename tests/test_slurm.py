"""The workflow through profiles/slurm on a real Slurm of four virtual nodes: same files, one GPU a model, and every accident survived."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pollination.artifacts import digest
from tests.conftest import ROOT, snakemake
from tests.slurm import Cluster, missing

CONFIG = ROOT / "config/test/slurm.yaml"
CHILDREN = [f"results/slurm/lines/gen1/member{m}/model.safetensors" for m in (0, 1)]
TARGETS = [*CHILDREN, "results/slurm/founders/human/member0/scores.json"]
LIMIT_S = 240
QUICK = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    if reason := missing():
        pytest.skip(reason)
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
    assert not cluster.overlaps


@pytest.fixture(scope="module")
def local(slurm, tmp_path_factory) -> Path:
    """The same config run without Slurm."""
    folder = tmp_path_factory.mktemp("local")
    snakemake(folder, "--", *TARGETS, configfile=CONFIG)
    return folder


def driver(folder: Path, *words: str, targets: list[str] = TARGETS) -> subprocess.Popen:
    """snakemake --profile profiles/slurm, as a user types it, in a process group of its own."""
    base = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    profile = ["--profile", str(ROOT / "profiles/slurm"), "--configfile", str(CONFIG), *QUICK]
    with open(folder / "driver.log", "a") as log:
        return subprocess.Popen([*base, *profile, *words, "--", *targets], stdout=log, stderr=log, start_new_session=True)


def ends_well(process: subprocess.Popen, folder: Path) -> None:
    assert process.wait(LIMIT_S) == 0, (folder / "driver.log").read_text()[-5000:]


def same_as(local: Path, folder: Path, paths: list[str]) -> None:
    assert {path: digest(folder / path) for path in paths} == {path: digest(local / path) for path in paths}


def test_a_run_over_four_nodes_gives_the_files_of_a_local_run(slurm, local, tmp_path):
    ends_well(driver(tmp_path), tmp_path)
    same_as(local, tmp_path, TARGETS)
    for rule in ("train_founder", "train_child", "generate_shard", "evaluate_member"):
        jobs = slurm.of(rule)
        assert jobs and all(job["TresPerJob"] == "gres:gpu:a100:1" for job in jobs), jobs
    assert not any("gpu" in job.get("TresPerJob", "") for job in slurm.of("build_microworld") + slurm.of("pack_tokens"))
