"""Count the words of a corpus's training text in bounded memory.

A model can learn no other words.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pandas as pd

from pollination.core import artifacts
from pollination.data.files import read_documents
from pollination.data.words import words

READ_CHARACTERS = 1_000_000_000  # of a longer text, only every n-th document is read
KEPT_WORDS = 2_000_000  # these need a few hundred MiB; rarer words are dropped
LONGEST_WORD = 64


def count_words(texts: Iterable[str], kept: int = KEPT_WORDS) -> pd.DataFrame:
    """Return the columns word and count, by falling count.

    If there are more than `kept` words, the rarest words so far are dropped.
    """
    counts: Counter = Counter()
    for text in texts:
        counts.update(word for _, _, word in words(text) if len(word) <= LONGEST_WORD)
        least = 1
        while len(counts) > kept:
            counts = Counter({word: count for word, count in counts.items() if count > least})
            least += 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return pd.DataFrame(
        {
            "word": [word for word, _ in ordered],
            "count": pd.Series([count for _, count in ordered], dtype="int64"),
        }
    )


def vocabulary(folder: Path, most: int = READ_CHARACTERS) -> pd.DataFrame:
    """Count the words of a corpus folder's training text, or of about `most` characters of it."""
    characters = artifacts.read_json(folder / "corpus.json")["characters"]["train"]
    step = max(1, -(-characters // most))
    return count_words(text for _, text in islice(read_documents(folder, "train"), 0, None, step))
