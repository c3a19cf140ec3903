"""The chunked loss: loss curves, weights and gradients equal those of transformers' own loss."""

import logging

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pollination.models import loss
from pollination.models.contract import CHUNKED as IN_CHUNKS
from pollination.models.contract import contract_of
from pollination.models.paths import next_token_loss
from pollination.models.trainer import Trainer
from tests.models.test_checkpoint import SETTINGS
from tests.models.test_trainer import CPU, settings, text

FAMILIES = SETTINGS | {
    "opt, projected": SETTINGS["opt"] | {"word_embed_proj_dim": 8, "do_layer_norm_before": False},
    "gpt2, untied": SETTINGS["gpt2"] | {"tie_word_embeddings": False},
    "gemma2": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 8,
    }
    | {"num_key_value_heads": 2, "final_logit_softcapping": 2.0},
}
FAMILIES["phi"] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
CHUNKED = list(FAMILIES)
FAMILIES["bert"] = FAMILIES["phi"] | {"is_decoder": True}  # its head has layers of its own


def new_model(family: str):
    special = {
        "vocab_size": 13,
        "max_position_embeddings": 12,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": None,
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(family.split(",")[0], **special, **FAMILIES[family])
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.fixture
def chunks_of_five(monkeypatch):
    monkeypatch.setattr(loss, "LOGITS_BYTES", {"cpu": 4 * 13 * 5})


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_curve_and_weights_are_those_of_a_plain_loop(family, chunks_of_five, tmp_path):
    chosen = settings(
        epochs=3, learning_rate=1e-2, epsilon=1e-4
    )  # a smaller value turns rounding errors of a zero gradient into steps
    ours = Trainer(
        new_model(family), text(), chosen, 7, CPU, tmp_path, "k", logging.getLogger("test")
    )
    curve = [row["loss"] for row in ours.run()]
    model = new_model(family)
    decayed, other = (
        [p for p in model.parameters() if (p.dim() >= 2) == wanted] for wanted in (True, False)
    )
    groups = [
        {"params": decayed, "weight_decay": chosen["weight_decay"]},
        {"params": other, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=tuple(chosen["betas"]), eps=chosen["epsilon"])
    expected = []
    for step in range(ours.steps):
        tokens_BT = torch.from_numpy(text().blocks(ours.batch_of(step)))
        loss = model(input_ids=tokens_BT, labels=tokens_BT).loss
        for group in optimizer.param_groups:
            group["lr"] = next(
                row["learning_rate"] for row in ours.state.metrics if row["step"] == step + 1
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), chosen["max_grad_norm"])
        optimizer.step()
        expected.append(loss.item())
    assert expected[-1] < expected[0] - 0.5
    assert curve == pytest.approx(expected, abs=1e-5)
    for name, weights in model.named_parameters():
        torch.testing.assert_close(ours.names[name], weights, atol=2e-5, rtol=0, msg=name)


def gradients(family: str, chunked: bool, precision=None) -> tuple[float, torch.Tensor]:
    """Return (loss, all gradients of three times the loss) of a model far from uniform."""
    model, tokens_BT = new_model(family), torch.from_numpy(text().blocks(np.arange(8)))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(50)
    with torch.autocast("cpu", precision, enabled=precision is not None):
        loss = (
            next_token_loss(model)(tokens_BT)
            if chunked
            else model(input_ids=tokens_BT, labels=tokens_BT).loss
        )
    (3 * loss).backward()
    assert loss.dtype == torch.float32
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("family", CHUNKED)
def test_gradients_are_those_of_whole_logits(family, chunks_of_five):
    (loss, found), (expected_loss, expected) = gradients(family, True), gradients(family, False)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("family", CHUNKED)
def test_in_bfloat16_gradients_are_as_near_as_those_of_whole_logits(family, chunks_of_five):
    exact_loss, exact = gradients(family, False)
    (loss, found), (_, peer) = (
        gradients(family, True, torch.bfloat16),
        gradients(family, False, torch.bfloat16),
    )
    assert loss == pytest.approx(exact_loss, rel=2e-2)
    assert 0 < (found - exact).norm() < 1.25 * (peer - exact).norm() < 0.1 * exact.norm()


def test_without_gradients_the_loss_is_the_same():
    tokens_BT, model = torch.from_numpy(text().blocks(np.arange(8))), new_model("llama")
    with torch.no_grad():
        alone = next_token_loss(model)(tokens_BT)
    assert not alone.requires_grad and torch.equal(
        alone, next_token_loss(model)(tokens_BT).detach()
    )


def test_a_token_that_is_all_but_impossible_has_a_finite_loss(chunks_of_five):
    model = new_model("gpt2, untied")
    with torch.no_grad():
        model.lm_head.weight.mul_(1e5)  # probabilities far below the smallest float
    tokens_BT = torch.from_numpy(text().blocks(np.arange(8)))
    loss = next_token_loss(model)(tokens_BT)
    assert 1e3 < loss < torch.inf
    torch.testing.assert_close(loss, model(input_ids=tokens_BT, labels=tokens_BT).loss)


def test_other_architectures_take_their_logits_whole_and_one_line_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for family in FAMILIES:
        assert contract_of(new_model(family)).allows(IN_CHUNKS) == (family in CHUNKED)
    Trainer(
        new_model("bert"),
        text(),
        settings(epochs=1),
        7,
        CPU,
        tmp_path,
        "k",
        logging.getLogger("test"),
    ).run()
    assert sum("the loss holds all logits at once" in message for message in caplog.messages) == 1
