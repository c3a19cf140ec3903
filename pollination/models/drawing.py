"""Draw the next token of each row, given logits and a key of random noise per row.

Each row has its own counter-based stream of noise, with one number per step and token. The allowed
tokens race: token i arrives after Exponential(1) / p_i, and the first token is the draw (a form of
the Gumbel-max trick). So rows give the same text in any batch, padding and order, unless two
arrivals are equal up to rounding. (One uniform number per step and an inverted distribution
function would be as exact, but rounding would change a draw as often as a token is rare: with flat
distributions over 32,000 tokens, in one step of a hundred.)

Shapes: B rows of the batch, T tokens, V vocabulary, K likeliest tokens of a row, G groups of C
tokens.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

# The search tries this many likeliest tokens. Rows with a wider nucleus look at all weights.
WIDTHS = (64, 512, 4096)
NARROW_ON = ("cpu",)  # only there, it costs little to learn which rows need all tokens
COLUMNS = 16  # tokens per group in the search for the likeliest
SORTED = 4096  # tokens that one block of a GPU sorts in its own memory
DIGIT_BITS = 6  # of a threshold, found per round
WEIGHT_BITS = 30  # of a weight in float32, which is at most 1


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen.

    The fields are keys of a config's `generate` block, in the order in which they act.
    """

    decoding: str = "nucleus"  # a key of DECODINGS (pollination/plan/decoding.py)
    repetition_penalty: float = 1.0
    min_new_tokens: int = 0
    max_new_tokens: int = 512
    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.9
    num_beams: int = 5

    @classmethod
    def from_settings(cls, settings: dict) -> "Decoding":
        """Return the decoding of a `generate` block. Other keys are ignored."""
        return cls(**{key: settings[key] for key in cls.__dataclass_fields__ if key in settings})

    @property
    def nucleus_mass(self) -> float:
        """Mass of the smallest set of tokens to sample from. 1.0 keeps all tokens."""
        return self.top_p if self.decoding == "nucleus" else 1.0


def penalise(scores_BV: torch.Tensor, tokens_BT: torch.Tensor, penalty: float) -> torch.Tensor:
    """Divide the scores of tokens that the row contains by `penalty` (arXiv 1909.05858, 4.1).

    Negative scores are multiplied.
    """
    if penalty == 1.0:
        return scores_BV
    present_BT = scores_BV.gather(1, tokens_BT)
    return scores_BV.scatter(
        1, tokens_BT, torch.where(present_BT < 0, present_BT * penalty, present_BT / penalty)
    )


