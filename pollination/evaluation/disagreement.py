"""Measure how much models disagree: Jensen-Shannon divergence (JS) of next-token predictions.

All models read the same text. With equal weights, JS = H(mean of the M distributions) - mean of
their M entropies (Lin 1991), in nats. JS is the information that a token gives about its author.
exp(JS), between 1 and M, is the effective number of different models: the Hill-Shannon diversity
(study B, equation 1), applied to the predictions of the models instead of their configurations.

Shapes: M models, B sequences, T tokens, N predicted positions, V vocabulary.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence

from pollination.core import artifacts, resume
from pollination.core.job import Job
from pollination.data.corpora import read_documents
from pollination.data.special import BOS_KEY, SpecialTokens, special_tokens
from pollination.data.tokens import TokenBlocks
from pollination.evaluation.perplexity import document_sequences
from pollination.models import checkpoint
from pollination.models.contract import RAGGED, contract_of
from pollination.models.inference import begin
from pollination.models.limits import context_limit, embedding_rows, ids_without_token

LOGITS_BYTES = 2**31  # limit for the logits of a micro-batch, which has at least one sequence
CHUNK_BYTES = 2**28  # limit for the probabilities that are compared at once
COLUMNS = ("sequence", "tokens", "js", "pairwise", "entropy")


@torch.inference_mode()
def disagreement(
    members: list,
    rows: list[np.ndarray],
    batch_size: int,
    tokens: torch.Tensor | None = None,
    special: SpecialTokens | None = None,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Compare models that share a tokenizer on every token of `rows` except the first of each row.

    Tokens that `special` does not score are left out. Return a frame and JS_MM, the mean over all
    tokens for each pair of models. The frame has one row per sequence: sequence, tokens (compared),
    js (of all members), pairwise (mean JS over pairs), entropy (mean over members). The last three
    are means over tokens in nats.

    The compared distributions are those of the ids `tokens` (None: of all rows of the embedding),
    scaled to a sum of 1, because the models never write the others.
    ValueError: fewer than two members, no tokens, a prediction that is not finite.
    """
    scored = [
        np.ones(len(row) - 1, bool) if special is None else special.scored(row) for row in rows
    ]
    size, counts = len(members), np.array([row.sum() for row in scored], dtype=np.int64)
    if size < 2 or not counts.sum():
        raise ValueError(
            f"disagreement: {size} models and {counts.sum()} tokens to predict; it needs at least "
            "two models and one token"
        )
    sums_B, pairs_MM = np.zeros((len(rows), 3)), np.zeros((size, size))
    bytes_per_token = size * max(map(embedding_rows, members)) * 4
    ragged = all(contract_of(model).allows(RAGGED) for model in members)
    for indices in _micro_batches(counts, batch_size, bytes_per_token, ragged):
        chosen, asked = [rows[i] for i in indices], [scored[i] for i in indices]
        batch = partial(_compare, members, chosen, asked, tokens)
        found = resume.once(members[0], "disagreement", [*chosen, *asked], batch)
        for sum_MM in found["pairs"]:  # in the order in which they were computed
            pairs_MM += sum_MM
        np.add.at(sums_B, np.repeat(indices, counts[indices]), found["values"])
    used = np.flatnonzero(counts)
    frame = pd.DataFrame(sums_B[used] / counts[used, None], columns=list(COLUMNS[2:]))
    frame.insert(0, "tokens", counts[used])
    frame.insert(0, "sequence", used)
    return frame, pairs_MM / counts.sum()


