"""What a contract finds out about architectures that the project does not know by name."""

import logging

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from pollination.evaluation.disagreement import disagreement
from pollination.evaluation.perplexity import perplexity
from pollination.models import contract
from pollination.models.beam import beam_search
from pollination.models.contract import (
    CHUNKED,
    DECODERS,
    GENERATE,
    RAGGED,
    SHARED,
    STATIC,
    TREE,
    Unsupported,
    contract_of,
    examine,
    settle,
)
from pollination.models.paths import decoder_of
from pollination.models.sampling import Decoding, sample
from tests.models.known_answers import GROUPED, SIZE

IN_PLACE, CACHED, UNPADDED, UNCACHED = DECODERS
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [4.0] * 8,
    "original_max_position_embeddings": 16,
}
# each stands for a kind: attention alone, windows, state, state beside attention, no cache
KINDS = {
    "llama": SIZE,
    "qwen3": GROUPED,
    "gemma2": GROUPED | {"sliding_window": 8},
    "gemma3_text": GROUPED | {"sliding_window": 8, "num_hidden_layers": 6},
    "gpt_neox": SIZE,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "recurrent_gemma": SIZE | {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 8},
    "lfm2": SIZE | {"num_key_value_heads": 1, "layer_types": ["conv", "full_attention"]},
    "phi3": SIZE | {"rope_parameters": LONG_ROPE},
}
FASTEST = ("llama", "qwen3", "gemma2", "gemma3_text", "gpt_neox")


