"""The preflight: what it names, and each unusable GPU refused in one line."""

import json
import logging
import types

import pytest
import torch
import yaml

from pollination.core import gpus
from pollination.models import device, preflight
from pollination.plan.config.resolve import resolve
from pollination.plan.plan import Plan
from tests.conftest import TOY

CPU, GPU = torch.device("cpu"), torch.device("cuda")
BUILDS = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


def config(**changes) -> dict:
    return resolve(yaml.safe_load(TOY.read_text()) | changes)


def job(tmp_path, wanted: str = "auto") -> types.SimpleNamespace:
    output = types.SimpleNamespace(found=str(tmp_path / "logs/preflight.json"))
    return types.SimpleNamespace(device=wanted, output=output, log=logging.getLogger("preflight"))


def a_gpu(monkeypatch, *capability: int, builds=BUILDS, gib: float = 80) -> types.SimpleNamespace:
    about = types.SimpleNamespace(
        name="the GPU", major=capability[0], minor=capability[1], total_memory=int(gib * 2**30)
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _=None: about)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _=None: about.name)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(builds))
    return about


@pytest.mark.parametrize("wanted", ["cpu", "auto"])
def test_a_machine_without_a_gpu_says_so(tmp_path, wanted, caplog):
    with caplog.at_level("INFO", "preflight"):
        preflight.preflight(job(tmp_path, wanted), config(device=wanted))
    found = json.loads((tmp_path / "logs/preflight.json").read_text())
    assert found["device"]["name"] == "CPU: no job uses a GPU"
    assert {entry["precision"] for entry in found["use"].values()} == {"fp32"}
    assert "device: name: CPU: no job uses a GPU" in caplog.messages
    first = next(key for key in found["use"] if key.startswith("founders."))
    assert found["use"][first]["compile"] == "no"
    assert any(line.startswith(f"use: {first}: precision fp32, det") for line in caplog.messages)


@pytest.mark.parametrize(
    "capability,runs",
    [((7, 0), False), ((7, 5), True), ((8, 0), True), ((8, 9), True), ((10, 3), True)]
    + [((11, 0), False), ((12, 1), True), ((13, 0), True)],
)
def test_kernels_run_on_what_they_are_built_for(capability, runs):
    """Binaries run within their major version, and intermediate code on all later GPUs."""
    assert device.runs_on(capability, BUILDS) == runs


def test_code_bound_to_a_capability_runs_there_alone():
    assert device.runs_on((9, 0), ["sm_90a"])
    assert not device.runs_on((9, 1), ["sm_90a"])


def test_torch_without_kernels_for_the_gpu_is_refused(monkeypatch):
    a_gpu(monkeypatch, 7, 0)
    with pytest.raises(
        ValueError, match=r"the GPU has capability 7.0, but torch .* sm_75, .* alone"
    ):
        device.check_kernels(GPU)
    a_gpu(monkeypatch, 9, 0)
    device.check_kernels(GPU)


def test_a_driver_that_torch_cannot_use_is_refused_with_its_reason(tmp_path, monkeypatch):
    def init():
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Go")

    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpus, "taken", lambda: True)
    said = r"nvidia-smi lists a GPU, but torch cannot use it \(The NVIDIA driver .* too old \(found"
    with pytest.raises(ValueError, match=said):
        preflight.preflight(job(tmp_path), config())
    preflight.preflight(job(tmp_path, "cpu"), config(device="cpu"))
    with pytest.raises(
        ValueError, match=r"torch finds none \(The NVIDIA driver .* 11040\)\); allow"
    ):
        device.pick_device("cuda")


def test_a_model_that_is_too_large_for_the_gpu_is_refused(tmp_path, monkeypatch):
    plan = Plan(config(), str(tmp_path))
    counts = preflight.parameters(plan)
    assert counts and all(10_000 < count < 1_000_000 for count in counts.values())
    about = a_gpu(monkeypatch, 8, 0, gib=16 * max(counts.values()) / 2**30)
    preflight.check_memory(counts, about)
    about.total_memory -= 1
    with pytest.raises(ValueError, match=r"models\.\w+: its training needs .* GiB .* the GPU has"):
        preflight.check_memory(counts, about)


def test_the_uses_follow_the_gpu(monkeypatch, tmp_path):
    plan = Plan(config(), str(tmp_path))
    for capability, expected in (((7, 0), "fp32"), ((8, 0), "bf16")):
        a_gpu(monkeypatch, *capability)
        uses = preflight.used(plan, GPU, "/usr/bin/gcc")
        assert {entry["precision"] for entry in uses.values()} == {expected}
        train = uses["founders.human.train"]
        assert train["determinism"] == "off"
        assert train["compile"] == "if steps x parameters reach 2e+11"
    uses = preflight.used(plan, GPU, None)
    assert uses["founders.human.train"]["compile"].startswith("no, because there is no C compiler")
    assert "ranks" not in uses["founders.human.train"]
    plan.config["founders"]["human"]["train"] |= {"gpus": 2, "parallel": "ddp"}
    for place, said in ((GPU, "one GPU each"), (torch.device("cpu"), "which share the CPU")):
        uses = preflight.used(plan, place, None)
        assert uses["founders.human.train"]["ranks"] == f"2 (ddp), {said}"


def test_a_precision_that_the_gpu_lacks_is_refused_before_any_training(monkeypatch, tmp_path):
    plan = Plan(
        config(evaluate={"precision": "bf16", "samples": {"max_new_tokens": 8}}), str(tmp_path)
    )
    a_gpu(monkeypatch, 7, 0)
    with pytest.raises(ValueError, match=r"evaluate\.precision: 'bf16' needs a GPU of capability"):
        preflight.used(plan, GPU, None)


def test_a_kernel_that_fails_is_reported_in_one_line(monkeypatch):
    a_gpu(monkeypatch, 9, 0)

    def fails(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available\nfor execution on the device")

    monkeypatch.setattr(torch, "randn", fails)
    with pytest.raises(ValueError, match="the GPU cannot compute in bf16 .CUDA error: no kernel"):
        preflight.tried("bf16", CPU)
