"""Measure held-out perplexity: the teacher-forced loss of each sequence in nats, and a summary."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from pollination.core import resume
from pollination.core.statistics import bootstrap_mean_interval
from pollination.data.encoding import encode
from pollination.data.special import SpecialTokens
from pollination.models.contract import RAGGED, contract_of
from pollination.models.limits import context_limit, embedding_rows

LOGITS_BYTES = 2**30  # upper bound for the float32 logits of one batch
POSITIONS = 1024  # positions per call of log-softmax
SMALL_ROW = 2**14  # logits; below, a call for each row costs more than a copy of the logits
DOCUMENTS = 64  # read ahead at most


def perplexity(
    model,
    sequences: Any,
    batch_size: int,
    eos_id: int | None = None,
    bos_id: int | None = None,
) -> pd.DataFrame:
    """Return the loss of each sequence, in one row each.

    Columns: sequence (index in `sequences`), tokens (predicted), nll (nats, summed over tokens).

    Sequences are documents or blocks. Documents are an iterable of token-id arrays without eos.
    The model reads eos + ids + eos, cut at its context (including the first eos), and predicts all
    tokens but the first eos. Blocks are an object with `len()` and `blocks(indices) -> (B, T)`;
    each has T - 1 predictions. `eos_id` is for documents and defaults to the model's.

    If texts begin with `bos_id`, it replaces the first token of documents and blocks, and bos
    within a block is not scored (data/special.py).

    Logits and loss are in float32 at any precision of the weights. `batch_size` is an upper bound:
    batches are smaller if their logits would exceed LOGITS_BYTES. The model keeps its mode.
    ValueError: no sequence, a token id without an embedding, a loss that is not finite.
    """
    if hasattr(sequences, "blocks"):
        special = SpecialTokens(bos_id, -1 if eos_id is None else eos_id)
        count, lengths = len(sequences), None

        def read(rows: np.ndarray) -> np.ndarray:
            return special.blocks(np.asarray(sequences.blocks(rows)))
    else:
        special, context = SpecialTokens(bos_id, _eos(model, eos_id)), _context(model)
        documents = [special.document(ids)[:context] for ids in sequences]
        count, lengths = len(documents), np.array([len(ids) for ids in documents])

        def read(rows: np.ndarray) -> np.ndarray:
            return _pad(documents, rows)

    if count == 0:
        raise ValueError(
            "perplexity: there are no sequences to score: the split is empty, or shorter than one "
            "block; add text to the split"
        )
    tokens, nll = np.zeros(count, dtype=np.int64), np.zeros(count)
    for row, losses in _losses(model, count, lengths, read, batch_size):
        if lengths is None and bos_id is not None:
            losses = losses[special.scored(read(np.array([row]))[0])]
        tokens[row], nll[row] = len(losses), losses.sum(dtype=np.float64)
    return pd.DataFrame({"sequence": np.arange(count), "tokens": tokens, "nll": nll})


def sequence_logprobs(
    model, sequences: list[list[int]], eos_id: int | None = None, batch_size: int = 32
) -> list[np.ndarray]:
    """Return one array per sequence: the log-probability of each token given those before it.

    The model reads `eos_id`, or bos in its place, before each sequence. The unit is nats.
    ValueError: as in `perplexity`, or eos and a sequence exceed the model's context.
    """
    eos_id, context = _eos(model, eos_id), _context(model)
    rows = [np.concatenate([[eos_id], np.asarray(ids, dtype=np.int64)]) for ids in sequences]
    lengths = np.array([len(ids) for ids in rows], dtype=np.int64)
    if context is not None and len(rows) and lengths.max() > context:
        raise ValueError(
            f"perplexity: a sequence of {lengths.max()} tokens, with eos in front, exceeds the "
            f"model's context_tokens {context}; use a model with a longer context"
        )
    scored: list[np.ndarray] = [np.zeros(0)] * len(rows)
    read = partial(_pad, rows)
    for row, losses in _losses(model, len(rows), lengths, read, batch_size):
        scored[row] = -losses.astype(np.float64)
    return scored


def document_sequences(
    texts: Iterable[str],
    tokenizer,
    context_tokens: int | None = None,
    max_tokens: int | None = None,
) -> list[np.ndarray]:
    """Return the token ids of documents for `perplexity`, without eos, cut to `context_tokens`.

    Reading stops after the document that brings the predicted tokens to `max_tokens`.
    """
    stop = None if context_tokens is None else context_tokens - 1
    sequences, left = [], math.inf if max_tokens is None else max_tokens
    unread = iter(texts)
    while left > 0 and (some := list(islice(unread, DOCUMENTS))):
        for ids in encode(some, tokenizer):
            if left <= 0:
                break
            sequences.append(ids[:stop].astype(np.int64))
            left -= len(sequences[-1]) + 1
    return sequences


def _eos(model, eos_id: int | None) -> int:
    eos_id = model.config.eos_token_id if eos_id is None else eos_id
    if not isinstance(eos_id, int):
        raise ValueError(
            f"perplexity: eos_id {eos_id!r} is not one token id, which documents need; pass the "
            "tokenizer's eos_token_id"
        )
    return eos_id


def _context(model) -> int | None:
    return context_limit(model.config)


def _pad(documents: list[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Return (B, T), padded on the right with zeros, which attention and loss never see."""
    ids_BT = np.zeros((len(rows), max(len(documents[row]) for row in rows)), dtype=np.int64)
    for index, row in enumerate(rows):
        ids_BT[index, : len(documents[row])] = documents[row]
    return ids_BT


