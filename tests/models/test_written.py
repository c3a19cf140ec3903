"""Attention to written slots alone. torch's kernel is computed on the CPU as torch describes it."""

import logging

import pytest
import torch

from pollination.models import written
from pollination.models.graphs import Graphs
from pollination.models.precision import cast
from pollination.models.small_copy import small_copy
from pollination.models.static_decoder import StaticDecoder
from tests.models.test_contract import config_of, prompts_of


def described(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, **options):
    """torch.nn.attention.varlen.varlen_attn, row by row, for queries at the end of their rows."""
    scale = options["scale"] or query.shape[-1] ** -0.5
    left, right = options["window_size"]
    assert options["enable_gqa"] == (query.shape[1] != key.shape[1]) and max_q == 1
    assert all(x.dtype == torch.int32 for x in (cu_seq_q, cu_seq_k, options["seqused_k"]))
    assert key.is_contiguous() and value.is_contiguous() and right == (-1 if left < 0 else 0)
    rows = []
    for row, used in enumerate(options["seqused_k"].tolist()):
        assert cu_seq_q[row] == row and 0 < used <= max_k <= cu_seq_k[row + 1] - cu_seq_k[row]
        first = int(cu_seq_k[row]) + (max(0, used - 1 - left) if left >= 0 else 0)
        seen = slice(first, int(cu_seq_k[row]) + used)
        keys, values = (
            x[seen].float().repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value)
        )
        scores = torch.einsum("hd,shd->hs", query[row].float(), keys) * scale
        rows.append(torch.einsum("hs,shd->hd", scores.softmax(-1), values))
    return torch.stack(rows).to(query.dtype)


@pytest.fixture
def kernel(monkeypatch):
    """Let the CPU have a kernel: `kernel(function)`."""

    def have(function):
        written.why_not.cache_clear()
        monkeypatch.setattr(written, "varlen_attn", function)
        monkeypatch.setattr(written, "DEVICES", ("cpu",))
        # the description reads numbers on the host
        monkeypatch.setattr(Graphs, "run", lambda self, key, step: step())

    yield have
    written.why_not.cache_clear()


@torch.inference_mode()
def logits(architecture: str) -> torch.Tensor:
    """Logits of some steps of a model in bf16."""
    model = cast(small_copy(config_of(architecture)), torch.bfloat16)
    decoder = StaticDecoder(model, prompts_of(3, 19, 1), 12)
    found = [decoder.read()]
    for step in range(12):
        found.append(decoder.step(torch.tensor([step, 2 * step, 7])))
    return torch.stack(found)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text"])
def test_steps_give_the_logits_of_masked_attention(architecture, kernel):
    """Also with shared heads of keys and with windows."""
    expected, calls = logits(architecture), []

    def counted(*args, **options):
        calls.append(options["window_size"])
        return described(*args, **options)

    kernel(counted)
    found = logits(architecture)
    assert (found - expected).square().mean().sqrt() < 0.05 * expected.std()
    windows = {(-1, -1), (7, 0)} if architecture == "gemma3_text" else {(-1, -1)}
    assert set(calls) == windows and len(calls) > 13


def test_a_kernel_that_differs_or_fails_is_not_used(kernel, caplog):
    """The log says why, once."""
    caplog.set_level(logging.INFO)
    expected = logits("gemma3_text")

    def a_token_more(*args, window_size, **options):
        left, right = window_size
        return described(*args, window_size=(left + (left >= 0), right), **options)

    def none(*_, **__):
        raise RuntimeError("no kernel for this GPU")

    for function, reason in ((a_token_more, "results differ by"), (none, "no kernel for")):
        caplog.clear()
        kernel(function)
        found = logits("gemma3_text")
        assert (found - expected).square().mean().sqrt() < 0.05 * expected.std()
        lines = [line for line in caplog.messages if "attention to written slots" in line]
        assert 1 <= len(lines) <= 2 and all(reason in line for line in lines)


def test_softcaps_and_fp32_keep_masked_attention(kernel):
    def never(*_, **__):
        raise AssertionError("called")

    kernel(never)
    logits("gemma2")  # it bounds its scores
    query, key = torch.zeros(1, 2, 1, 8), torch.zeros(1, 2, 4, 8)
    assert not written.can_read(query, key, None, None)
