"""Log-probabilities of given tokens after given tokens, where the model reads each distinct prefix once.

Sequences that begin alike (the few-shot examples of a subject, a question before its choices) share what they begin with: in
lexicographic order, the new tokens of a sequence are those after the prefix that it has in common with the one before. The new
tokens of all sequences are laid end to end and read in batches, one row without padding, whatever sequence they belong to; keys and
values of a prefix that goes on in the next batch are carried over. Attention alone looks across tokens, so it is all that is replaced
(transformers' attention interface): consecutive pieces form units, and a unit attends to its prefix and to itself. Logits are
computed where a token is scored, and nowhere else.

Shapes: S carried and T new tokens of a batch, U units, Q queries and K keys of a unit, H heads, D head width, C hidden width,
P positions scored, V vocabulary. A *place* is a number among the S + T keys of a batch, a *depth* a position within a sequence.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AttentionInterface, PreTrainedModel

from pollination.models import PLAIN_FAMILIES, attention

ATTENTION = "pollination_prefix_tree"
FIXED_ROPE = ("default", "linear", "llama3", "yarn")  # in the others a rotation depends on the longest position that is read


@dataclass(frozen=True)
class Limits:
    """What goes through a device at once, and what is dear on it (costs in query-key products)."""

    tokens: int  # a forward pass
    logits_bytes: int  # float32 logits
    keys: int  # gathered for one call of attention
    key_cost: int  # to gather a key
    call_cost: int  # to call attention once more


LIMITS = {"cpu": Limits(2048, 2**25, 2**15, 40, 20_000), "cuda": Limits(32768, 2**30, 2**19, 40, 500_000)}


@dataclass
class Piece:
    """New tokens of one sequence from depth `start` on; `path` are the places of its tokens at all depths up to its end."""

    tokens: np.ndarray
    start: int
    path: np.ndarray


@dataclass
class Group:
    """Units that attend in one call, padded to one length; `mask` None: plainly causal."""

    queries_UQ: torch.Tensor  # among the new tokens
    keys_UK: torch.Tensor  # places
    mask_U1QK: torch.Tensor | None  # added to the scores


@dataclass
class Batch:
    """A forward pass: its groups, where each new token lies among their queries, the places that the next pass goes on from, and the
    layers' keys and values, each (S, H, D): at first those carried into this pass, at the end those of the next."""

    groups: list[Group]
    order_T: torch.Tensor
    kept: torch.Tensor
    carried: dict[int, tuple[torch.Tensor, torch.Tensor]]


def unsupported(model: PreTrainedModel) -> str | None:
    """Why `continuation_logprobs` does not know the model's forward pass to be exact; None: it does."""
    config = model.config
    if config.model_type not in PLAIN_FAMILIES:
        return f"architecture {config.model_type!r} is none of {', '.join(PLAIN_FAMILIES)}"
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    return f"rope_type {rope!r} is none of {', '.join(FIXED_ROPE)}" if rope not in FIXED_ROPE else None


