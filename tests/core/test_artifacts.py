"""Artifacts are whole or absent, and damage is found."""

import os

import pandas as pd
import pytest

from pollination.core import artifacts
from pollination.core.artifacts import DamagedArtifact
from pollination.core.seeds import derive_seed


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    artifacts.write_json(path, {"x": 1})
    with pytest.raises(RuntimeError), artifacts.atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert artifacts.read_json(path) == {"x": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_nan_never_enters_a_json_artifact(tmp_path):
    with pytest.raises(ValueError, match="x: nan is not a finite number"):
        artifacts.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("record", ["run.json", "shard0.run.json", "scores.run.json"])
def test_check_finds_damage_through_the_record_wherever_it_stands(tmp_path, record):
    path = tmp_path / "shard0.parquet"
    artifacts.write_table(path, pd.DataFrame({"a": [1, 2]}))
    artifacts.write_json(tmp_path / record, {"outputs": {path.name: artifacts.digest(path)}})
    assert artifacts.check(path) == artifacts.digest(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedArtifact, match="differs from the"):
        artifacts.check(path)
    path.write_bytes(b"")
    with pytest.raises(DamagedArtifact, match="empty"):
        artifacts.check(path)


def test_a_truncated_table_and_an_absent_column_are_named(tmp_path):
    path = tmp_path / "t.parquet"
    artifacts.write_table(path, pd.DataFrame({"a": range(1000)}))
    with pytest.raises(DamagedArtifact, match="column 'b' is missing; the file has a;"):
        artifacts.read_table(path, ["b"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamagedArtifact, match="not a readable parquet file"):
        artifacts.read_table(path)


@pytest.mark.parametrize(
    "content", [b'{"x": 1', b'{"x": "\xff"}', b"[" * 100_000, b'{"x": ' + b"1" * 5000 + b"}", b""]
)
def test_json_that_cannot_be_read_is_damage_of_whatever_kind(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DamagedArtifact, match="a.json: not valid JSON"):
        artifacts.read_json(tmp_path / "a.json")


def test_a_record_is_as_it_was_written_to_the_byte(tmp_path):
    path = tmp_path / "run.json"
    artifacts.write_json(path, artifacts.seal({"outputs": {"a": "1"}}))
    text = path.read_text()
    assert artifacts.read_record(path)["outputs"] == {"a": "1"}
    for changed in (text.replace('"1"', '"2"'), text.replace(" ", "\t", 1), text + "\n"):
        path.write_text(changed)
        with pytest.raises(DamagedArtifact, match="was changed after it was written"):
            artifacts.read_record(path)


def test_seeds_are_stable_and_distinct():
    assert derive_seed(42, "train", 1, 0) == derive_seed(42, "train", 1, 0) == 2920317249270106640
    assert (
        len(
            {
                derive_seed(42, stage, g, m)
                for stage in ("train", "mutate")
                for g in range(9)
                for m in range(9)
            }
        )
        == 162
    )
    assert derive_seed(1, 23) != derive_seed(12, 3)
