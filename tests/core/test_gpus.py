"""Jobs share the GPUs of a machine: real processes that take, wait, fork and die."""

import logging
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from snakemake.iocontainers import InputFiles, OutputFiles, Params, ResourceList, Wildcards

from pollination.core import gpus
from pollination.core.job import Job
from tests.conftest import ROOT

LOG = logging.getLogger("test")
A, B = "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77", "GPU-8f2c1111-4a0e-99de-1b4b-7b0c9d3d5e10"
PART, OTHER = (f"MIG-{n}e1c6f1a-0000-5a5a-8d0e-3f2b1c0d9e8f" for n in "67")
TWO = f"GPU 0: NVIDIA H200 (UUID: {A})\nGPU 1: NVIDIA H200 (UUID: {B})\n"
DIVIDED = (
    f"GPU 0: NVIDIA A100-SXM4-40GB (UUID: {A})\n"
    f"  MIG 3g.20gb     Device  0: (UUID: {PART})\n"
    f"  MIG 3g.20gb     Device  1: (UUID: {OTHER})\n"
    f"GPU 1: NVIDIA A100-SXM4-40GB (UUID: {B})\n"
)
TAKE = """import logging, os, sys
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
from pollination.core import gpus
gpus.take(int(sys.argv[1]), logging.getLogger())
print("visible", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
"""
STAY = "sys.stdin.read()\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make nvidia-smi, the driver's program, list these GPUs. It is absent before."""
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", gpus.JOBS_PER_GPU):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    def lists(text: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n/bin/cat <<END\n{text}END\n")
        program.chmod(0o755)

    return lists


@pytest.fixture
def job(machine):
    """Start a process that takes GPUs of `given` and then does `then`."""
    started = []

    def start(given: str, count: int = 1, then: str = STAY, **environment: str):
        process = subprocess.Popen(
            [sys.executable, "-c", TAKE + then, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": given} | environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def gpu_of(process: subprocess.Popen) -> str:
    """Wait until the process has its GPUs."""
    for line in process.stdout:
        if line.startswith("visible"):
            return line.split()[1]
    raise AssertionError("the process ended without a GPU")


def names(label: str, count: int) -> list[str]:
    """Names of GPUs that no other test uses at this moment."""
    return [f"GPU-{label}-{os.getpid()}-{n}" for n in range(count)]


def test_the_driver_lists_gpus_and_their_parts():
    assert gpus.listed(TWO) == [[A], [B]]
    assert gpus.listed(DIVIDED) == [[A, PART, OTHER], [B]]
    assert gpus.listed("No devices were found\n") == []


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ("0,1", [PART, B]),  # CUDA takes the first part of a divided GPU
        (" 1 , 0 ", [B, PART]),
        (B, [B]),
        ("GPU-8f2c", [B]),
        (B.lower(), [B]),
        (f"{OTHER},{PART}", [OTHER, PART]),
        (A, [PART]),
        ("1,-1,0", [B]),
        (f"1,{B},GPU-8f2c", [B]),
        ("", []),
        ("-1", []),
    ],
)
def test_each_spelling_of_a_gpu_means_one_key(given, keys):
    found = gpus.named(given, gpus.listed(DIVIDED))
    assert [gpu.key for gpu in found] == [key.lower() for key in keys]
    assert [gpu.name for gpu in found] == [n.strip() for n in given.split(",")][: len(keys)]


@pytest.mark.parametrize("given", ["2", "0,9", "GPU-77", "GPU-", "all", "0;1"])
def test_a_gpu_that_is_not_there_is_refused(given):
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES: .*indices below 2.*unset"):
        gpus.named(given, gpus.listed(TWO))


