"""Combine blocks of several texts into one training text."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Blocks(Protocol):
    """A training text of `len` blocks. `blocks(indices)` returns an int64 array (B, T)."""

    def __len__(self) -> int: ...
    def blocks(self, indices: np.ndarray) -> np.ndarray: ...


@dataclass
class Mixture:
    """Blocks of two texts: human block `human[i]` replaces synthetic block i, unless it is -1."""

    synthetic: Blocks
    human_blocks: Blocks
    human: np.ndarray

    def __len__(self) -> int:
        return len(self.synthetic)

    def blocks(self, indices: np.ndarray) -> np.ndarray:
        rows = self.synthetic.blocks(indices)
        chosen = self.human[indices]
        if (chosen >= 0).any():
            rows[chosen >= 0] = self.human_blocks.blocks(chosen[chosen >= 0])
        return rows


@dataclass
class Subset:
    """The blocks `chosen` of another text, in that order."""

    source: Blocks
    chosen: np.ndarray

    def __len__(self) -> int:
        return len(self.chosen)

    def blocks(self, indices: np.ndarray) -> np.ndarray:
        return self.source.blocks(self.chosen[indices])


@dataclass
class Joined:
    """Several texts, end to end."""

    parts: list[Blocks]

    def __post_init__(self) -> None:
        self.ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def blocks(self, indices: np.ndarray) -> np.ndarray:
        where = np.searchsorted(self.ends, indices, side="right")
        order = np.argsort(where, kind="stable")  # reads each text once
        rows = [
            self.parts[i].blocks(indices[where == i] - (self.ends[i] - len(self.parts[i])))
            for i in np.unique(where)
        ]
        return np.concatenate(rows)[np.argsort(order)]


def mix(synthetic: Blocks, human_blocks: Blocks, fraction: float, seed: int) -> Mixture:
    """Replace a share of the synthetic blocks by human blocks (`replacements`)."""
    human = replacements(len(synthetic), len(human_blocks), fraction, seed)
    return Mixture(synthetic, human_blocks, human)


def replacements(synthetic: int, human: int, fraction: float, seed: int) -> np.ndarray:
    """Return (synthetic,): the human block that replaces each synthetic block, or -1.

    `synthetic` and `human` are counts of blocks. Both kinds are drawn without replacement.
    ValueError: the human text has fewer blocks than that share.
    """
    count = round(fraction * synthetic)
    if count > human:
        raise ValueError(
            f"human.fraction: {fraction} of {synthetic} blocks needs {count} human blocks; "
            f"allowed: at most the {human} of the corpus. Lower human.fraction or add text"
        )
    generator, replaced = np.random.default_rng(seed), np.full(synthetic, -1, dtype=np.int64)
    chosen = generator.choice(human, count, replace=False)
    replaced[generator.choice(synthetic, count, replace=False)] = chosen
    return replaced


def join(parts: list[Blocks]) -> Blocks:
    """Join several texts end to end."""
    return parts[0] if len(parts) == 1 else Joined(parts)


def sample(blocks: Blocks, count: int, seed: int) -> Subset:
    """Draw `count` of the blocks (or all, if there are fewer) without replacement."""
    return Subset(blocks, np.random.default_rng(seed).permutation(len(blocks))[:count])


def segment(blocks: Blocks, context_tokens: int, spec: dict, member: int, seed: int) -> Subset:
    """Return the human text of founder `member`.

    `spec` has pool, tokens, segments and num_segments. Blocks are shuffled with `seed`, because
    neighbours in a corpus come from the same book, and founders must differ by chance alone.
    Without `num_segments`, segment m is the m-th slice of `tokens` tokens. With it, the first
    `tokens` tokens (None: all) are cut into that many segments. Their lengths differ by at most one
    block (study B, section 3: n = N / M).
    ValueError: the corpus has too little text, or the segment is shorter than one block.
    """
    first, last, number = place(len(blocks), context_tokens, spec, member)
    chosen = np.random.default_rng(seed).permutation(len(blocks))[first:last]
    if spec["num_segments"]:
        chosen = np.array_split(chosen, spec["num_segments"])[number]
    return Subset(blocks, chosen)


def place(blocks: int, context_tokens: int, spec: dict, member: int) -> tuple[int, int, int]:
    """Return (first, last, number) of the segment of founder `member` in a text of `blocks` blocks.

    With `num_segments`, it is segment `number` of the blocks first to last. `spec` and errors are
    those of `segment`.
    """
    pool, tokens, num_segments = spec["pool"], spec["tokens"], spec["num_segments"]
    number = (
        {"distinct": member, "same": 0}[spec["segments"]]
        if isinstance(spec["segments"], str)
        else spec["segments"][member]
    )
    count = blocks if tokens is None else tokens // context_tokens
    first, last = (0, count) if num_segments else (number * count, (number + 1) * count)
    key = f"founders.{pool}.train.tokens: {'null' if tokens is None else f'{tokens:,}'}"
    if last > blocks:
        fix = "or add text" if num_segments else "add text, or set segments: same"
        raise ValueError(
            f"{key}: founder {member} needs {last * context_tokens:,} tokens of text, but its "
            f"corpus has {blocks * context_tokens:,}. Lower train.tokens, {fix}"
        )
    if first == last or (num_segments and number >= last):
        raise ValueError(
            f"{key}: founder {member} gets less than one training block; a block has "
            f"{context_tokens} tokens (context_tokens of its model). Allowed: at least "
            f"{context_tokens * (num_segments or 1):,}. Raise train.tokens, add text, or lower "
            "num_segments"
        )
    return first, last, number
