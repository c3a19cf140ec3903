"""Determinism: strict kernels or an error in one line, and on a CPU what there always was."""

import os

import pytest
import torch
import yaml
from torch._inductor import config as inductor

from pollination.core.settings import definition, lean, with_defaults
from pollination.models.device import is_strict, set_determinism
from tests.models.test_compiled import graphs, trained  # noqa: F401
from tests.models.test_trainer import blueprint, trainer, weights  # noqa: F401

CPU, GPU = torch.device("cpu"), torch.device("cuda")
LLAMA = pytest.mark.parametrize("blueprint", ["llama"], indirect=True)


@pytest.fixture(autouse=True)
def flags(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    with inductor.patch(deterministic=False):
        yield
    torch.use_deterministic_algorithms(before, warn_only=warns)


def flags_after(determinism, device) -> tuple[bool, bool]:
    set_determinism(determinism, device)
    return torch.are_deterministic_algorithms_enabled(), is_strict()


def test_a_gpu_is_fast_and_a_cpu_as_before_unless_strict():
    assert flags_after("auto", CPU) == (True, False)
    assert flags_after("auto", GPU) == (False, False)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ  # it would take workspace from cuBLAS
    for device in (CPU, GPU):
        assert flags_after("strict", device) == (True, True)
        assert flags_after("off", device) == flags_after(False, device) == (False, False)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_compiled_code_is_deterministic_too():
    set_determinism("auto", GPU)
    assert not inductor.deterministic
    set_determinism("strict", GPU)
    assert inductor.deterministic


def test_an_environment_that_forbids_it_is_refused(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    set_determinism("auto", GPU)
    with pytest.raises(ValueError, match="'strict' needs .* which is ':0:0'; allowed: :4096:8"):
        set_determinism("strict", GPU)


def test_the_key_takes_what_yaml_makes_of_off_and_reruns_nothing():
    node = definition("train")

    def recorded(text: str) -> dict:
        return lean(with_defaults(yaml.safe_load(text), node), node)

    assert "determinism" not in recorded("{}") and "determinism" not in recorded("compile: null")
    for text, value in {"off": False, '"off"': "off", "strict": "strict"}.items():
        assert recorded(f"determinism: {text}")["determinism"] == value
        assert value in node["properties"]["determinism"]["enum"]


@LLAMA
def test_strict_on_a_cpu_gives_the_same_weights(blueprint, tmp_path):  # noqa: F811
    found = []
    for determinism in ("auto", "strict"):
        set_determinism(determinism, CPU)
        t = trainer(blueprint, tmp_path / determinism, determinism=determinism)
        found.append((t.run(), weights(t)))
    (one, before), (other, after) = found
    assert one == other and all(torch.equal(before[name], after[name]) for name in before)


@LLAMA
@pytest.mark.parametrize("determinism", ["auto", "strict"])
def test_an_operation_without_a_deterministic_kernel_is_one_line(
    determinism,
    blueprint,  # noqa: F811
    tmp_path,
):
    set_determinism(determinism, CPU)
    t = trainer(blueprint, tmp_path, determinism=determinism, batch_size=24)
    loss = t.loss

    def with_put(part):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))  # torch: not deterministic
        return loss(part)

    t.loss = with_put
    if determinism == "auto":
        with pytest.warns(UserWarning, match="put_ does not have a deterministic"):
            t.run()
        return
    with pytest.raises(ValueError) as error:
        t.run()
    assert str(error.value) == (
        "train.determinism: 'strict': put_ has no deterministic kernel on this device; allowed: "
        "auto, strict, off. Set train.determinism: off, or use another architecture"
    )


@pytest.mark.parametrize("determinism,fixed", [("auto", False), ("strict", True)])
def test_strict_code_ignores_earlier_shapes(determinism, fixed, graphs, tmp_path):  # noqa: F811
    """A resume may begin at the smaller last batch."""
    set_determinism(determinism, CPU)
    trained("llama", tmp_path, True)
    places = [node for graph in graphs for node in graph.graph.nodes if node.op == "placeholder"]
    sizes = [node for node in places if isinstance(node.meta["example_value"], torch.SymInt)]
    assert (not sizes) is fixed and len(graphs) <= 4
