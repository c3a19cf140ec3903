"""What a child reads of the shards: whole texts in order, with or without prompts, up to a budget."""

import pandas as pd

from pollination import artifacts
from pollination.members import synthetic_ids


def test_texts_are_read_in_order_with_or_without_prompts_up_to_the_budget(tmp_path):
    texts = [[9, n, n, n, 0] for n in range(1, 6)]
    paths = [tmp_path / "shard0.parquet", tmp_path / "shard1.parquet"]
    for path, part in zip(paths, (texts[:3], texts[3:]), strict=True):
        artifacts.write_table(path, pd.DataFrame({"token_ids": part, "prompt_tokens": 1}))
    assert list(synthetic_ids(paths, True, None)) == texts
    assert list(synthetic_ids(paths, False, None)) == [text[1:] for text in texts]
    assert list(synthetic_ids(paths, True, 16)) == texts[:4]  # the text that reaches the budget is the last