@pytest.mark.parametrize("given", ["", "-1", "NoDevFiles", " "])
def test_no_gpu_means_no_slot_and_no_change(machine, monkeypatch, given):
    machine(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    gpus.take(1, LOG)
    assert gpus.slots() == 0 and os.environ["CUDA_VISIBLE_DEVICES"] == given


def test_a_machine_without_the_driver_is_as_before(machine, monkeypatch):
    gpus.take(1, LOG)
    assert gpus.slots() == 0 and "CUDA_VISIBLE_DEVICES" not in os.environ
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # a container may lack nvidia-smi
    assert gpus.slots() == 1


def test_slots_are_the_gpus_of_the_user_times_the_jobs_of_each(machine, monkeypatch, capsys):
    machine(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"1,{A}")
    assert gpus.slots() == 2
    monkeypatch.setenv(gpus.JOBS_PER_GPU, "3")
    assert gpus.slots() == 6
    for wrong in ("0", "-1", "two", "1.5", "", "1000"):
        monkeypatch.setenv(gpus.JOBS_PER_GPU, wrong)
        with pytest.raises(SystemExit, match=f"{gpus.JOBS_PER_GPU}: '{wrong}'.*1 to 64"):
            gpus.slots()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    with pytest.raises(SystemExit, match="error: CUDA_VISIBLE_DEVICES: '5'"):
        gpus.slots()


def test_two_jobs_get_two_gpus_and_the_third_waits_for_a_death(job):
    given = names("death", 2)
    first, second = job(",".join(given)), job(",".join(given))
    held = {gpu_of(first): first, gpu_of(second): second}
    assert held.keys() == set(given)
    third = job(",".join(given))
    told = third.stdout.readline()
    assert told.startswith("waiting for 1 of 2 GPUs (")
    for name, process in held.items():  # the message names who has what
        assert f"{name}: process {process.pid}" in told
    held[given[1]].send_signal(signal.SIGKILL)
    assert gpu_of(third) == given[1]


def test_another_spelling_is_the_same_gpu(job, machine):
    """Two drivers, one with an index and one with a UUID."""
    own = [f"GPU-{os.getpid()}-{n}" for n in "ab"]
    machine("".join(f"GPU {n}: H200 (UUID: {uuid})\n" for n, uuid in enumerate(own)))
    first = job("1")
    assert gpu_of(first) == "1"
    second = job(own[1])
    assert f"{own[1]}: process {first.pid}" in second.stdout.readline()
    first.kill()
    assert gpu_of(second) == own[1]


def test_a_forked_process_does_not_keep_the_gpu_of_its_dead_parent(job):
    (given,) = names("fork", 1)
    fork = "if os.fork(): sys.stdin.read()\nprint('child', os.getpid(), flush=True)\n"
    first = job(given, then=fork + "import time; time.sleep(60)\n")
    assert gpu_of(first) == given
    child = int(first.stdout.readline().split()[1])
    try:
        first.kill()
        first.wait(10)
        os.kill(child, 0)  # it lives
        assert gpu_of(job(given)) == given
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_job_of_two_gpus_takes_both_or_none(job):
    given = names("both", 3)
    one = job(",".join(given[:1]))
    assert gpu_of(one) == given[0]
    pair = job(",".join(given), 2)
    assert gpu_of(pair) == ",".join(given[1:])
    waiting = job(",".join(given), 2)
    assert waiting.stdout.readline().startswith("waiting for 2 of 3 GPUs")
    one.kill()
    assert gpu_of(job(given[0])) == given[0]  # one free GPU is not held by the waiting job
    pair.kill()
    assert gpu_of(waiting) == ",".join(given[1:])


def test_more_gpus_than_there_are_is_refused(job):
    few = job(",".join(names("few", 2)), 3, then="")
    assert few.wait(60) == 1 and "ended" not in few.stdout.read()


def test_jobs_share_a_gpu_if_the_user_says_so_and_fill_the_gpus_evenly(job):
    given = names("share", 2)
    two = {gpus.JOBS_PER_GPU: "2"}
    got = [gpu_of(job(",".join(given), **two)) for _ in range(4)]
    assert sorted(got[:2]) == given and sorted(got) == sorted(given * 2)
    assert job(",".join(given), **two).stdout.readline().startswith("waiting for 1 of 2")


def test_a_gpu_that_slurm_gave_is_used_and_the_other_user_named(job):
    (given,) = names("slurm", 1)
    first = job(given)
    assert gpu_of(first) == given
    second = job(given, SLURM_JOB_ID="7")
    told = second.stdout.readline()
    assert told == (
        f"other jobs use the GPUs that Slurm gave to this job too ({given}: process {first.pid})\n"
    )
    assert gpu_of(second) == given


def test_a_whole_node_of_slurm_is_shared_like_a_machine(job):
    given, slurm = names("node", 2), {"SLURM_JOB_ID": "7"}
    assert {gpu_of(job(",".join(given), **slurm)) for _ in given} == set(given)
    assert job(",".join(given), **slurm).stdout.readline().startswith("waiting for 1 of 2")


def test_cuda_must_compute_on_the_gpu_that_the_job_holds(job):
    """CUDA may count in another order than nvidia-smi."""
    held, other, free = names("order", 3)
    assert gpu_of(job(other)) == other
    ask = "try:\n    gpus.confirm([{}], logging.getLogger())\n"
    ask += "except ValueError as error:\n    print(error)\nprint('asked', flush=True)\n"

    def answer(uuid: str) -> str:
        process = job(held, then=ask.format(repr(uuid.removeprefix("GPU-"))))
        text = process.communicate(timeout=60)[0]
        return text.partition("visible")[2].partition("\n")[2]

    assert answer(held) == "asked\n"
    assert re.search("would share GPU-.*CUDA_DEVICE_ORDER=PCI_BUS_ID", answer(other))
    assert "holds two GPUs" in answer(free)


@pytest.mark.parametrize(
    ("device", "asked", "takes"),
    [("auto", 1, True), ("cuda", 1, True), ("cpu", 1, False)] + [("auto", 0, False)],
)
def test_a_job_takes_a_gpu_before_its_libraries_start(
    tmp_path, machine, monkeypatch, device, asked, takes
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    given = ",".join(names(f"job{device}{asked}", 2))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    parts = {
        "input": InputFiles(),
        "output": OutputFiles(),
        "params": Params(fromdict={}),
        "wildcards": Wildcards(fromdict={}),
        "log": [],
        "resources": ResourceList(fromdict={"gpu": asked}),
    }
    for _ in range(2):  # the second job of the process keeps its GPU
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        with Job(SimpleNamespace(rule="r", threads=1, config={"device": device}, **parts)):
            seen = os.environ["CUDA_VISIBLE_DEVICES"]
        assert seen == (given.split(",")[0] if takes else given)
    gpus._close_in_child()
    gpus._keys.clear()
    gpus._names.clear()
