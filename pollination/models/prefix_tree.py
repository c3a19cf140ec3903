"""Compute log-probabilities of tokens after a context; the model reads each prefix only once.

Many sequences share a prefix (a subject's few-shot examples, a question before its choices). In
lexicographic order, the *new* tokens of a sequence are those after the prefix that it shares with
the previous sequence. The new tokens of all sequences form one row without padding, which the model
reads in batches. If a prefix continues in the next batch, its keys and values are carried over.
Only attention mixes tokens, so this module replaces only attention (transformers' attention
interface): consecutive pieces form units, and a unit attends to its prefix and to itself. Logits
are computed only at scored tokens.

Shapes: S carried and T new tokens of a batch, U units, Q queries and K keys of a unit, H heads,
D head width, C hidden width, P scored positions, V vocabulary. A *place* is an index into the
S + T keys of a batch, a *depth* a position within a sequence.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AttentionInterface, PreTrainedModel

from pollination.core import resume
from pollination.models.attention import attend, attention
from pollination.models.head import Head

ATTENTION = "pollination_prefix_tree"


@dataclass(frozen=True)
class Limits:
    """Batch limits of a device, and its overheads in query-key products."""

    tokens: int  # per forward pass
    logits_bytes: int  # of float32 logits
    keys: int  # gathered for one attention call
    key_cost: int  # of gathering one key
    call_cost: int  # of one more attention call


LIMITS = {
    "cpu": Limits(2048, 2**25, 2**15, 40, 20_000),
    "cuda": Limits(32768, 2**30, 2**19, 40, 500_000),
}


@dataclass
class Piece:
    """New tokens of one sequence from depth `start`; `path` has the place of every depth so far."""

    tokens: np.ndarray
    start: int
    path: np.ndarray


@dataclass
class Group:
    """Units of one attention call, padded to equal length; without a mask, attention is causal."""

    queries_UQ: torch.Tensor  # indices of new tokens
    keys_UK: torch.Tensor  # places
    mask_U1QK: torch.Tensor | None  # added to the attention scores
    ages_UQK: np.ndarray  # depth of a query minus depth of a key
    windowed: dict[int, torch.Tensor | None] = field(default_factory=dict)

    def added(self, window: int | None, dtype: torch.dtype) -> torch.Tensor | None:
        """Return the mask within a sliding window of this many tokens, or the whole mask."""
        if window is None or self.ages_UQK.max() < window:
            return self.mask_U1QK
        if window not in self.windowed:
            hidden_UQK = self.ages_UQK >= window
            if self.mask_U1QK is None:
                hidden_UQK |= np.triu(np.ones(hidden_UQK.shape[1:], dtype=bool), 1)
            hidden_U1QK = torch.from_numpy(hidden_UQK).to(self.queries_UQ.device)[:, None]
            mask = self.mask_U1QK
            if mask is None:
                mask = torch.zeros(hidden_U1QK.shape, dtype=dtype, device=hidden_U1QK.device)
            self.windowed[window] = mask.masked_fill(hidden_U1QK, -torch.inf)
        return self.windowed[window]


@dataclass
class Batch:
    """One forward pass.

    `carried` holds the keys and values of each layer, each (S, H, D). Before the pass they come
    from the previous pass; after it they are those for the next pass.
    """

    groups: list[Group]
    order_T: torch.Tensor  # index of each new token in the queries of all groups
    kept: torch.Tensor  # places to carry into the next pass
    carried: dict[int, tuple[torch.Tensor, torch.Tensor]]


@torch.inference_mode()
def continuation_logprobs(
    model: PreTrainedModel,
    sequences: list[np.ndarray],
    targets: list[np.ndarray],
    batch_tokens: int | None = None,
    head: Head | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays (sequences,): log-probability of all targets; whether all are likeliest.

    The log-probability is a sum in nats. `sequences` are the integer arrays that the model reads,
    none longer than its positions. `targets` are the tokens that follow the last len(targets)
    positions, at least one. Log-softmax is in float32 at any precision of the weights; sums are in
    float64. The model reads `batch_tokens` new tokens at once (default and upper bound: LIMITS),
    and memory depends only on this. `head` is that of the model's contract (default: plain).
    """
    head = head or Head()
    if not sequences:
        return np.zeros(0), np.zeros(0, dtype=bool)
    limits = LIMITS.get(model.device.type, LIMITS["cpu"])
    batch_tokens = min(batch_tokens or limits.tokens, limits.tokens)
    owners: dict[bytes, list[int]] = {}
    for index, ids in enumerate(sequences):
        key = np.asarray(ids).astype(">u4").tobytes()  # big-endian bytes sort like the ids
        owners.setdefault(key, []).append(index)
    members = [owners[key] for key in sorted(owners)]
    distinct = [np.asarray(sequences[indices[0]], dtype=np.int64) for indices in members]
    shared = [0, *(_common_prefix(a, b) for a, b in pairwise(distinct))]
    rows, numbers, wanted = _scored(distinct, shared, members, targets)

    logprobs, likeliest = np.zeros(len(rows)), np.zeros(len(rows), dtype=bool)
    carried: dict = {}
    first = 0
    steps = resume.Steps(model, "continuations", [*distinct, rows, wanted, batch_tokens])
    with attention(model, ATTENTION):
        for number, (pieces, kept) in enumerate(_passes(distinct, shared, batch_tokens)):
            ids_T = np.concatenate([piece.tokens for piece in pieces])
            in_pass = slice(*np.searchsorted(numbers, [first, first + len(ids_T)]))
            if number < steps.done:
                saved = steps.result(number)
                logprobs[in_pass], likeliest[in_pass] = saved["logprobs"], saved["likeliest"]
                if number == steps.done - 1:
                    carried = _carried(steps.state() or {}, model.device)
                first += len(ids_T)
                continue
            resume.check_stop()
            batch = _plan(pieces, kept, carried, limits, model)
            depths_T = np.concatenate([np.arange(piece.start, len(piece.path)) for piece in pieces])
            ids_1T, depths_1T = (
                torch.from_numpy(x).to(model.device)[None] for x in (ids_T, depths_T)
            )
            hidden_TC = model.base_model(
                input_ids=ids_1T, position_ids=depths_1T, use_cache=False, tree=batch
            ).last_hidden_state[0]
            logprobs[in_pass], likeliest[in_pass] = _score(
                model, head, hidden_TC, numbers[in_pass] - first, wanted[in_pass], limits
            )
            carried, first = batch.carried, first + len(ids_T)
            found = {"logprobs": logprobs[in_pass].copy(), "likeliest": likeliest[in_pass].copy()}
            steps.add(number, found, partial(_as_arrays, dict(carried)))
    steps.end()
    count = len(sequences)
    return np.bincount(rows, logprobs, count), np.bincount(rows, ~likeliest, count) == 0