@torch.inference_mode()
def continuation_logprobs(
    model: PreTrainedModel, sequences: list[np.ndarray], targets: list[np.ndarray], batch_tokens: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability in nats of each sequence's targets, and whether each of its targets is the likeliest token.

    sequences: what the model reads, integer arrays, none longer than its positions; targets: the tokens that follow the last
    len(targets) of these, at least one. Log-softmax in float32 whatever the weights' precision, sums in float64. `batch_tokens` new
    tokens go through the model at once (default and upper bound: LIMITS), and so much is all that memory depends on.
    """
    if not sequences:
        return np.zeros(0), np.zeros(0, dtype=bool)
    limits = LIMITS.get(model.device.type, LIMITS["cpu"])
    batch_tokens = min(batch_tokens or limits.tokens, limits.tokens)
    owners: dict[bytes, list[int]] = {}
    for index, ids in enumerate(sequences):
        owners.setdefault(np.asarray(ids).astype(">u4").tobytes(), []).append(index)  # bytes that sort as the ids do
    members = [owners[key] for key in sorted(owners)]
    distinct = [np.asarray(sequences[some[0]], dtype=np.int64) for some in members]
    shared = [0, *(_common_prefix(a, b) for a, b in pairwise(distinct))]
    rows, numbers, wanted = _scored(distinct, shared, members, targets)

    logprobs, likeliest = np.zeros(len(rows)), np.zeros(len(rows), dtype=bool)
    carried, first = {}, 0
    with attention(model, ATTENTION):
        for pieces, kept in _passes(distinct, shared, batch_tokens):
            batch = _plan(pieces, kept, carried, limits, model)
            ids_T = np.concatenate([piece.tokens for piece in pieces])
            depths_T = np.concatenate([np.arange(piece.start, len(piece.path)) for piece in pieces])
            ids_1T, depths_1T = (torch.from_numpy(x).to(model.device)[None] for x in (ids_T, depths_T))
            hidden_TC = model.base_model(input_ids=ids_1T, position_ids=depths_1T, use_cache=False, tree=batch).last_hidden_state[0]
            found = slice(*np.searchsorted(numbers, [first, first + len(ids_T)]))
            logprobs[found], likeliest[found] = _score(model, hidden_TC, numbers[found] - first, wanted[found], limits)
            carried, first = batch.carried, first + len(ids_T)
    count = len(sequences)
    return np.bincount(rows, logprobs, count), np.bincount(rows, ~likeliest, count) == 0


def _common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    shorter = min(len(a), len(b))
    differs = a[:shorter] != b[:shorter]
    return int(differs.argmax()) if differs.any() else shorter


def _scored(
    distinct: list[np.ndarray], shared: list[int], members: list[list[int]], targets: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each target the sequence it belongs to, the number of its position among all new tokens (ascending), and its token id."""
    rows, numbers, wanted = [], [], []
    path, total = np.zeros(0, dtype=np.int64), 0
    for ids, common, some in zip(distinct, shared, members, strict=True):
        path = np.concatenate([path[:common], np.arange(total, total + len(ids) - common)])
        total += len(ids) - common
        for member in some:
            count = len(targets[member])
            rows.append(np.full(count, member))
            numbers.append(path[len(ids) - count :])
            wanted.append(np.asarray(targets[member], dtype=np.int64))
    numbers = np.concatenate(numbers)
    order = np.argsort(numbers, kind="stable")
    return np.concatenate(rows)[order], numbers[order], np.concatenate(wanted)[order]


def _passes(distinct: list[np.ndarray], shared: list[int], batch_tokens: int) -> Iterator[tuple[list[Piece], np.ndarray]]:
    """The pieces of each forward pass, and the places that the next one goes on from."""
    pieces, filled, carried, path = [], 0, 0, np.zeros(0, dtype=np.int64)
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


def _plan(pieces: list[Piece], kept: np.ndarray, carried: dict, limits: Limits, model: PreTrainedModel) -> Batch:
    cost = lambda queries, keys: (queries + limits.key_cost) * keys  # noqa: E731
    units: list[list[Piece]] = []
    sizes: list[tuple[int, int]] = []  # (Q, K) of each unit
    for piece in pieces:
        new = len(piece.tokens)
        if units and piece.start >= (base := units[-1][0].start):  # then it goes on from the unit's own prefix
            joined = sizes[-1][0] + new
            if cost(joined, base + joined) <= cost(*sizes[-1]) + cost(new, len(piece.path)):
                units[-1].append(piece)
                sizes[-1] = joined, base + joined
                continue
        units.append([piece])
        sizes.append((new, len(piece.path)))

    grouped: list[list[int]] = []
    for unit in sorted(range(len(units)), key=lambda index: sizes[index][::-1], reverse=True):
        if grouped:
            some = grouped[-1]
            queries, keys = max(sizes[index][0] for index in some), sizes[some[0]][1]
            dearer = (len(some) + 1) * cost(max(queries, sizes[unit][0]), keys) - len(some) * cost(queries, keys)
            if dearer <= cost(*sizes[unit]) + limits.call_cost and (len(some) + 1) * keys <= limits.keys:
                some.append(unit)
                continue
        grouped.append([unit])

    firsts = np.cumsum([0, *(queries for queries, _ in sizes)])  # number of each unit's first new token
    carried_tokens = pieces[0].start  # the first piece of a pass goes on from all that was carried
    order_T, groups, filled = np.zeros(firsts[-1], dtype=np.int64), [], 0
    for some in grouped:
        widest, longest = max(sizes[index][0] for index in some), -(-max(sizes[index][1] for index in some) // 8) * 8
        queries_UQ, keys_UK = np.zeros((len(some), widest), dtype=np.int64), np.zeros((len(some), longest), dtype=np.int64)
        seen_UQK = np.zeros((len(some), widest, longest), dtype=bool)
        for row, index in enumerate(some):
            new, first, base = sizes[index][0], firsts[index], units[index][0].start
            numbers = np.arange(first, first + new)
            queries_UQ[row, :new] = numbers
            keys_UK[row, :base] = units[index][0].path[:base]
            keys_UK[row, base : base + new] = carried_tokens + numbers
            order_T[numbers] = filled + row * widest + np.arange(new)
            seen_UQK[row, :, :base] = True
            seen_UQK[row, new:, 0] = True  # padding sees something, so that nothing is divided by zero
            begin = 0
            for piece in units[index]:
                end = begin + len(piece.tokens)
                seen_UQK[row, begin:end, base + piece.path[base : piece.start] - carried_tokens - first] = True
                seen_UQK[row, begin:end, base + begin : base + end] = np.tri(end - begin, dtype=bool)
                begin = end
        filled += len(some) * widest
        plain = all(len(units[index]) == 1 and units[index][0].start == 0 for index in some)
        groups.append(
            Group(
                torch.from_numpy(queries_UQ).to(model.device),
                torch.from_numpy(keys_UK).to(model.device),
                None if plain else _added(seen_UQK, model),
            )
        )
    return Batch(groups, torch.from_numpy(order_T).to(model.device), torch.from_numpy(kept).to(model.device), carried)


def _added(seen_UQK: np.ndarray, model: PreTrainedModel) -> torch.Tensor:
    seen_U1QK = torch.from_numpy(seen_UQK).to(model.device)[:, None]
    return torch.zeros(seen_U1QK.shape, dtype=model.dtype, device=model.device).masked_fill_(~seen_U1QK, -torch.inf)


def _attend(module, query, key, value, attention_mask, scaling=None, *, tree: Batch, **_) -> tuple[torch.Tensor, None]:
    """One layer's attention, called by transformers with query (1, H, T, D); the result is (1, T, H, D)."""
    query_THD, key_THD, value_THD = (x[0].transpose(0, 1) for x in (query, key, value))
    if before := tree.carried.pop(module.layer_idx, None):
        key_THD, value_THD = torch.cat([before[0], key_THD]), torch.cat([before[1], value_THD])
    if len(tree.kept):
        tree.carried[module.layer_idx] = key_THD[tree.kept], value_THD[tree.kept]
    readers = query.shape[1] // key.shape[1]  # query heads that share one head of keys
    results = []
    for group in tree.groups:
        query_UHQD, key_UHKD, value_UHKD = (
            x.index_select(0, index.flatten()).view(*index.shape, *x.shape[1:]).transpose(1, 2)
            for x, index in ((query_THD, group.queries_UQ), (key_THD, group.keys_UK), (value_THD, group.keys_UK))
        )
        if readers > 1:
            key_UHKD, value_UHKD = key_UHKD.repeat_interleave(readers, 1), value_UHKD.repeat_interleave(readers, 1)
        causal = group.mask_U1QK is None
        result_UHQD = F.scaled_dot_product_attention(
            query_UHQD, key_UHKD, value_UHKD, attn_mask=group.mask_U1QK, is_causal=causal, scale=scaling
        )
        results.append(result_UHQD.transpose(1, 2).flatten(0, 1))
    return torch.cat(results)[tree.order_T][None], None


AttentionInterface.register(ATTENTION, _attend)


def _score(
    model: PreTrainedModel, hidden_TC: torch.Tensor, positions: np.ndarray, wanted: np.ndarray, limits: Limits
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of each wanted token after its position (ascending), and whether it is the likeliest one there."""
    head = model.get_output_embeddings()
    distinct_P, which = np.unique(positions, return_inverse=True)
    step = max(1, limits.logits_bytes // (4 * head.weight.shape[0]))
    logprobs, likeliest = np.zeros(len(wanted)), np.zeros(len(wanted), dtype=bool)
    for begin in range(0, len(distinct_P), step):
        rows = slice(*np.searchsorted(which, [begin, begin + step]))
        positions_P, which_N, wanted_N = (
            torch.from_numpy(x).to(model.device) for x in (distinct_P[begin : begin + step], which[rows] - begin, wanted[rows])
        )
        logprobs_PV = F.log_softmax(head(hidden_TC[positions_P]), -1, dtype=torch.float32)
        logprobs[rows] = logprobs_PV[which_N, wanted_N].cpu().numpy()
        likeliest[rows] = (logprobs_PV.argmax(-1)[which_N] == wanted_N).cpu().numpy()
    return logprobs, likeliest
