"""Mixtures of the text of several writers."""

import pyarrow as pa

from pollination.core import artifacts
from pollination.evolution.dealing import mix


def test_a_mixture_draws_random_rows_of_each_shard_by_share_and_shuffles_them(tmp_path):
    paths = []
    for writer, rows in enumerate((40, 20)):
        paths.append(tmp_path / f"{writer}.parquet")
        table = pa.table({"writer": [writer] * rows, "row": list(range(rows))})
        artifacts.write_table(paths[-1], table)

    def mixed(seed: int) -> list[tuple[int, int]]:
        mix(paths, [0.25, 0.75], seed, tmp_path / "text.parquet")
        rows = artifacts.read_table(tmp_path / "text.parquet").to_pylist()
        return [(row["writer"], row["row"]) for row in rows]

    text = mixed(1)
    assert [sum(writer == w for writer, _ in text) for w in (0, 1)] == [10, 15]
    assert len(set(text)) == 25 and text != sorted(text)
    assert {row for writer, row in text if writer == 0} != set(range(10))
    assert mixed(1) == text != mixed(2)
