"""Mixtures of the text of several writers."""

import numpy as np
import pyarrow as pa
import pytest

from pollination.core import artifacts
from pollination.evolution.dealing import mix


def written(folder, *rows_of_shards: int) -> list:
    """Write the shards of each writer: as many files of so many rows."""
    paths = []
    for writer, rows in enumerate(rows_of_shards):
        for shard, count in enumerate(np.atleast_1d(rows)):
            paths.append(folder / f"synthetic{writer}" / f"shard{shard}.parquet")
            paths[-1].parent.mkdir(exist_ok=True)
            table = pa.table({"writer": [writer] * count, "row": list(range(count))})
            artifacts.write_table(paths[-1], table)
    return paths


@pytest.mark.parametrize(
    ("rows", "shares", "expected"),
    [
        ([[1] * 4] * 4, [0.7, 0.1, 0.1, 0.1], [3, 1]),  # 2.8 and three times 0.4
        ([[43] * 2] * 16, [0.5] + [0.5 / 15] * 15, [43, 43]),
        ([[10] * 8] * 3, [0.0, 0.5, 0.5], [0, 80]),
    ],
)
def test_shares_are_kept_over_all_shards_and_writers(tmp_path, rows, shares, expected):
    """As the first writer's rows, and those of all others."""
    paths = written(tmp_path, *rows)
    each = [share for share in shares for _ in rows[0]]
    counts = mix(paths, each, 1, tmp_path / "text.parquet")
    assert [counts[0], sum(counts[1:])] == expected and max(counts[1:]) - min(counts[1:]) <= 1
    text = artifacts.read_table(tmp_path / "text.parquet")
    assert np.bincount(text["writer"], minlength=len(shares)).tolist() == counts
    last = {tuple(mix(paths, each, seed, tmp_path / "text.parquet")) for seed in range(10)}
    assert len(last) > 1 or counts[1] == counts[-1]  # the same writer is not always left out


def test_a_child_without_a_row_is_refused(tmp_path):
    paths = written(tmp_path, 1, 1)
    with pytest.raises(ValueError, match=r"2 rows and the shares \[0.2, 0.2\] leave no row"):
        mix(paths, [0.2, 0.2], 1, tmp_path / "text.parquet")
    assert not (tmp_path / "text.parquet").exists()


def test_a_mixture_draws_random_rows_of_each_writer_by_share_and_shuffles_them(tmp_path):
    paths = written(tmp_path, 40, 20)

    def mixed(seed: int) -> list[tuple[int, int]]:
        mix(paths, [0.25, 0.75], seed, tmp_path / "text.parquet")
        rows = artifacts.read_table(tmp_path / "text.parquet").to_pylist()
        return [(row["writer"], row["row"]) for row in rows]

    text = mixed(1)
    assert [sum(writer == w for writer, _ in text) for w in (0, 1)] == [10, 15]
    assert len(set(text)) == 25 and text != sorted(text)
    assert {row for writer, row in text if writer == 0} != set(range(10))
    assert mixed(1) == text != mixed(2)
