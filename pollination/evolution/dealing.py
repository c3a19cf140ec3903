"""Deal the pool of an ecosystem equally (study B, section 3), or mix text of some writers."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from pollination.core import artifacts


def deal(shards: list[Path], member: int, population: int, seed: int, out: Path) -> None:
    """Write the member's share: rows member, member + population, ... of the shuffled pool.

    Shares differ by at most one row. All members shuffle with the same seed, so every row of the
    pool is dealt exactly once. A single member gets the pool in its original order. The run then
    equals study A's recursion on own text, bit for bit.
    """
    pool = pa.concat_tables([artifacts.read_table(path) for path in shards])
    order = np.arange(pool.num_rows)
    if population > 1:
        order = np.random.default_rng(seed).permutation(pool.num_rows)
    artifacts.write_table(out, pool.take(order[member::population]))


def mix(shards: list[Path], shares: list[float], seed: int, out: Path) -> None:
    """Write a child's text: round(share * rows) random rows of each shard, all of them shuffled.

    `shares`: the writer's share for each shard; the shares of one shard of each writer sum to 1. So
    the child's text is as long as one writer's. Equal seeds draw equal rows.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for path, share in zip(shards, shares, strict=True):
        rows = artifacts.read_table(path)
        count = round(share * rows.num_rows)
        parts.append(rows.take(np.sort(rng.choice(rows.num_rows, count, replace=False))))
    text = pa.concat_tables(parts)
    artifacts.write_table(out, text.take(rng.permutation(text.num_rows)))
