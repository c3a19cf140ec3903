"""A founder's segment: the blocks and their order are those of mixture.segment, in one file."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from pollination.core.seeds import derive_seed
from pollination.data import segments
from pollination.data.mixture import segment
from pollination.data.tokens import TokenBlocks, pack_ids
from pollination.evolution.parents import block_prompts

SPEC = {"pool": "p", "tokens": None, "segments": "distinct", "num_segments": 3}


@pytest.fixture(params=[100, 70_000])  # ids of two bytes, and of four
def packed(request, tmp_path):
    """50 blocks of 4 tokens, all different."""
    pack_ids([range(1, 200)], request.param * 3, 4, 0, tmp_path / "train.bin")
    return tmp_path / "train.bin"


@pytest.mark.parametrize("tokens_in_memory", [8, 2**26])
def test_a_segment_holds_the_blocks_of_its_founder_in_their_order(
    packed, tmp_path, monkeypatch, tokens_in_memory
):
    monkeypatch.setattr(segments, "CUT_TOKENS", tokens_in_memory)
    whole, cut = TokenBlocks(packed), []
    for member in range(3):
        path, numbers = tmp_path / f"member{member}.bin", tmp_path / f"member{member}.parquet"
        about = segments.cut(packed, SPEC, member, 7, path, numbers)
        expected = segment(whole, 4, SPEC, member, derive_seed(7, "slices"))
        found = TokenBlocks(path)
        assert about["blocks"] == len(found) == len(expected) and found.eos_id == whole.eos_id
        assert found.tokens_NT.dtype == whole.tokens_NT.dtype
        everywhere = np.arange(len(expected))
        assert np.array_equal(found.blocks(everywhere), expected.blocks(everywhere))
        assert pq.read_table(numbers)["block"].to_pylist() == expected.chosen.tolist()
        prompts = block_prompts(path, numbers)
        assert [ids for _, ids in prompts] == expected.blocks(everywhere).tolist()
        assert [name for name, _ in prompts] == [f"block{n}" for n in expected.chosen]
        cut += expected.chosen.tolist()
    assert sorted(cut) == list(range(50))


def test_a_segment_longer_than_its_corpus_is_refused(packed, tmp_path):
    with pytest.raises(ValueError, match="founder 1 needs 240 tokens of text, but its corpus has"):
        segments.cut(
            packed,
            SPEC | {"tokens": 120, "num_segments": None},
            1,
            7,
            tmp_path / "member1.bin",
            tmp_path / "member1.parquet",
        )
    assert not (tmp_path / "member1.bin").exists()