def _as_arrays(carried: dict) -> dict[str, np.ndarray]:
    """Return carried keys and values as bytes, because numpy has no bfloat16."""
    return {
        f"{layer} {side} {tensor.dtype}": tensor.contiguous().view(torch.uint8).cpu().numpy()
        for layer, pair in carried.items()
        for side, tensor in enumerate(pair)
    }


def _carried(arrays: dict[str, np.ndarray], device: torch.device) -> dict:
    """Return the keys and values of `_as_arrays`."""
    carried: dict[int, list[torch.Tensor]] = {}
    for name, array in sorted(arrays.items()):
        layer, _, dtype = name.split()
        kind = getattr(torch, dtype.removeprefix("torch."))
        carried.setdefault(int(layer), []).append(torch.from_numpy(array).view(kind).to(device))
    return {layer: tuple(pair) for layer, pair in carried.items()}


def _common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    shorter = min(len(a), len(b))
    differs = a[:shorter] != b[:shorter]
    return int(differs.argmax()) if differs.any() else shorter


def _scored(
    distinct: list[np.ndarray],
    shared: list[int],
    members: list[list[int]],
    targets: list[np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each target's sequence, index among all new tokens (ascending), and token id."""
    rows, numbers, wanted = [], [], []
    path, total = np.zeros(0, dtype=np.int64), 0
    for ids, common, indices in zip(distinct, shared, members, strict=True):
        path = np.concatenate([path[:common], np.arange(total, total + len(ids) - common)])
        total += len(ids) - common
        for index in indices:
            count = len(targets[index])
            rows.append(np.full(count, index))
            numbers.append(path[len(ids) - count :])
            wanted.append(np.asarray(targets[index], dtype=np.int64))
    number_N = np.concatenate(numbers)
    order = np.argsort(number_N, kind="stable")
    return np.concatenate(rows)[order], number_N[order], np.concatenate(wanted)[order]


def _passes(
    distinct: list[np.ndarray], shared: list[int], batch_tokens: int
) -> Iterator[tuple[list[Piece], np.ndarray]]:
    """Yield the pieces of each forward pass, and the places to carry into the next pass."""
    pieces: list[Piece] = []
    filled, carried, path = 0, 0, np.zeros(0, dtype=np.int64)
    for ids, common in zip(distinct, shared, strict=True):
        for start in range(common, len(ids), batch_tokens):
            tokens = ids[start : start + batch_tokens]
            if pieces and filled + len(tokens) > batch_tokens:
                yield pieces, path[:start]
                pieces, filled, carried, path = [], 0, start, np.arange(start)
            path = np.concatenate([path[:start], carried + filled + np.arange(len(tokens))])
            pieces.append(Piece(tokens, start, path))
            filled += len(tokens)
    yield pieces, path[:0]


def _plan(
    pieces: list[Piece], kept: np.ndarray, carried: dict, limits: Limits, model: PreTrainedModel
) -> Batch:
    def unit_cost(queries: int, keys: int) -> int:
        return (queries + limits.key_cost) * keys

    units: list[list[Piece]] = []
    sizes: list[tuple[int, int]] = []  # (Q, K) of each unit
    for piece in pieces:
        new = len(piece.tokens)
        # A piece that starts at this depth or deeper continues the prefix of the last unit.
        if units and piece.start >= (base := units[-1][0].start):
            joined = sizes[-1][0] + new
            apart = unit_cost(*sizes[-1]) + unit_cost(new, len(piece.path))
            if unit_cost(joined, base + joined) <= apart:
                units[-1].append(piece)
                sizes[-1] = joined, base + joined
                continue
        units.append([piece])
        sizes.append((new, len(piece.path)))

    grouped: list[list[int]] = []
    for unit in sorted(range(len(units)), key=lambda index: sizes[index][::-1], reverse=True):
        if grouped:
            last = grouped[-1]
            count, keys = len(last), sizes[last[0]][1]
            queries = max(sizes[index][0] for index in last)
            joined = (count + 1) * unit_cost(max(queries, sizes[unit][0]), keys)
            apart = count * unit_cost(queries, keys) + unit_cost(*sizes[unit]) + limits.call_cost
            if joined <= apart and (count + 1) * keys <= limits.keys:
                last.append(unit)
                continue
        grouped.append([unit])

    firsts = np.cumsum([0, *(queries for queries, _ in sizes)])  # each unit's first new token
    carried_tokens = pieces[0].start  # the first piece of a pass continues all carried tokens
    order_T, groups, filled = np.zeros(firsts[-1], dtype=np.int64), [], 0
    for indices in grouped:
        widest = max(sizes[index][0] for index in indices)
        longest = -(-max(sizes[index][1] for index in indices) // 8) * 8
        queries_UQ = np.zeros((len(indices), widest), dtype=np.int64)
        keys_UK = np.zeros((len(indices), longest), dtype=np.int64)
        seen_UQK = np.zeros((len(indices), widest, longest), dtype=bool)
        depths_UQ, depths_UK = np.zeros_like(queries_UQ), np.zeros_like(keys_UK)
        for row, index in enumerate(indices):
            new, first, base = sizes[index][0], firsts[index], units[index][0].start
            numbers = np.arange(first, first + new)
            queries_UQ[row, :new] = numbers
            keys_UK[row, :base] = units[index][0].path[:base]
            keys_UK[row, base : base + new] = carried_tokens + numbers
            depths_UQ[row, :new] = np.concatenate(
                [np.arange(piece.start, len(piece.path)) for piece in units[index]]
            )
            depths_UK[row, :base] = np.arange(base)
            depths_UK[row, base : base + new] = depths_UQ[row, :new]
            order_T[numbers] = filled + row * widest + np.arange(new)
            seen_UQK[row, :, :base] = True
            # Padding attends to one key, which avoids a division by zero.
            seen_UQK[row, new:, 0] = True
            begin = 0
            for piece in units[index]:
                end = begin + len(piece.tokens)
                shared = base + piece.path[base : piece.start] - carried_tokens - first
                own = slice(base + begin, base + end)
                seen_UQK[row, begin:end, shared] = True
                seen_UQK[row, begin:end, own] = np.tri(end - begin, dtype=bool)
                begin = end
        filled += len(indices) * widest
        plain = all(len(units[index]) == 1 and units[index][0].start == 0 for index in indices)
        groups.append(
            Group(
                torch.from_numpy(queries_UQ).to(model.device),
                torch.from_numpy(keys_UK).to(model.device),
                None if plain else _added(seen_UQK, model),
                depths_UQ[:, :, None] - depths_UK[:, None],
            )
        )
    return Batch(
        groups,
        torch.from_numpy(order_T).to(model.device),
        torch.from_numpy(kept).to(model.device),
        carried,
    )


def _added(seen_UQK: np.ndarray, model: PreTrainedModel) -> torch.Tensor:
    seen_U1QK = torch.from_numpy(seen_UQK).to(model.device)[:, None]
    return torch.zeros(seen_U1QK.shape, dtype=model.dtype, device=model.device).masked_fill_(
        ~seen_U1QK, -torch.inf
    )


def _attend(
    module,
    query,
    key,
    value,
    attention_mask,
    scaling=None,
    sliding_window=None,
    softcap=None,
    *,
    tree: Batch,
    **_,
) -> tuple[torch.Tensor, None]:
    """Compute one layer's attention for transformers: query (1, H, T, D), result (1, T, H, D)."""
    query_THD, key_THD, value_THD = (x[0].transpose(0, 1) for x in (query, key, value))
    if before := tree.carried.pop(module.layer_idx, None):
        key_THD, value_THD = torch.cat([before[0], key_THD]), torch.cat([before[1], value_THD])
    if len(tree.kept):
        tree.carried[module.layer_idx] = key_THD[tree.kept], value_THD[tree.kept]
    readers = query.shape[1] // key.shape[1]  # query heads per key head
    results = []
    for group in tree.groups:
        query_UHQD, key_UHKD, value_UHKD = (
            x.index_select(0, index.flatten()).view(*index.shape, *x.shape[1:]).transpose(1, 2)
            for x, index in (
                (query_THD, group.queries_UQ),
                (key_THD, group.keys_UK),
                (value_THD, group.keys_UK),
            )
        )
        if readers > 1:
            key_UHKD, value_UHKD = (
                key_UHKD.repeat_interleave(readers, 1),
                value_UHKD.repeat_interleave(readers, 1),
            )
        added = group.added(sliding_window, query.dtype)
        result_UHQD = attend(query_UHQD, key_UHKD, value_UHKD, added, scaling, softcap)
        results.append(result_UHQD.transpose(1, 2).flatten(0, 1))
    return torch.cat(results)[tree.order_T][None], None


AttentionInterface.register(ATTENTION, _attend)


def _score(
    model: PreTrainedModel,
    head: Head,
    hidden_TC: torch.Tensor,
    positions: np.ndarray,
    wanted: np.ndarray,
    limits: Limits,
) -> tuple[np.ndarray, np.ndarray]:
    """Return each wanted token's log-probability after its position, and whether it is likeliest.

    Positions ascend. Both arrays are (N,), for N wanted tokens.
    """
    distinct_P, which = np.unique(positions, return_inverse=True)
    step = max(1, limits.logits_bytes // (4 * model.get_output_embeddings().weight.shape[0]))
    logprobs, likeliest = np.zeros(len(wanted)), np.zeros(len(wanted), dtype=bool)
    for begin in range(0, len(distinct_P), step):
        rows = slice(*np.searchsorted(which, [begin, begin + step]))
        positions_P, which_N, wanted_N = (
            torch.from_numpy(x).to(model.device)
            for x in (distinct_P[begin : begin + step], which[rows] - begin, wanted[rows])
        )
        logprobs_PV = F.log_softmax(
            head.logits(model, hidden_TC[positions_P]), -1, dtype=torch.float32
        )
        logprobs[rows] = logprobs_PV[which_N, wanted_N].cpu().numpy()
        likeliest[rows] = (logprobs_PV.argmax(-1)[which_N] == wanted_N).cpu().numpy()
    return logprobs, likeliest
