"""Shuffle the pool of an ecosystem (all members' text) and deal it equally (study B, section 3)."""

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
