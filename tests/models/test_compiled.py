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
from pollination.models.trainer import Trainer
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
