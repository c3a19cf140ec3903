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


def mix(shards: list[Path], shares: list[float], seed: int, out: Path) -> list[int]:
    """Write a child's text: random rows of each writer, all of them shuffled. Return their numbers.

    A folder of `shards` holds one writer's text. `shares`: the writer's share, for each shard. The
    shares of all writers sum to 1, or to 1 minus that of human text. The number of rows of a writer
    is share * rows, rounded by largest remainders, so that the sum over writers is right to one
    row. Equal seeds draw equal rows. ValueError: the child would get no row.
    """
    texts: dict[Path, list[pa.Table]] = {}
    share_of = {}
    for path, share in zip(shards, shares, strict=True):
        texts.setdefault(path.parent, []).append(artifacts.read_table(path))
        share_of[path.parent] = share
    whole = [pa.concat_tables(parts) for parts in texts.values()]
    wanted = np.array(
        [share * text.num_rows for share, text in zip(share_of.values(), whole, strict=True)]
    )
    rng = np.random.default_rng(seed)
    counts = _rounded(wanted, np.random.default_rng([seed, 1]))
    if not counts.sum():
        raise ValueError(
            f"text: the writers' {sum(text.num_rows for text in whole)} rows and the shares "
            f"{list(share_of.values())} leave no row for a child; raise generate.tokens"
        )
    parts = [
        text.take(np.sort(rng.choice(text.num_rows, count, replace=False)))
        for text, count in zip(whole, counts, strict=True)
    ]
    text = pa.concat_tables(parts)
    artifacts.write_table(out, text.take(rng.permutation(text.num_rows)))
    return counts.tolist()


def _rounded(wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Round numbers by largest remainders, equal ones by lot, so that their sum is kept."""
    wanted = np.round(wanted, 9)  # 0.1 * 3 is no more than 0.3
    counts = np.floor(wanted).astype(np.int64)
    lot = rng.permutation(len(wanted))
    order = lot[np.argsort((counts - wanted)[lot], kind="stable")]
    counts[order[: round(wanted.sum() - counts.sum())]] += 1
    return counts
