"""Compiled training: what the traced graphs hold, and what happens where nothing can compile.

The graphs are torch.compile's own. A backend of these tests keeps them and runs them as they are.
"""

import functools
import logging

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from pollination.models.contract import why_masked
from pollination.models.paths import next_token_loss
from pollination.models.trainer import Trainer, compiles
from tests.models.known_answers import GROUPED
from tests.models.test_contract import config_of
from tests.models.test_loss import new_model
from tests.models.test_trainer import CPU, settings, text

SDPA = "scaled_dot_product_attention"
WINDOWS = {"mistral": GROUPED | {"sliding_window": 8}, "gemma2": GROUPED | {"sliding_window": 8}}


@pytest.fixture
def graphs(monkeypatch) -> list[torch.fx.GraphModule]:
    """The graphs that torch.compile has traced. A break of a graph fails the test."""
    found: list[torch.fx.GraphModule] = []

    def keep(graph, _examples):
        found.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(
        torch, "compile", functools.partial(torch.compile, backend=keep, fullgraph=True)
    )
    return found


def attentions(graphs) -> list[tuple[tuple, dict]]:
    """The arguments of each attention, apart from queries, keys and values."""
    nodes = [node for graph in graphs for node in graph.graph.nodes]
    return [(node.args[3:], node.kwargs) for node in nodes if SDPA in str(node.target)]


def trained(family: str, work, compiled: bool, **changes) -> tuple[list[dict], dict]:
    """Metrics and weights after three epochs of batches of 10, 10 and 4 sequences."""
    chosen = settings(batch_size=10, epochs=3, learning_rate=1e-2, compile=compiled, **changes)
    log = logging.getLogger("test")
    one = Trainer(new_model(family), text(), chosen, 7, CPU, work, "k", log)
    return one.run(), {name: p.detach() for name, p in one.names.items()}


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_attention_has_no_mask_and_the_numbers_stay_the_same(family, graphs, tmp_path):
    expected, weights = trained(family, tmp_path / "a", False)
    assert not graphs
    metrics, found = trained(family, tmp_path / "b", True)
    assert metrics == expected
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    layers = len(attentions(graphs[:1]))
    assert layers == 2
    for rest, options in attentions(graphs):
        assert not rest and options.get("attn_mask") is None and options["is_causal"] is True
    # one recompilation for the last, smaller batch: model and chunk, each at most twice
    assert len(attentions(graphs)) == 2 * layers and len(graphs) <= 4


def test_dropout_of_attention_stays(graphs, tmp_path):
    trained("gpt2", tmp_path, True, dropout=0.2)
    assert {options["dropout_p"] for _, options in attentions(graphs)} == {0.2}


@pytest.mark.parametrize("precision,shared", [(None, False), (torch.bfloat16, True)])
def test_heads_that_share_keys_take_the_kernel_that_their_precision_has(precision, shared, graphs):
    """Torch's kernels for fp32 have no shared heads, so it would hold all scores of a row."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of("qwen3"), dtype=torch.float32)
    tokens_BT = torch.from_numpy(np.random.default_rng(0).integers(0, 61, (3, 20)))
    losses = []
    for compiled in (False, True):
        with torch.autocast("cpu", precision, enabled=precision is not None):
            losses.append(next_token_loss(model, compiled)(tokens_BT).item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-6 if precision is None else 1e-2)
    assert {options["enable_gqa"] for _, options in attentions(graphs)} == {shared}


@pytest.mark.parametrize("family", WINDOWS)
def test_a_model_with_windows_keeps_its_mask(family, graphs):
    config = config_of(family, **WINDOWS[family])
    assert why_masked(config)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    tokens_BT = torch.from_numpy(np.random.default_rng(0).integers(0, 61, (3, 20)))
    losses = [next_token_loss(model, compiled)(tokens_BT).item() for compiled in (False, True)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert not any(options.get("is_causal") for _, options in attentions(graphs))


def test_an_attention_that_cannot_be_replaced_keeps_its_mask():
    assert [why_masked(config_of(name)) for name in ("llama", "qwen3", "gpt_neox")] == [None] * 3
    assert why_masked(config_of("bloom")) == "its attention cannot be replaced"


GPU = torch.device("cuda")


@pytest.mark.parametrize("auto", ["auto", None])
def test_only_a_gpu_with_enough_work_compiles_unless_told(auto):
    founder = 7_630 * 138_000_000  # study A: 1e9 tokens in steps of 128 x 1,024
    short = 200 * 125_000_000  # a child of study B takes seconds
    assert compiles(auto, founder, GPU) and not compiles(auto, short, GPU)
    assert not compiles(auto, founder, CPU)
    for device in (CPU, GPU):
        assert compiles(True, 1, device) and not compiles(False, founder, device)


def failing(monkeypatch, error: Exception, after: int):
    """Let torch.compile fail from the graph number `after` on, and run the graphs before."""
    left = [after]

    def backend(graph, _examples):
        left[0] -= 1
        if left[0] < 0:
            raise type(error)(*error.args)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))


def fell_back(caplog) -> list[str]:
    return [line for line in caplog.messages if "torch.compile failed" in line]


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_graph_that_does_not_compile_is_run_without(after, monkeypatch, tmp_path, caplog):
    expected, weights = trained("llama", tmp_path / "a", False)
    failing(monkeypatch, RuntimeError("Failed to find C compiler.\nSpecify CC"), after)
    metrics, found = trained("llama", tmp_path / "b", True)
    assert metrics == expected and all(torch.equal(found[name], weights[name]) for name in weights)
    (line,) = fell_back(caplog)
    assert "Failed to find C compiler. Specify CC" in line and "\n" not in line


def test_without_a_compiler_one_line_says_so_and_the_record_too(monkeypatch, tmp_path, caplog):
    from torch._inductor import config

    torch._dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    chosen = settings(batch_size=24, compile=True)
    log = logging.getLogger("test")
    one = Trainer(new_model("llama"), text(), chosen, 7, CPU, tmp_path, "k", log)
    with config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        one.run()
    assert one.used == {"compiled": False}
    (line,) = fell_back(caplog)
    assert "No working C++ compiler found" in line


def test_a_full_gpu_while_compiling_halves_and_compiles_again(monkeypatch, tmp_path, caplog):
    failing(monkeypatch, torch.OutOfMemoryError("CUDA out of memory."), 0)
    with pytest.raises(ValueError, match="one sequence exceeds the GPU's memory"):
        trained("llama", tmp_path, True)
    assert not fell_back(caplog)
