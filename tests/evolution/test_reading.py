"""A child reads whole texts of the shards in order, up to a budget and in its own tokens."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pollination.core import artifacts
from pollination.data.encoding import encode
from pollination.data.segments import cut
from pollination.data.tokens import TokenBlocks, pack_ids, vocabulary_id
from pollination.evolution import reading
from pollination.evolution.reading import Training, synthetic_rows, training_blocks, training_rows


def words(*names: str) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", unk_token="?")


MINE, OTHER = words("<eos>", "?", "a", "b", "c"), words("c", "b", "<eos>", "?", "a")


def synthetic_ids(*arguments) -> list[list[int]]:
    """Return the token ids that are trained on, row by row; packing reads the same."""
    parts = list(synthetic_rows(*arguments))
    rows = [ids[first:] for part in parts for ids, first in part.listed()]
    for part in parts:
        ids, lengths = part.trained()
        assert len(lengths) == len(part.lengths) and lengths.sum() == len(ids)
    assert [token for row in rows for token in row] == [
        token for part in parts for token in part.trained()[0].tolist()
    ]
    return rows


@pytest.fixture
def shards(tmp_path):
    texts = [[4, n, n, n, 0] for n in (2, 3, 4, 2, 3)]
    frame = pd.DataFrame(
        {
            "token_ids": texts,
            "prompt_tokens": 1,
            "prompt": "c",
            "completion": " ? ? ?",
            "vocabulary": vocabulary_id(MINE),
        }
    )
    for number, part in enumerate((frame[:3], frame[3:])):
        artifacts.write_table(tmp_path / f"shard{number}.parquet", part)
    return [tmp_path / f"shard{number}.parquet" for number in (0, 1)], texts


def test_texts_are_read_in_order_with_or_without_prompts_up_to_the_budget(shards):
    paths, texts = shards
    assert synthetic_ids(paths, True, None, MINE) == texts
    assert synthetic_ids(paths, False, None, MINE) == [text[1:] for text in texts]
    assert synthetic_ids(paths, True, 16, MINE) == texts[:4]  # the last text reaches the budget


@pytest.mark.parametrize("include_prompt", [True, False])
def test_the_budget_ends_at_the_same_row_however_shards_are_read(
    tmp_path, monkeypatch, include_prompt
):
    """Rows are read in parts; a part may hold own and foreign rows, and rows without a token."""
    generator, rows = np.random.default_rng(2), []
    for _ in range(60):
        first, count = generator.integers(0, 3), generator.integers(0, 4)
        ids = generator.integers(0, 5, first + count).tolist()
        writer = MINE if generator.random() < 0.5 else OTHER
        whole = writer.decode(ids, clean_up_tokenization_spaces=False)
        prompt = writer.decode(ids[:first], clean_up_tokenization_spaces=False)
        rows.append(
            {
                "token_ids": ids,
                "prompt_tokens": int(first),
                "prompt": prompt,
                "completion": whole[len(prompt) :],
                "vocabulary": vocabulary_id(writer),
            }
        )
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for path, part in zip(paths, (rows[:23], rows[23:]), strict=True):
        artifacts.write_table(path, pd.DataFrame(part))
    read = []
    for row in rows:
        ids, first = row["token_ids"], row["prompt_tokens"]
        if row["vocabulary"] != vocabulary_id(MINE):
            opening, rest = (list(map(int, one)) for one in read_by(MINE, row))
            ids, first = opening + rest, len(opening)
        read.append(ids[0 if include_prompt else first :])
    for size in (1, 4, 4096):
        monkeypatch.setattr(reading, "READ_ROWS", size)
        for tokens in (None, 1, 2, 7, 30, 31, 32, 33, 1000):
            expected, left = [], float("inf") if tokens is None else tokens
            for ids in read:
                if left <= 0:
                    break
                left -= len(ids)
                expected.append(ids)
            assert synthetic_ids(paths, include_prompt, tokens, MINE) == expected


def read_by(tokenizer, row: dict) -> list:
    return list(encode([row["prompt"], row["completion"]], tokenizer))


def test_another_familys_text_is_tokenised_anew_and_the_own_familys_ids_are_kept(tmp_path):
    """In a pool of two families, each row is read by the vocabulary that wrote it."""
    rows = [
        {
            "token_ids": [4, 3, 2],
            "prompt_tokens": 1,
            "prompt": "c",
            "completion": " b a",
            "vocabulary": vocabulary_id(MINE),
        },
        {
            "token_ids": [0, 1, 4, 2],
            "prompt_tokens": 1,
            "prompt": "c",
            "completion": " b a",
            "vocabulary": vocabulary_id(OTHER),
        },
        {
            "token_ids": [4, 1, 1],
            "prompt_tokens": 1,
            "prompt": "c",
            "completion": " b a",
            "vocabulary": vocabulary_id(MINE),
        },
    ]
    artifacts.write_table(tmp_path / "text.parquet", pd.DataFrame(rows))
    assert synthetic_ids([tmp_path / "text.parquet"], True, None, MINE) == [
        [4, 3, 2],
        [4, 3, 2],
        [4, 1, 1],
    ]
    assert synthetic_ids([tmp_path / "text.parquet"], False, None, OTHER) == [
        [1, 4],
        [1, 4, 2],
        [1, 4],
    ]
    assert (
        vocabulary_id(MINE)
        == vocabulary_id(words("<eos>", "?", "a", "b", "c"))
        != vocabulary_id(OTHER)
    )


def training(tmp_path, **change) -> Training:
    """A child of generation 2 that reads the shards and human text of 40 blocks of 4 tokens."""
    if not (tmp_path / "human.bin").exists():
        pack_ids([[2, 3, 4, 2]] * 39 + [[3, 3, 3, 3]], 5, 4, 0, tmp_path / "human.bin", "none")
        spec = {"pool": "p", "tokens": 40, "segments": "distinct", "num_segments": None}
        paths = tmp_path / "segment.bin", tmp_path / "segment.parquet"
        cut(tmp_path / "human.bin", spec, 1, 1, *paths)
    settings = {"include_prompt": True, "tokens": None}
    given = {
        "generation": 2,
        "member": 1,
        "seed": 1,
        "human_seed": 7,
        "settings": settings,
        "text": "own",
        "human": {"fraction": 0.0, "accumulate": "none"},
        "separator": "eos",
        "segment": tmp_path / "segment.bin",
        "packed": tmp_path / "human.bin",
        "shards": [],
    }
    return Training(**given | change)


@pytest.mark.parametrize("separator", ["eos", "none"])
@pytest.mark.parametrize("accumulate", ["none", "all", "fixed"])
@pytest.mark.parametrize("tokens", [None, 6])
def test_what_is_measured_is_what_is_read(shards, tmp_path, separator, accumulate, tokens):
    """Blocks of the training and rows of the measurement hold the same human text."""
    settings = {"include_prompt": False, "tokens": tokens}
    human = {"fraction": 0.5 if accumulate == "none" else 0.0, "accumulate": accumulate}
    change = {"packed": None} if accumulate != "none" else {}  # as the plan has it
    change |= {"separator": separator, "settings": settings, "human": human, "shards": shards[0]}
    one = training(tmp_path, **change)
    blocks = training_blocks(one, MINE, 5, 4, tmp_path)
    (_, _, share), (human_rows, _, human_share) = training_rows(one, MINE)
    if accumulate == "none":
        drawn = blocks.human_blocks.blocks(blocks.human[blocks.human >= 0]).tolist()
        assert [ids for ids, _ in human_rows] == drawn and len(drawn) == round(len(blocks) / 2)
        assert (share, human_share) == (0.5, 1.0)
        return
    read = len(rounds(one)) + len(human_rows)
    assert [ids for ids, _ in human_rows] == one.own_segment().blocks(np.arange(10)).tolist()
    assert share == human_share == pytest.approx(len(blocks) / read)
    assert len(blocks) < read if accumulate == "fixed" else len(blocks) == read


@pytest.mark.parametrize("accumulate", ["none", "all"])
def test_the_segment_may_be_a_copy_on_another_disk(shards, tmp_path, accumulate):
    """The packed corpus, of which few blocks are read, is never copied."""
    opened = []

    def opens(path):
        opened.append(path)
        return TokenBlocks(path, open(path, "r+b"))

    human = {"fraction": 0.0, "accumulate": accumulate}
    text = {"text": "human" if accumulate == "none" else "own", "human": human}
    plain = training(tmp_path, shards=shards[0], packed=None, **text)
    found = training_blocks(replace(plain, opens=opens), MINE, 5, 4, tmp_path)
    expected = training_blocks(plain, MINE, 5, 4, tmp_path)
    every = np.arange(len(expected))
    assert np.array_equal(found.blocks(every), expected.blocks(every))
    assert opened == [tmp_path / "segment.bin"]


def rounds(one: Training) -> list[list[int]]:
    """Return the blocks of all synthetic text. Each round is packed on its own."""
    blocks = []
    for shards in one.rounds:
        parts = one.synthetic_rows(shards, MINE)
        rows = [ids[first:] for part in parts for ids, first in part.listed()]
        eos = [0] if one.separator == "eos" else []
        ids = [token for row in rows for token in row + (eos if row[-1:] != [0] else [])]
        blocks += [ids[start : start + 4] for start in range(0, len(ids) - 3, 4)]
    return blocks