def _weights(logits_BV: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return probabilities times a constant per row: the likeliest token has weight 1.

    This overwrites the logits.
    """
    logits_BV.div_(temperature)
    return logits_BV.sub_(logits_BV.amax(-1, keepdim=True)).exp_()


def _total(weights_BV: torch.Tensor) -> torch.Tensor:
    """Return the sum of each row in float64.

    COLUMNS weights at a time are added in their own precision, which is fast and as good as exact.
    """
    groups = weights_BV.shape[1] // COLUMNS
    parts_BG = weights_BV[:, : groups * COLUMNS].view(len(weights_BV), COLUMNS, groups).sum(1)
    return parts_BG.sum(-1, dtype=torch.float64) + weights_BV[:, groups * COLUMNS :].sum(
        -1, dtype=torch.float64
    )


def _largest(values_BN: torch.Tensor, count: int) -> torch.Tensor:
    """Return the places (B, count) of a row's largest values, in any order.

    On a CPU, numpy selects several times faster than topk.
    """
    return torch.from_numpy(np.argpartition(values_BN.numpy(), -count, axis=1)[:, -count:])


def _likeliest(weights_BV: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights and token ids, both (B, width), of a row's likeliest tokens.

    They are in descending order, ties by token id. Of tokens that tie with the last, any may be
    missing.
    """
    vocabulary = weights_BV.shape[1]
    if width >= vocabulary:
        return weights_BV.sort(dim=-1, descending=True, stable=True)
    groups = vocabulary // COLUMNS
    if groups > 2 * width:
        # the `width` likeliest lie in the `width` groups with the largest maxima, or outside groups
        maxima_BG = weights_BV[:, : groups * COLUMNS].view(-1, COLUMNS, groups).amax(1)
        best_BK = _largest(maxima_BG, width)
        offsets_C1 = torch.arange(COLUMNS, device=best_BK.device)[:, None] * groups
        rest_R = torch.arange(groups * COLUMNS, vocabulary, device=best_BK.device)
        pool_BP = torch.cat(
            [(best_BK[:, None] + offsets_C1).flatten(1), rest_R.expand(len(best_BK), -1)], 1
        )
        ids_BK = pool_BP.gather(1, _largest(weights_BV.gather(1, pool_BP), width))
    else:
        ids_BK = _largest(weights_BV, width)
    ids_BK = ids_BK.sort(-1).values
    weights_BK, order_BK = weights_BV.gather(1, ids_BK).sort(dim=-1, descending=True, stable=True)
    return weights_BK, ids_BK.gather(1, order_BK)


def _support(
    weights_BK: torch.Tensor, total_B: torch.Tensor, decoding: Decoding
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the number (B) and mass (B, float64) of the allowed tokens, given descending weights.

    Order and edges are as in transformers' warpers. Top-k keeps ties with the k-th token. The
    nucleus keeps the token that crosses `top_p`, with its mass measured within the top k.
    """
    running_BK = weights_BK.double().cumsum(-1)
    kept_B, mass_B = (weights_BK > 0).sum(-1).clamp(min=1), total_B
    if decoding.top_k:
        last_B1 = weights_BK[:, min(decoding.top_k, weights_BK.shape[1]) - 1, None]
        kept_B = torch.minimum(kept_B, (weights_BK >= last_B1).sum(-1)).clamp(min=1)
        mass_B = running_BK.gather(1, kept_B[:, None] - 1).squeeze(1)
    if decoding.nucleus_mass < 1:
        inside_BK = running_BK - weights_BK < decoding.nucleus_mass * mass_B[:, None]
        kept_B = torch.minimum(kept_B, inside_BK.sum(-1).clamp(min=1))
        mass_B = running_BK.gather(1, kept_B[:, None] - 1).squeeze(1)
    return kept_B, mass_B


def fixed(device: torch.device) -> bool:
    """Return whether the operations of a draw are the same for all numbers."""
    return device.type not in NARROW_ON


def _ascending(values: torch.Tensor) -> torch.Tensor:
    """Sort the last dimension. On a CPU, numpy sorts values much faster."""
    if fixed(values.device):
        return values.sort(dim=-1).values
    return torch.from_numpy(np.sort(values.numpy(), axis=-1))


def _threshold(weights_BV: torch.Tensor, target_B: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return a nucleus: its smallest weight (B, 1), and the sum (B, 1, float64) of larger weights.

    The smallest weight is the least number whose larger weights sum to less than `target_B`. Groups
    of weights are sorted, which is much cheaper than to sort a row. Then the bits of the number are
    found, some per round: positive floats are in the order of their bits.
    """
    rows, vocabulary = weights_BV.shape
    groups = -(-vocabulary // SORTED)
    padded = -(-vocabulary // groups) * groups - vocabulary
    negative_BGC = _ascending(functional.pad(-weights_BV, (0, padded)).view(rows, groups, -1))
    sums_BGC = functional.pad(negative_BGC.cumsum(-1, dtype=torch.float64), (1, 0))

    def above(bits_BN: torch.Tensor) -> torch.Tensor:
        """Return the sum (B, N) of the weights that exceed the floats of these bits."""
        negative_BN = -bits_BN.view(torch.float32)
        many_BGN = negative_BN[:, None].expand(-1, groups, -1).contiguous()
        return -sums_BGC.gather(2, torch.searchsorted(negative_BGC, many_BGN)).sum(1)

    digits_N = torch.arange(1, 2**DIGIT_BITS, dtype=torch.int32, device=weights_BV.device)
    # the greatest number whose larger weights do not sum to less; 0 if there is none
    bits_B1 = torch.zeros((rows, 1), dtype=torch.int32, device=weights_BV.device)
    for shift in range(WEIGHT_BITS - DIGIT_BITS, -1, -DIGIT_BITS):
        passed_BN = above(bits_B1 + (digits_N << shift)) >= target_B[:, None]
        bits_B1 = bits_B1 + (passed_BN.sum(1, keepdim=True, dtype=torch.int32) << shift)
    bits_B1 = bits_B1 + 1
    return bits_B1.view(torch.float32), above(bits_B1)


def _allowed(weights_BV: torch.Tensor, total_B: torch.Tensor, decoding: Decoding) -> torch.Tensor:
    """Return which tokens a row may draw (B, V). No row is sorted.

    They are those of `_support`, up to the rounding of sums in float64. Ties with the last token of
    the nucleus go to low token ids.
    """
    allowed_BV = weights_BV > 0
    if decoding.top_k:
        count = min(decoding.top_k, weights_BV.shape[1])
        last_B1 = weights_BV.topk(count, sorted=False).values.amin(-1, keepdim=True)
        allowed_BV &= weights_BV >= last_B1
        total_B = (weights_BV * allowed_BV).sum(-1, dtype=torch.float64)
    if decoding.nucleus_mass < 1:
        target_B = decoding.nucleus_mass * total_B
        last_B1, above_B1 = _threshold(weights_BV * allowed_BV, target_B)
        tied_BV = weights_BV == last_B1
        before_BV = above_B1 + (tied_BV.cumsum(-1) - 1) * last_B1
        kept_BV = tied_BV & (before_BV < target_B[:, None])
        allowed_BV &= (weights_BV > last_B1) | kept_BV
    return allowed_BV


def nucleus_probabilities(logits_BV: torch.Tensor, decoding: Decoding) -> torch.Tensor:
    """Return the probabilities (B, V) of a draw after temperature, top-k and nucleus.

    They are 0 outside the nucleus.
    """
    weights_BV = _weights(logits_BV.float().clone(), decoding.temperature)
    weights_BV = weights_BV * _allowed(weights_BV, _total(weights_BV), decoding)
    return (weights_BV / weights_BV.sum(-1, keepdim=True, dtype=torch.float64)).float()


def _first(weights_BK: torch.Tensor, ids_BK: torch.Tensor, keys_B: torch.Tensor) -> torch.Tensor:
    """Return the place (B) of the token that wins each row's race. Weight 0 never arrives.

    A row's noise is the SplitMix64 stream (Steele, Lea and Flood 2014) that starts at its key. The
    noise of a token is at position token id.
    """
    bits_BK = keys_B[:, None] + ids_BK * -0x61C8864680B583EB
    bits_BK = (bits_BK ^ (bits_BK >> 30 & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    bits_BK = (bits_BK ^ (bits_BK >> 27 & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    bits_BK = (bits_BK ^ (bits_BK >> 31 & 0x1FFFFFFFF)) >> 12 & 0xFFFFFFFFFFFFF
    uniforms_BK = (bits_BK.double() + 0.5) * 2.0**-52  # never 0 or 1
    return (-uniforms_BK.log() / weights_BK).argmin(-1)


def draw(
    logits_BV: torch.Tensor, keys_B: torch.Tensor, decoding: Decoding
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one token per row (B), and whether the row's logits are sound (B).

    Logits with NaN, +inf or only -inf are not sound. `keys_B` (int64) are the rows' noise of this
    step. This overwrites the logits. On a CPU, if a few of the likeliest tokens determine the
    allowed tokens, only these are looked at, otherwise all. The draw is the same.
    """
    if decoding.decoding == "greedy":
        best_B, tokens_B = logits_BV.max(-1)
        return tokens_B, best_B.isfinite()
    weights_BV = _weights(logits_BV, decoding.temperature)
    total_B = _total(weights_BV)
    vocabulary = weights_BV.shape[1]
    if not decoding.top_k and decoding.nucleus_mass == 1:
        ids_BV = torch.arange(vocabulary, device=weights_BV.device).expand_as(weights_BV)
        return _first(weights_BV, ids_BV, keys_B), total_B.isfinite()
    tokens_B = torch.empty_like(keys_B)
    rows_R = torch.arange(len(keys_B), device=keys_B.device)  # rows that have no token yet
    least = 1.0  # no open row has a nucleus of fewer tokens
    for width in () if fixed(weights_BV.device) else WIDTHS:
        if not max(decoding.top_k, least) < width < vocabulary:
            continue
        weights_RV = weights_BV if len(rows_R) == len(keys_B) else weights_BV[rows_R]
        sorted_RK, ids_RK = _likeliest(weights_RV, width)
        kept_R, mass_R = _support(sorted_RK, total_B[rows_R], decoding)
        may_RK = torch.arange(width, device=kept_R.device) < kept_R[:, None]
        chosen_R = _first(sorted_RK * may_RK, ids_RK, keys_B[rows_R])
        tokens_B[rows_R] = ids_RK.gather(1, chosen_R[:, None]).squeeze(1)
        # if the last candidate is allowed, tokens outside the candidates may tie with it
        open_R = (sorted_RK.gather(1, kept_R[:, None] - 1) <= sorted_RK[:, -1:]).squeeze(1)
        missing_R = decoding.nucleus_mass * total_B[rows_R] - mass_R
        rows_R = rows_R[open_R]
        if not len(rows_R):
            return tokens_B, total_B.isfinite()
        least = width + (missing_R / sorted_RK[:, -1])[open_R].min().item()
    weights_RV = weights_BV if len(rows_R) == len(keys_B) else weights_BV[rows_R]
    allowed_RV = _allowed(weights_RV, total_B[rows_R], decoding)
    ids_RV = torch.arange(vocabulary, device=weights_BV.device).expand_as(weights_RV)
    tokens_B[rows_R] = _first(weights_RV * allowed_RV, ids_RV, keys_B[rows_R])
    return tokens_B, total_B.isfinite()


def row_keys(row_seeds: list[int], count: int) -> torch.Tensor:
    """Return each row's keys (B, count), int64, one per step, from its own Philox stream."""
    streams = [np.random.Philox(key=seed).random_raw(count) for seed in row_seeds]
    return torch.from_numpy(np.stack(streams).view(np.int64))


def cut_after(ids: list[int], eos_id: int) -> list[int]:
    """Return the ids up to and including the first end-of-text token."""
    return ids[: ids.index(eos_id) + 1] if eos_id in ids else ids


def forbid(logits_BV: torch.Tensor, ids: torch.Tensor | None) -> torch.Tensor:
    """Give the ids no probability. The others keep their proportions. Overwrite the logits."""
    return logits_BV if ids is None else logits_BV.index_fill_(1, ids, -torch.inf)