def config_of(architecture: str, **changes):
    common = {"vocab_size": 61, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    common["max_position_embeddings"] = 64
    return AutoConfig.for_model(architecture, **(common | KINDS.get(architecture, {}) | changes))


def model_of(architecture: str):
    """A model whose next token depends strongly on all tokens before."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(architecture), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
    return model


def prompts_of(*lengths: int) -> list[list[int]]:
    return [np.random.default_rng(n).integers(2, 61, n).tolist() for n in lengths]


@torch.no_grad()
def uncached(model, prompt: list[int], new_tokens: int) -> list[int]:
    """Greedy continuation by whole forward passes of the row alone, never the end of text."""
    ids = list(prompt)
    for _ in range(new_tokens):
        logits_V = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        logits_V[0] = -torch.inf
        ids.append(int(logits_V.argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("architecture", KINDS)
def test_rows_together_alone_and_without_cache_write_the_same(architecture):
    model, prompts = model_of(architecture), prompts_of(3, 7, 19, 7)
    greedy = Decoding("greedy", min_new_tokens=16, max_new_tokens=16)
    together = list(sample(model, prompts, [1, 2, 3, 4], greedy, 0, 8))
    assert together == [uncached(model, prompt, 16) for prompt in prompts]
    drawn = Decoding("nucleus", max_new_tokens=16, temperature=1.5)
    alone = [
        next(sample(model, [prompt], [seed], drawn, 0, 1)) for seed, prompt in enumerate(prompts)
    ]
    assert list(sample(model, prompts, range(4), drawn, 0, 8)) == alone
    searched = beam_search(model, prompts, 3, 12, 12, 1.0, 0)
    assert searched == [beam_search(model, [prompt], 3, 12, 12, 1.0, 0)[0] for prompt in prompts]


@pytest.mark.parametrize("architecture", FASTEST)
def test_attention_of_any_name_takes_every_fast_path(architecture):
    assert contract_of(model_of(architecture)).slower == {}


@pytest.mark.parametrize(
    "architecture,decoder,refused",
    [
        ("bloom", IN_PLACE, {SHARED, STATIC, TREE}),
        ("mamba", UNPADDED, {GENERATE, SHARED, STATIC, TREE}),
        ("recurrent_gemma", UNCACHED, {GENERATE, SHARED, STATIC, TREE}),
        ("lfm2", CACHED, {SHARED, STATIC, TREE}),
        ("phi3", UNCACHED, {GENERATE, SHARED, STATIC, TREE, RAGGED}),
    ],
)
def test_other_models_go_the_fastest_exact_way(architecture, decoder, refused):
    model = model_of(architecture)
    found = contract_of(model)
    assert type(decoder_of(model, prompts_of(3, 5), 4)) is DECODERS[decoder]
    assert refused <= set(found.slower)
    assert found.allows(CHUNKED) and found.allows(RAGGED) == (RAGGED not in refused)


def test_windows_and_all_kinds_of_layers_are_in_the_copy():
    """One layer of six sees everything. The whole window exceeds the texts of a check."""
    config = config_of(
        "gemma3_text", num_hidden_layers=26, sliding_window=512, max_position_embeddings=4096
    )
    model = contract.small_copy(config)
    assert model.config.layer_types == ["sliding_attention"] * 5 + ["full_attention"]
    assert model.config.sliding_window == 8 and config.sliding_window == 512
    assert examine(config).slower == {}


def test_an_encoder_of_images_does_not_hide_a_kind_of_layer():
    """The encoder has more layers than the text model, and all are of one kind."""
    text = GROUPED | {"num_hidden_layers": 6, "sliding_window": 512, "vocab_size": 61}
    images = SIZE | {"num_hidden_layers": 9, "image_size": 28, "patch_size": 14}
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config=images)
    kinds = contract.small_copy(config).config.text_config.layer_types
    assert kinds == ["sliding_attention"] * 5 + ["full_attention"]


def test_a_change_at_a_distant_position_is_found():
    """Llama 4 scales queries from position 8192 on, and counts padding as positions."""
    config = config_of(
        "llama4_text",
        **GROUPED | {"num_hidden_layers": 4},
        intermediate_size_mlp=48,
        num_local_experts=2,
    )
    assert config.floor_scale == 8192
    found = examine(config)
    assert not found.allows(CACHED) and not found.allows(IN_PLACE) and found.allows(UNPADDED)


@pytest.mark.parametrize("vocabulary", [2, 3])
def test_a_vocabulary_of_few_words_is_enough(vocabulary):
    assert examine(config_of("llama", **SIZE, vocab_size=vocabulary)).slower == {}


def test_a_bias_or_scale_behind_the_last_hidden_states_is_found():
    assert contract_of(model_of("gemma2")).head == contract.Head(cap=30.0)
    assert examine(config_of("cohere", **SIZE)).head == contract.Head(scale=0.0625)
    granite = examine(config_of("granite", **SIZE, logits_scaling=8.0))
    assert granite.head == contract.Head(scale=0.125) and granite.allows(CHUNKED)
    assert examine(config_of("phi", **SIZE)).slower == {}  # its head has a bias


@pytest.mark.parametrize(
    "architecture,reason",
    [
        ("bert", "logits depend on later tokens"),
        ("reformer", "does not run"),
    ],
)
def test_what_is_no_causal_language_model_is_refused_by_name(architecture, reason):
    with pytest.raises(Unsupported) as error:
        settle(config_of(architecture, **(SIZE if architecture == "bert" else {})), "models.mine")
    message = str(error.value)
    assert message.startswith(f"models.mine: architecture {architecture!r} ")
    assert reason in message and "\n" not in message


def test_the_same_network_is_accepted_once_it_is_causal():
    found = examine(config_of("bert", **SIZE, is_decoder=True))
    assert found.allows(IN_PLACE) and not found.allows(CHUNKED)  # its head has layers of its own


def test_a_contract_travels_with_the_configuration(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    config = config_of("mamba")
    settled = settle(config, "models.m")
    lines = [line for line in caplog.messages if "without keys and values in place" in line]
    assert [line.rpartition(": ")[0] for line in lines] == [
        "models.m: architecture 'mamba' without keys and values in place"
    ]
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    monkeypatch.setattr(contract, "examine", None)  # a job does not examine again
    assert contract_of(AutoModelForCausalLM.from_pretrained(tmp_path)) == settled


def test_another_version_of_transformers_examines_again(monkeypatch):
    config = config_of("llama")
    settle(config, "models.m")
    config.contract |= {"transformers": "4.0.0", "slower": {SHARED: "of old"}}
    assert contract_of(AutoModelForCausalLM.from_config(config)).slower == {}


@pytest.mark.parametrize(
    "stored",
    [
        [1],
        "fast",
        7,
        {"transformers": transformers.__version__, "head": 3},
        {"transformers": transformers.__version__, "head": {"scale": "x"}},
        {"transformers": transformers.__version__, "slower": None},
        {"transformers": transformers.__version__, "slower": dict.fromkeys(DECODERS, "no")},
        {"transformers": transformers.__version__, "kernel": "fast"},
    ],
)
def test_what_is_no_contract_is_not_believed(stored):
    config = config_of("llama")
    expected = examine(config)
    config.contract = stored
    assert contract_of(AutoModelForCausalLM.from_config(config)) == expected


def test_rotations_that_depend_on_the_longest_text_are_scored_apart():
    """LongRoPE turns short and long texts differently, so padding would change a short text."""
    model, documents = model_of("phi3"), [np.array(ids) for ids in prompts_of(4, 30, 9, 4)]
    together = perplexity(model, documents, 8, 0)["nll"].to_numpy()
    alone = [perplexity(model, [ids], 1, 0)["nll"][0] for ids in documents]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    frame, _ = disagreement([model, model_of("phi3")], documents, 8)
    apart = [disagreement([model, model], [ids], 1)[0]["entropy"][0] for ids in documents]
    np.testing.assert_allclose(frame["entropy"], apart, rtol=1e-5)
