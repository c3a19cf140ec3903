"""Beam search is token-identical to transformers' for three families."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig

from pollination.models.beam import beam_search
from pollination.models.paths import decoder_of
from pollination.models.sampling import cut_after
from pollination.models.shared_prompt import SharedPromptDecoder
from tests.models.test_sampling import CONTEXT, EOS, FAMILIES, random_prompts, tiny_model


def theirs(model, prompt, beams, longest, least, penalty, length_penalty=1.0, early_stopping=False):
    ids = torch.tensor([prompt])
    written = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_beams=beams,
        do_sample=False,
        max_new_tokens=longest,
        min_new_tokens=least,
        repetition_penalty=penalty,
        eos_token_id=EOS,
        pad_token_id=0,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
    )
    return cut_after(written[0, len(prompt) :].tolist(), EOS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("least,longest", [(0, 20), (16, 16)])
def test_same_tokens_as_transformers(family, penalty, least, longest):
    model, prompts = tiny_model(family), random_prompts([1, 3, 9, 17, 9, 30])
    ours = beam_search(model, prompts, 5, longest, least, penalty, EOS)
    assert ours == [theirs(model, prompt, 5, longest, least, penalty) for prompt in prompts]
    assert all(len(ids) >= least for ids in ours)


@pytest.mark.parametrize("family", FAMILIES)
def test_same_tokens_up_to_the_last_position_of_the_context(family):
    model, prompts = tiny_model(family), random_prompts([CONTEXT - 8, 3, 20])
    ours = beam_search(model, prompts, 5, 8, 8, 1.0, EOS)
    assert ours == [theirs(model, prompt, 5, 8, 8, 1.0) for prompt in prompts]


def test_another_architecture_gives_the_same_tokens():
    config = GPTNeoXConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        initializer_range=0.4,
        bos_token_id=EOS,
        eos_token_id=EOS,
    )
    torch.manual_seed(0)
    model, prompts = AutoModelForCausalLM.from_config(config).eval(), random_prompts([1, 9, 4])
    assert type(decoder_of(model, prompts, 4, beams=True)) is SharedPromptDecoder
    assert beam_search(model, prompts, 4, 12, 0, 1.0, EOS) == [
        theirs(model, prompt, 4, 12, 0, 1.0) for prompt in prompts
    ]


def test_the_model_is_left_as_it_was():
    model = tiny_model("llama")
    before = model.config._attn_implementation
    beam_search(model, random_prompts([3]), 2, 4, 0, 1.0, EOS)
    assert model.config._attn_implementation == before


@pytest.mark.parametrize(
    "length_penalty,early_stopping", [(0.5, True), (2.0, "never"), (0.0, "never"), (-1.0, False)]
)
def test_same_tokens_with_other_scores_and_ends(length_penalty, early_stopping):
    model, prompts = tiny_model("llama", seed=1), random_prompts([2, 8, 5, 20], seed=2)
    ours = beam_search(model, prompts, 3, 24, 0, 1.0, EOS, length_penalty, early_stopping)
    assert ours == [
        theirs(model, prompt, 3, 24, 0, 1.0, length_penalty, early_stopping) for prompt in prompts
    ]


def test_vocabulary_hardly_larger_than_the_beams():
    model, prompts = tiny_model("gpt2", vocabulary=7), random_prompts([2, 5], vocabulary=7)
    assert beam_search(model, prompts, 3, 10, 0, 1.0, EOS) == [
        theirs(model, prompt, 3, 10, 0, 1.0) for prompt in prompts
    ]


def test_one_beam_is_greedy_and_the_context_is_a_limit():
    model, prompts = tiny_model("opt"), random_prompts([6, 3])
    assert beam_search(model, prompts, 1, 12, 0, 1.0, EOS) == [
        theirs(model, prompt, 1, 12, 0, 1.0) for prompt in prompts
    ]
    assert [
        len(ids) for ids in beam_search(model, prompts, 2, CONTEXT - 6, CONTEXT - 6, 1.0, EOS)
    ] == [CONTEXT - 6] * 2
    with pytest.raises(ValueError, match="exceed the model's context of 64"):
        beam_search(model, prompts, 2, CONTEXT - 5, 0, 1.0, EOS)


def test_a_broken_model_is_named():
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight[5] = torch.nan
    with pytest.raises(ValueError, match="non-finite logits"):
        beam_search(model, random_prompts([3]), 2, 4, 0, 1.0, EOS)