@torch.inference_mode()
def _losses(
    model,
    count: int,
    lengths: np.ndarray | None,
    read: Callable[[np.ndarray], np.ndarray],
    batch_size: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (row, losses of its predicted tokens in nats), longest rows first.

    If `lengths` is None, all rows have the length that `read` returns.
    """
    vocabulary = embedding_rows(model)
    order = np.arange(count) if lengths is None else np.argsort(-lengths, kind="stable")
    equal = not contract_of(model).allows(RAGGED)
    training, start = model.training, 0
    model.eval()
    try:
        while start < count:
            width = read(order[start : start + 1]).shape[1]
            size = max(1, min(batch_size, LOGITS_BYTES // (4 * width * vocabulary)))
            rows = order[start : start + size]
            if lengths is not None and equal:
                rows = rows[lengths[rows] == lengths[rows[0]]]
            ids_BT = read(rows).astype(np.int64)
            if ids_BT.min() < 0 or ids_BT.max() >= vocabulary:
                raise ValueError(
                    f"perplexity: token ids from {ids_BT.min()} to {ids_BT.max()}, but the model "
                    f"has {vocabulary} embeddings (allowed: 0 to {vocabulary - 1}); use the "
                    "tokenizer of the model"
                )
            counts = [(width if lengths is None else int(lengths[row])) - 1 for row in rows]
            batch = partial(_losses_of_batch, model, rows, ids_BT, counts)
            found = resume.once(model, "losses", [ids_BT, counts], batch)["losses"]
            ends = np.cumsum(counts)
            for row, count_of_row, end in zip(rows, counts, ends, strict=True):
                yield int(row), found[end - count_of_row : end].copy()
            start += len(rows)
    finally:
        model.train(training)


def _losses_of_batch(
    model, rows: np.ndarray, ids_BT: np.ndarray, counts: list[int]
) -> dict[str, np.ndarray]:
    """Return the losses of the rows one after another, `counts` of each row."""
    device_BT = torch.from_numpy(ids_BT).to(model.device)
    logits_BTV = model(input_ids=device_BT, use_cache=False).logits
    if logits_BTV[0].numel() <= SMALL_ROW:
        places = np.arange(ids_BT.shape[1]) < np.array(counts)[:, None]
        at_P = torch.from_numpy(np.flatnonzero(places)).to(model.device)
        logits_PV, next_P = logits_BTV.flatten(0, 1)[at_P].float(), device_BT.flatten()[at_P + 1]
        losses = F.cross_entropy(logits_PV, next_P, reduction="none").cpu().numpy()
    else:
        pieces = [
            F.cross_entropy(
                logits_TV[i : min(i + POSITIONS, stop)].float(),
                ids_T[i + 1 : min(i + POSITIONS, stop) + 1],
                reduction="none",
            )
            for logits_TV, ids_T, stop in zip(logits_BTV, device_BT, counts, strict=True)
            for i in range(0, stop, POSITIONS)
        ]
        losses = torch.cat(pieces).cpu().numpy() if pieces else np.zeros(0, dtype=np.float32)
    if not (finite := np.isfinite(losses)).all():
        row = np.repeat(rows, counts)[~finite][0]
        raise ValueError(
            f"perplexity: the loss of sequence {row} is not finite: the training diverged or "
            "the weights are damaged; run `pollination verify`, or lower the learning rate"
        )
    return {"losses": losses}


def summarize(frame: pd.DataFrame, seed: int = 0) -> dict[str, float | int]:
    """Return the entry of scores.json for one corpus and split.

    The frame has columns tokens, nll and, if the truth is known, truth_nll (the exact NLL of the
    same tokens under the grammar that wrote them). perplexity = exp(nll_per_token), the mean over
    tokens. perplexity_of_sequences_mean = the mean over sequences of exp(mean nll), as in study B.
    With truth_nll the entry also has entropy_per_token and excess_nats_per_token = (sum nll - sum
    truth_nll) / tokens. The excess estimates the KL divergence from the truth; its standard error
    comes from a bootstrap over sequences. ValueError: no predicted tokens, or a value that is not
    finite.
    """
    tokens, nll = frame["tokens"].to_numpy(dtype=float), frame["nll"].to_numpy(dtype=float)
    if not tokens.sum():
        raise ValueError(
            "perplexity: the sequences have no tokens to predict; add text to the split"
        )
    per_token, scored = float(nll.sum() / tokens.sum()), tokens > 0
    with np.errstate(over="ignore"):
        summary = {
            "perplexity": float(np.exp(per_token)),
            "nll_per_token": per_token,
            "perplexity_of_sequences_mean": float(np.exp(nll[scored] / tokens[scored]).mean()),
            "tokens": int(tokens.sum()),
            "sequences": len(frame),
        }
    if "truth_nll" in frame and not frame["truth_nll"].isna().any():
        truth = frame["truth_nll"].to_numpy(dtype=float)
        excess = bootstrap_mean_interval(nll - truth, seed, resamples=1000, weights=tokens)
        summary["entropy_per_token"] = float(truth.sum() / tokens.sum())
        summary["excess_nats_per_token"] = excess["mean"]
        summary["excess_nats_stderr"] = excess["stderr"]
    unfit = [key for key, value in summary.items() if not math.isfinite(value)]
    if unfit:
        raise ValueError(
            f"perplexity: {unfit[0]} is not finite (mean loss {per_token:.4g} nats per token): "
            "the training diverged; lower the learning rate"
        )
    return summary
