"""Losses equal a direct computation for each model family, ragged documents and any batching."""

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from pollination.evaluation import perplexity as module
from pollination.evaluation.perplexity import (
    document_sequences,
    perplexity,
    sequence_logprobs,
    summarize,
)

CONTEXT, VOCABULARY, EOS = 16, 50, 7
FAMILIES = {
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=CONTEXT,
            eos_token_id=EOS,
        )
    ),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=CONTEXT,
            eos_token_id=EOS,
        )
    ),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            word_embed_proj_dim=8,
            ffn_dim=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=CONTEXT,
            eos_token_id=EOS,
            pad_token_id=1,
        )
    ),
}


def make(family: str):
    torch.manual_seed(0)
    model = FAMILIES[family]()
    with torch.no_grad():  # far from uniform, so that a wrong position or token shows
        for tensor in model.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.3)
    return model


def documents() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, VOCABULARY, size) for size in (5, 0, 40, 1, 13, 14, 15, 9)]


def direct(model, ids: list[int]) -> float:
    """The loss of one sequence by itself, token by token in double precision."""
    with torch.no_grad():
        logits = model.eval()(torch.tensor([ids])).logits[0].double()
    return -sum(float(torch.log_softmax(logits[i], -1)[ids[i + 1]]) for i in range(len(ids) - 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_documents_equal_a_direct_computation(family):
    model = make(family)
    frame = perplexity(model, iter(documents()), batch_size=3)
    framed = [([EOS] + list(ids) + [EOS])[:CONTEXT] for ids in documents()]
    assert frame["tokens"].tolist() == [len(ids) - 1 for ids in framed]
    assert frame["sequence"].tolist() == list(range(8))
    np.testing.assert_allclose(frame["nll"], [direct(model, ids) for ids in framed], rtol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_equal_a_direct_computation(family):
    class Blocks:
        ids = np.random.default_rng(1).integers(0, VOCABULARY, (5, 12)).astype(np.uint16)

        def __len__(self):
            return len(self.ids)

        def blocks(self, indices):
            return self.ids[indices]

    model = make(family)
    frame = perplexity(model, Blocks(), batch_size=2)
    assert frame["tokens"].tolist() == [11] * 5
    np.testing.assert_allclose(
        frame["nll"], [direct(model, ids.astype(int).tolist()) for ids in Blocks.ids], rtol=2e-5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_logprobs_of_each_token_sum_to_the_loss(family):
    model = make(family)
    sequences = [[3, 4, 5], [], [9], list(range(15))]
    scored = sequence_logprobs(model, sequences, EOS, batch_size=2)
    assert [len(row) for row in scored] == [3, 0, 1, 15]
    for ids, row in zip(sequences, scored, strict=True):
        assert -row.sum() == pytest.approx(direct(model, [EOS] + ids), rel=2e-5)
        if ids:
            assert -row[:1].sum() == pytest.approx(direct(model, [EOS] + ids[:1]), rel=2e-5)
    with pytest.raises(
        ValueError, match="17 tokens, with eos in front, exceeds the model's context_tokens 16"
    ):
        sequence_logprobs(model, [list(range(16))], EOS)


def test_documents_are_cut_at_what_can_be_predicted():
    letters = Tokenizer(models.WordLevel({chr(97 + n): n for n in range(26)}, unk_token="z"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="h")
    cut = document_sequences(["abc", "a" * 40], tokenizer, CONTEXT)
    assert [len(ids) for ids in cut] == [3, CONTEXT - 1] and cut[0].tolist() == [0, 1, 2]
    model = make("llama")
    whole = document_sequences(["abc", "a" * 40], tokenizer)
    pd.testing.assert_frame_equal(
        perplexity(model, cut, 2), perplexity(model, whole, 2), check_exact=True
    )


def test_batching_and_chunks_do_not_change_the_loss_and_a_rerun_is_identical(monkeypatch):
    model = make("llama").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    frame = perplexity(model, documents(), batch_size=8)
    pd.testing.assert_frame_equal(
        frame, perplexity(model, documents(), batch_size=8), check_exact=True
    )
    assert model.training and all(
        torch.equal(before[name], tensor) for name, tensor in model.state_dict().items()
    )
    monkeypatch.setattr(module, "SMALL_ROW", 0)
    pd.testing.assert_frame_equal(
        frame, perplexity(model, documents(), batch_size=8), check_exact=True
    )
    monkeypatch.setattr(module, "POSITIONS", 4)
    monkeypatch.setattr(module, "LOGITS_BYTES", 4 * CONTEXT * VOCABULARY * 2)
    sizes = []
    model.register_forward_hook(
        lambda _m, _a, options, _o: sizes.append(options["input_ids"].shape[0]), with_kwargs=True
    )
    np.testing.assert_allclose(
        perplexity(model, documents(), batch_size=8)["nll"], frame["nll"], rtol=1e-5
    )
    assert max(sizes[:2]) == 2  # the long rows go two at a time where the logits' memory is bounded


def test_bad_input_is_named(monkeypatch):
    model = make("llama")
    with pytest.raises(ValueError, match="no sequences"):
        perplexity(model, [], 4)
    with pytest.raises(ValueError, match="token ids .* to 50, but the model has 50 embeddings"):
        perplexity(model, [np.array([50])], 4)
    model.config.eos_token_id = None
    with pytest.raises(ValueError, match="eos_id"):
        perplexity(model, documents(), 4)
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    for small_row in (2**14, 0):
        monkeypatch.setattr(module, "SMALL_ROW", small_row)
        with pytest.raises(ValueError, match="the loss of sequence 2 is not finite"):
            perplexity(model, documents(), 4, eos_id=EOS)


def test_summary():
    frame = pd.DataFrame({"sequence": [0, 1], "tokens": [1, 3], "nll": [2.0, 3.0]})
    summary = summarize(frame)
    assert (
        summary["perplexity"] == pytest.approx(np.exp(5 / 4)) and summary["nll_per_token"] == 1.25
    )
    assert summary["perplexity_of_sequences_mean"] == pytest.approx((np.exp(2) + np.exp(1)) / 2)
    assert (summary["tokens"], summary["sequences"]) == (4, 2)
    assert "excess_nats_per_token" not in summarize(frame.assign(truth_nll=np.nan))


def test_excess_over_the_truth_and_its_error():
    generator = np.random.default_rng(0)
    tokens = generator.integers(5, 50, 500)
    truth = tokens * 1.5
    noise = generator.normal(0, 1, 500)
    summary = summarize(
        pd.DataFrame(
            {
                "sequence": range(500),
                "tokens": tokens,
                "nll": truth + 0.2 * tokens + noise,
                "truth_nll": truth,
            }
        )
    )
    assert summary["entropy_per_token"] == pytest.approx(1.5)
    assert abs(summary["excess_nats_per_token"] - 0.2) < 4 * summary["excess_nats_stderr"]
    assert summary["excess_nats_stderr"] == pytest.approx(np.sqrt(500) / tokens.sum(), rel=0.15)


def test_a_loss_beyond_any_perplexity_is_refused():
    with pytest.raises(ValueError, match="diverged"):
        summarize(pd.DataFrame({"sequence": [0], "tokens": [1], "nll": [1000.0]}))
