"""Dropout: on in training alone, resumed bit for bit, and refused where a model has none."""

import json
import random

import pytest
import torch
from torch import nn

from pollination.core.job import Stopped
from pollination.models import checkpoint
from pollination.models.dropout import Dropout
from tests.models.test_checkpoint import make_tokenizer, spec
from tests.models.test_trainer import StopAfter, text, trainer, weights

FAMILIES = {
    "opt": {"dropout": 0.2, "attention_dropout": 0.0, "layerdrop": 0.3},
    "gpt2": {"attn_pdrop": 0.2},
    "llama": {"attention_dropout": 0.2},
}


@pytest.fixture(params=FAMILIES)
def blueprint(request, tmp_path):
    model = spec(request.param, **FAMILIES[request.param])
    checkpoint.write_blueprint(model, make_tokenizer(), tmp_path)
    return tmp_path


def equal(one: dict, other: dict) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("dropout", ["own", 0.3])
def test_a_resume_is_bit_identical_whatever_the_step_and_the_global_generator(
    blueprint, tmp_path, dropout
):
    common = {"epochs": 3, "dropout": dropout, "micro_batch_size": 3, "checkpoint": "best"}
    whole = trainer(blueprint, tmp_path / "a", validation=text(6), **common)
    expected = whole.run()
    for seed in range(3):
        torch.manual_seed(seed)
        at, work = random.Random(seed).randint(1, 17), tmp_path / f"b{seed}"
        with pytest.raises(Stopped):
            trainer(blueprint, work, stop=StopAfter(at), validation=text(6), **common).run()
        resumed = trainer(blueprint, work, validation=text(6), **common)
        assert resumed.run() == expected and equal(weights(whole), weights(resumed))
    plain = trainer(blueprint, tmp_path / "c", validation=text(6), **common | {"dropout": 0.0})
    plain.run()
    assert not equal(weights(whole), weights(plain))


def test_without_the_key_the_configuration_drops_nothing(blueprint, tmp_path):
    """As before the key existed: the weights are those of a configuration without dropout."""
    one = trainer(blueprint, tmp_path / "a")
    one.run()
    config = json.loads((blueprint / "config.json").read_text())
    none = {name: 0.0 for name in config if "drop" in name}
    assert none and any(config[name] for name in none)
    (blueprint / "config.json").write_text(json.dumps(config | none))
    other = trainer(blueprint, tmp_path / "b", dropout=0.0)
    other.run()
    assert equal(weights(one), weights(other))
    own = trainer(blueprint, tmp_path / "c", dropout="own")  # its own dropout is 0
    own.run()
    assert equal(weights(one), weights(own))


def test_evaluation_and_the_saved_configuration_know_no_dropout(blueprint, tmp_path):
    checkpoint.save_model(checkpoint.create_model(blueprint, seed=1), tmp_path / "before")
    t = trainer(blueprint, tmp_path / "w", dropout=0.3)
    state = torch.get_rng_state()
    t.run()
    assert torch.equal(state, torch.get_rng_state())
    tokens = torch.from_numpy(text().blocks(t.batch_of(0)))
    assert torch.equal(t.loss(tokens), t.loss(tokens)) and not t.model.training
    checkpoint.save_model(t.model, tmp_path / "saved")
    config = [(tmp_path / name / "config.json").read_text() for name in ("before", "saved")]
    assert config[0] == config[1]


def test_a_number_sets_every_probability_but_skips_no_layer(blueprint):
    model = checkpoint.create_model(blueprint, seed=1)
    with Dropout(model, 0.3, seed=1).on(0):
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                assert module.p == 0.3 and module.training
            for name in ("dropout", "attention_dropout"):
                assert isinstance(value := getattr(module, name, 0.3), nn.Module) or value == 0.3
            assert getattr(module, "layerdrop", 0.0) == 0.0
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} <= {0.2, 0.1}
    if model.config.model_type == "opt":
        decoder = model.model.decoder
        assert (decoder.layerdrop, decoder.dropout, model.config.layerdrop) == (0.3, 0.2, 0.3)


@pytest.mark.parametrize(
    ("architecture", "settings", "dropout"),
    [("mamba", {"hidden_size": 16, "num_hidden_layers": 1}, 0.1)],
)
def test_an_architecture_that_drops_nothing_is_refused(tmp_path, architecture, settings, dropout):
    model = spec(architecture, **settings)
    checkpoint.write_blueprint(model, make_tokenizer(), tmp_path)
    with pytest.raises(ValueError, match=rf"train.dropout: .* architecture '{architecture}'"):
        trainer(tmp_path, tmp_path / "w", dropout=dropout).run()
