"""The model class that shares prefixes answers as HFLM does: same likeliest tokens, same
log-likelihoods.
"""

import logging

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from pollination.evaluation import harness
from pollination.evaluation.harness import HarnessModel, encode_pairs
from pollination.models import prefix_tree
from pollination.models.contract import TREE, contract_of
from pollination.models.prefix_tree import continuation_logprobs
from tests.conftest import shared

VOCABULARY, CONTEXT = 37, 48
COMMON = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
FAMILIES = {
    "llama": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "word_embed_proj_dim": 16,
    },
    "gpt_neox": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "gemma2": {  # sliding windows, and bounds of scores and logits
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "sliding_window": 8,
    },
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},  # no shared prefixes
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    """A model of each family whose next token depends strongly on all tokens before."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(request.param, **COMMON, **FAMILIES[request.param])
    ).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(8)
    return model


@pytest.fixture(scope="module")
def tokenizer():
    words = {"<eos>": 0} | {f"w{index}": index for index in range(1, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def text(ids) -> str:
    return " ".join(f"w{token}" for token in ids)


def ragged_pairs() -> list[tuple[str, str]]:
    """Examples that many questions share, questions whose options share them, options of one token
    and of many, and alone; prompts that fit the context to the token, exceed it, and are all there
    is; the same request twice; no context.
    """
    draw = np.random.default_rng(0)

    def words(count):
        return draw.integers(1, VOCABULARY, count).tolist()

    pairs = []
    for shots in (0, 9, 20, 40):
        examples = words(shots)
        for _ in range(5):
            question = examples + words(draw.integers(1, 12))
            pairs += [
                (text(question), f" {text(words(length))}")
                for length in (1, 1, 1, *draw.integers(1, 8, 2))
            ]
            pairs += [(text(question[:-1]), f" {text(question[-1:])}")]
    long = words(90)
    pairs += [
        (text(long[:length]), f" {text(long[length : length + 3])}")
        for length in (CONTEXT - 3, CONTEXT - 2, CONTEXT - 1, 60, 87)
    ]
    pairs += [
        (text(long), f" {text(words(2))}"),
        (text(long[:1]), f" {text(words(CONTEXT))}"),
        ("", text(words(4))),
        ("", "<eos> w3"),
    ]
    return pairs + pairs[:3] + [(f"{text(long[:4])}  \n", text(words(2)))]


def instances(pairs: list[tuple[str, ...]]) -> list[Instance]:
    return [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]


def peer(model, tokenizer, batch_size: int = 4) -> HFLM:
    options = {
        "max_length": CONTEXT,
        "add_bos_token": False,
        "prefix_token_id": tokenizer.eos_token_id,
    }
    return HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=batch_size,
        softmax_dtype=torch.float32,
        **options,
    )


def assert_equal(ours, theirs, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(
        [total for total, _ in ours], [total for total, _ in theirs], rtol=0, atol=tolerance
    )
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


def test_answers_are_hflms(model, tokenizer):
    requests = instances(ragged_pairs())
    lm = HarnessModel(model, tokenizer, batch_size=4)
    ours, theirs = (
        lm.loglikelihood(requests),
        peer(model, tokenizer).loglikelihood(requests, disable_tqdm=True),
    )
    assert_equal(ours, theirs)
    assert len({round(total, 3) for total, _ in theirs}) > 100 and {
        greedy for _, greedy in theirs
    } == {True, False}
    lengths = [len(tokenizer(context + rest)["input_ids"]) for context, rest in ragged_pairs()]
    cut = {
        pair for pair, length in zip(ragged_pairs(), lengths, strict=True) if length > CONTEXT + 1
    }
    assert lm.truncated == cut and 3 < len(cut) < len(requests)


@pytest.mark.parametrize("batch_tokens", [1, 7, 50, 333])
def test_where_a_pass_ends_changes_nothing(model, tokenizer, batch_tokens):
    """Prefixes that go on over passes, and sequences cut in the middle."""
    if not contract_of(model).allows(TREE):
        pytest.skip("each request is read by itself")
    pairs = encode_pairs(ragged_pairs(), tokenizer, tokenizer.eos_token_id)
    sequences = [np.array(context + rest)[-(CONTEXT + 1) : -1] for context, rest in pairs]
    targets = [np.array(rest) for _, rest in pairs]
    expected, greedy = continuation_logprobs(model, sequences, targets)
    sums, likeliest = continuation_logprobs(model, sequences, targets, batch_tokens)
    np.testing.assert_allclose(sums, expected, rtol=0, atol=2e-5)
    assert (likeliest == greedy).all()


def test_each_distinct_prefix_is_read_once(model, tokenizer):
    if not contract_of(model).allows(TREE):
        pytest.skip("each request is read by itself")
    read = []
    hook = model.get_input_embeddings().register_forward_hook(
        lambda _, inputs, __: read.append(inputs[0].numel())
    )
    scored = []
    head = model.get_output_embeddings().register_forward_hook(
        lambda _, inputs, __: scored.append(inputs[0].shape[0])
    )
    prefix, questions = [1, 2, 3, 4, 5], ([6, 7], [6, 8], [9])
    sequences = [
        np.array(prefix + question + options)
        for question in questions
        for options in ([], [1], [2, 3])
    ]
    continuation_logprobs(
        model, sequences, [sequence[-1:] for sequence in sequences], batch_tokens=4
    )
    hook.remove(), head.remove()
    # the prefix; then 6, 7, 8 and 9; then 1, and 2, 3 after each question
    assert sum(read) == 5 + 4 + 3 * 3 and max(read) == 4
    assert (
        sum(scored) == 9
    )  # a position a sequence, though each question's is a prefix of its options'


def test_equal_calls_give_equal_bits_and_leave_the_model_as_it_was(model, tokenizer):
    requests, before = instances(ragged_pairs()), model.config._attn_implementation
    model.train()
    lm = HarnessModel(model, tokenizer, batch_size=4)
    model.train()
    answers = lm.loglikelihood(requests)
    assert answers == lm.loglikelihood(requests)
    assert model.config._attn_implementation == before
    if not lm.each_by_itself:
        assert model.training
    model.eval()


def test_rolling_likelihood_of_texts_beyond_the_context(model, tokenizer):
    draw = np.random.default_rng(1)
    texts = instances(
        [(text(draw.integers(1, VOCABULARY, count)),) for count in (1, 47, 48, 49, 130)]
    )
    ours = HarnessModel(model, tokenizer, batch_size=4).loglikelihood_rolling(
        texts, disable_tqdm=True
    )
    np.testing.assert_allclose(
        ours,
        peer(model, tokenizer).loglikelihood_rolling(texts, disable_tqdm=True),
        rtol=0,
        atol=1e-4,
    )


def test_a_family_that_is_not_known_is_said_once_and_scored_by_hflm(model, tokenizer, caplog):
    with caplog.at_level(logging.WARNING, logger="pollination"):
        HarnessModel(model, tokenizer, batch_size=4).loglikelihood(instances(ragged_pairs()))
    lines = [line for line in caplog.messages if "shared prefixes" in line]
    assert len(lines) == (not contract_of(model).allows(TREE))


def test_rotations_that_depend_on_the_longest_position_are_not_shared():
    config = AutoConfig.for_model("llama", **COMMON, **FAMILIES["llama"])
    config.rope_parameters = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 16,
    }
    assert not contract_of(AutoModelForCausalLM.from_config(config)).allows(TREE)


def test_logits_stay_under_their_bound(model, tokenizer, monkeypatch):
    """Wide vocabularies go in smaller batches, with the same answers."""
    requests = instances(ragged_pairs())
    expected = HarnessModel(model, tokenizer, batch_size=16).loglikelihood(requests)
    limit = 4 * VOCABULARY * CONTEXT * 2
    monkeypatch.setattr(harness, "LOGITS_BYTES", limit)
    tight = {
        name: prefix_tree.Limits(**(vars(limits) | {"logits_bytes": limit}))
        for name, limits in prefix_tree.LIMITS.items()
    }
    monkeypatch.setattr(prefix_tree, "LIMITS", tight)
    sizes = []
    hook = model.get_output_embeddings().register_forward_hook(
        lambda _, __, logits: sizes.append(logits.numel() * 4)
    )
    lm = HarnessModel(model, tokenizer, batch_size=16)
    assert_equal(lm.loglikelihood(requests), expected)
    hook.remove()
    assert limit / 4 < max(sizes) <= limit and lm.batch_size == 16


def test_pairs_are_split_as_hflm_splits_them():
    """With a real vocabulary, whose tokens may join text across the border."""
    tokenizer = AutoTokenizer.from_pretrained(shared("models/stories15M"))
    config = AutoConfig.for_model(
        "llama",
        vocab_size=32000,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    lm = peer(AutoModelForCausalLM.from_config(config), tokenizer)
    pairs = [
        ("Once upon", " a time"),
        ("Answer: ", "B"),
        ("Answer:\n\n", " B"),
        ("be", "cause"),
        ("é  ", "à la"),
        ("1", "2"),
    ]
    assert encode_pairs(pairs, tokenizer, tokenizer.eos_token_id) == [
        lm._encode_pair(*pair) for pair in pairs
    ]


@pytest.mark.parametrize("pair", [("   ", "w1"), ("w1", "")])
def test_what_cannot_be_scored_is_named(model, tokenizer, pair):
    with pytest.raises(ValueError, match="cannot be scored"):
        HarnessModel(model, tokenizer, batch_size=4).loglikelihood(instances([pair]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gives_the_same_answers(model, tokenizer):
    requests = instances(ragged_pairs())
    expected = HarnessModel(model, tokenizer, batch_size=4).loglikelihood(requests)
    try:
        assert_equal(
            HarnessModel(model.to("cuda"), tokenizer, batch_size=4).loglikelihood(requests),
            expected,
            1e-3,
        )
    finally:
        model.to("cpu")