def _compare(
    members: list, rows: list[np.ndarray], scored: list[np.ndarray], tokens: torch.Tensor | None
) -> dict[str, np.ndarray]:
    """Return js, pairwise and entropy of each token (N, 3), and the sums of pairs of each chunk."""
    size = len(members)
    ids_BT = pad_sequence(
        [torch.from_numpy(row.astype(np.int64)) for row in rows], batch_first=True
    )
    asked = pad_sequence([torch.from_numpy(row) for row in scored], batch_first=True)
    logits = [
        model(input_ids=ids_BT.to(model.device), use_cache=False).logits[:, :-1][
            asked.to(model.device)
        ]
        for model in members
    ]
    step = max(1, CHUNK_BYTES // (4 * size * logits[0].shape[1]))
    values, sums = [], []
    for start in range(0, len(logits[0]), step):
        chunks = [logits_NV[start : start + step] for logits_NV in logits]
        if tokens is not None:
            chunks = [chunk_NV[:, tokens.to(chunk_NV.device)] for chunk_NV in chunks]
        p_MNV = torch.stack([chunk_NV.float().softmax(-1) for chunk_NV in chunks])
        js_N, pairs_MMN, entropy_N = (x.double().cpu().numpy() for x in _divergences(p_MNV))
        if not np.isfinite(js_N).all():
            raise ValueError(
                "disagreement: a prediction is not finite: the training of a model diverged or "
                "its weights are damaged; run `pollination verify`, or lower the learning rate"
            )
        sums.append(pairs_MMN.sum(axis=-1))
        pairwise_N = pairs_MMN.sum(axis=(0, 1)) / (size * (size - 1))
        values.append(np.stack([js_N, pairwise_N, entropy_N], axis=1))
    return {"values": np.concatenate(values), "pairs": np.stack(sums)}


def _micro_batches(
    counts: np.ndarray, batch_size: int, bytes_per_token: int, ragged: bool
) -> Iterator[np.ndarray]:
    """Yield indices of sequences of similar length, longest first, as many as the limit allows.

    The length is equal unless `ragged`.
    """
    order = np.argsort(-counts, kind="stable")
    while len(order) and counts[order[0]]:
        fit = max(1, min(batch_size, LOGITS_BYTES // (int(counts[order[0]]) * bytes_per_token)))
        chosen = order[:fit]
        if not ragged:
            chosen = chosen[counts[chosen] == counts[chosen[0]]]
        yield chosen
        order = order[len(chosen) :]


def _entropy(p: torch.Tensor) -> torch.Tensor:
    """Return the entropy in nats of the distributions along the last axis."""
    return torch.special.entr(p).sum(-1)


def _divergences(p_MNV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return JS_N of all, JS_MMN of pairs, and mean entropy_N; values below zero become zero."""
    entropy_MN = _entropy(p_MNV)
    pairs_MMN = entropy_MN.new_zeros((len(p_MNV), *entropy_MN.shape))
    for i in range(len(p_MNV) - 1):
        pair = _entropy((p_MNV[i + 1 :] + p_MNV[i]) / 2) - (entropy_MN[i + 1 :] + entropy_MN[i]) / 2
        pairs_MMN[i, i + 1 :] = pairs_MMN[i + 1 :, i] = pair.clamp(min=0)
    entropy_N = entropy_MN.mean(0)
    return (_entropy(p_MNV.mean(0)) - entropy_N).clamp(min=0), pairs_MMN, entropy_N


def summarize(frame: pd.DataFrame, members: list[int]) -> dict:
    """Return the entry of disagreement.json for one group, from the frame of `disagreement`."""

    def token_mean(column: str) -> float:
        return float(np.average(frame[column], weights=frame.tokens))

    js = token_mean("js")
    counts = {"tokens": int(frame.tokens.sum()), "sequences": len(frame)}
    return {
        "members": members,
        "js": js,
        "effective_models": float(np.exp(js)),
        "pairwise_mean": token_mean("pairwise"),
        "entropy": token_mean("entropy"),
    } | counts


def measure(job: Job) -> None:
    """Write the disagreement.json of a generation, and its table.

    The job compares members only if they have the same tokenizer and text.
    """
    work = job.claim("disagreement", job.key(0), at_once=True)
    if work is not None:
        with resume.saving(work, job.stop, job.log):
            _measure(job)


def _measure(job: Job) -> None:
    entry = job.params.disagreement
    weights, tokenizers, texts = job.files("weights"), job.files("tokenizers"), job.files("text")
    asked = job.params.get("precision", "auto")
    inference = begin(job, "evaluate.precision", asked, [path.parent for path in weights])
    groups: dict[tuple, list[int]] = {}
    for m, (tokenizer, text) in enumerate(zip(tokenizers, texts, strict=True)):
        bos = artifacts.read_json(tokenizer.with_name("tokenizer_config.json")).get(BOS_KEY)
        key = job.digests[str(tokenizer)], bos, job.digests[str(text)]
        groups.setdefault(key, []).append(m)
    pairs: list[list[float | None]] = [
        [0.0 if i == j else None for j in range(len(weights))] for i in range(len(weights))
    ]
    frames, summaries = [], []
    for group, members in enumerate(groups.values()):
        if len(members) == 1:
            continue
        loaded = [inference.model(weights[m].parent) for m in members]
        resume.name(loaded[0], f"group {group}")
        text, folder = texts[members[0]], weights[members[0]].parent
        shared = checkpoint.load_tokenizer(folder)
        rows = _rows(text, shared, job.params.sequences, entry, loaded[0].config)
        written, special = _written(loaded, shared), special_tokens(shared)
        frame, js_MM = disagreement(loaded, rows, job.params.batch_size, written, special)
        del loaded
        frames.append(frame.assign(group=group))
        summaries.append(summarize(frame, members))
        for i, j in np.ndindex(js_MM.shape):
            pairs[members[i]][members[j]] = float(js_MM[i, j])
    if not summaries:
        raise ValueError(
            "evaluate.disagreement: no two members share a tokenizer and text, so no comparison is "
            "possible; set evaluate.disagreement to null"
        )
    sizes = [len(summary["members"]) for summary in summaries]
    js = float(np.average([summary["js"] for summary in summaries], weights=sizes))
    result = {
        "corpus": entry["corpus"],
        "split": entry["split"],
        "js": js,
        "effective_models": float(np.exp(js)),
    }
    artifacts.write_table(job.output.table, pd.concat(frames, ignore_index=True))
    artifacts.write_json(job.output.disagreement, result | {"groups": summaries, "pairwise": pairs})


def _written(models: list, tokenizer) -> torch.Tensor | None:
    """Return the ids that all models can write, or None if these are all rows of each."""
    rows = {embedding_rows(model) for model in models}
    if len(rows) == 1 and ids_without_token(models[0], tokenizer) is None:
        return None
    ids = sorted(set(tokenizer.get_vocab().values()))
    return torch.tensor([index for index in ids if index < min(rows)])


def _rows(path, tokenizer, kind: str, entry: dict, config) -> list[np.ndarray]:
    """Return the sequences as `perplexity` reads them: blocks, or documents and eos."""
    special = special_tokens(tokenizer)
    if kind == "blocks":
        blocks = TokenBlocks(path)
        count = len(blocks)
        if entry["max_tokens"] is not None:
            count = max(1, entry["max_tokens"] // blocks.context_tokens)
        return list(special.blocks(blocks.first(count).tokens_NT))
    context = context_limit(config)
    texts = (text for _, text in read_documents(path.parent, entry["split"]))
    return [
        special.document(ids)[:context]
        for ids in document_sequences(texts, tokenizer, context, entry["max_tokens"])
    ]
