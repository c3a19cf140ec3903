"""What a child reads of the shards: whole texts in order, with or without prompts, up to a budget, in its own tokens."""

import pandas as pd
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pollination import artifacts
from pollination.members import synthetic_ids
from pollination.tokens import vocabulary_id


def words(*names: str) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", unk_token="?")


MINE, OTHER = words("<eos>", "?", "a", "b", "c"), words("c", "b", "<eos>", "?", "a")


@pytest.fixture
def shards(tmp_path):
    texts = [[4, n, n, n, 0] for n in (2, 3, 4, 2, 3)]
    frame = pd.DataFrame({"token_ids": texts, "prompt_tokens": 1, "prompt": "c", "completion": " ? ? ?", "vocabulary": vocabulary_id(MINE)})
    for number, part in enumerate((frame[:3], frame[3:])):
        artifacts.write_table(tmp_path / f"shard{number}.parquet", part)
    return [tmp_path / f"shard{number}.parquet" for number in (0, 1)], texts


def test_texts_are_read_in_order_with_or_without_prompts_up_to_the_budget(shards):
    paths, texts = shards
    assert list(synthetic_ids(paths, True, None, MINE)) == texts
    assert list(synthetic_ids(paths, False, None, MINE)) == [text[1:] for text in texts]
    assert list(synthetic_ids(paths, True, 16, MINE)) == texts[:4]  # the text that reaches the budget is the last


def test_another_familys_text_is_tokenised_anew_and_the_own_familys_ids_are_kept(tmp_path):
    """A pool of two families, dealt together: row by row, whoever wrote it."""
    rows = [
        {"token_ids": [4, 3, 2], "prompt_tokens": 1, "prompt": "c", "completion": " b a", "vocabulary": vocabulary_id(MINE)},
        {"token_ids": [0, 1, 4, 2], "prompt_tokens": 1, "prompt": "c", "completion": " b a", "vocabulary": vocabulary_id(OTHER)},
        {"token_ids": [4, 1, 1], "prompt_tokens": 1, "prompt": "c", "completion": " b a", "vocabulary": vocabulary_id(MINE)},
    ]
    artifacts.write_table(tmp_path / "text.parquet", pd.DataFrame(rows))
    assert list(synthetic_ids([tmp_path / "text.parquet"], True, None, MINE)) == [[4, 3, 2], [4, 3, 2], [4, 1, 1]]
    assert list(synthetic_ids([tmp_path / "text.parquet"], False, None, OTHER)) == [[1, 4], [1, 4, 2], [1, 4]]
    assert vocabulary_id(MINE) == vocabulary_id(words("<eos>", "?", "a", "b", "c")) != vocabulary_id(OTHER)
