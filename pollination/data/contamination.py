"""Find benchmark questions that occur word for word in text that models read."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path

import numpy as np

from pollination.core import artifacts
from pollination.data.files import read_documents

# A question is found by its first words. Shorter questions match by chance: they are not checked.
SHINGLE_WORDS = 8
BATCH_CHARACTERS = 2_000_000
EXAMPLES = 10
# Models train on train and continue prompts; validation text chooses checkpoints. Test text is only
# measured: no model trains on it, and nothing is chosen by it.
READ_SPLITS = ("train", "validation", "prompts")

_WORD = re.compile(r"[^\W_]+")
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no word's weight vanishes modulo 2**64


def normalised_words(text: str) -> list[str]:
    """Return the words of letters and digits, in NFKC and lower case."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


class _Shingles:
    """Shingles (the first 8 words of questions) to find in a long list of words."""

    def __init__(self, questions: Iterable[tuple[str, ...]]) -> None:
        self.by_start: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        for question in questions:
            self.by_start.setdefault(question[:SHINGLE_WORDS], []).append(question)
        self.ids = {
            word: number
            for number, word in enumerate(sorted({*chain.from_iterable(self.by_start)}), start=1)
        }
        rows = np.array(
            [[self.ids[word] for word in start] for start in self.by_start], dtype=np.uint64
        ).reshape(-1, SHINGLE_WORDS)
        self.hashes = np.unique(self._hash(rows.T))

    @staticmethod
    def _hash(columns: Iterable[np.ndarray]) -> np.ndarray:
        """Return a polynomial of 8 word ids modulo 2**64 (the integers wrap on purpose)."""
        total = np.zeros((), dtype=np.uint64)
        for column in columns:
            total = total * _BASE + column
        return total

    def find(self, words: list[str]) -> list[int]:
        """Return positions with the hash of a shingle. The caller must compare the words."""
        count = len(words) - SHINGLE_WORDS + 1
        if count < 1 or not len(self.hashes):
            return []
        ids = np.fromiter(map(self.ids.get, words, repeat(0)), dtype=np.uint64, count=len(words))
        hashes = self._hash(ids[start : start + count] for start in range(SHINGLE_WORDS))
        unknown = np.concatenate([[0], np.cumsum(ids == 0)])
        # few windows consist of known words only, so few hashes are looked up
        starts = np.flatnonzero(unknown[SHINGLE_WORDS:] == unknown[:count])
        places = np.searchsorted(self.hashes, hashes[starts]).clip(max=len(self.hashes) - 1)
        return starts[self.hashes[places] == hashes[starts]].tolist()


class Questions:
    """Benchmark questions to find in documents as a contiguous sequence of words.

    Questions and documents are compared as words of letters and digits, in NFKC and lower case.
    Questions of fewer than 8 words are not looked for (`not_checked` counts them).
    """

    def __init__(self, questions: Iterable[str]) -> None:
        self.texts: dict[tuple[str, ...], list[str]] = {}  # words -> the questions as written
        for text in questions:
            self.texts.setdefault(tuple(normalised_words(text)), []).append(text)
        self.total = sum(map(len, self.texts.values()))
        self.not_checked = sum(
            len(texts) for words, texts in self.texts.items() if len(words) < SHINGLE_WORDS
        )
        self._shingles = _Shingles(words for words in self.texts if len(words) >= SHINGLE_WORDS)

    def search(
        self, documents: Iterable[tuple[str, str]]
    ) -> Iterator[tuple[str, str, list[tuple[str, ...]]]]:
        """Yield (doc_id, text, the words of each question in it) of every document, in order."""
        batch: list[tuple[str, str]] = []
        characters = 0
        for doc_id, text in documents:
            batch.append((doc_id, text))
            characters += len(text)
            if characters >= BATCH_CHARACTERS:
                yield from self._search(batch)
                batch, characters = [], 0
        yield from self._search(batch)

    def _search(
        self, batch: list[tuple[str, str]]
    ) -> Iterator[tuple[str, str, list[tuple[str, ...]]]]:
        found: list[dict[tuple[str, ...], None]] = [{} for _ in batch]
        if len(self._shingles.hashes):
            words: list[str] = []
            ends = []
            for _, text in batch:
                # no question contains the word "", so no match spans two documents
                words += [*normalised_words(text), ""]
                ends.append(len(words))
            for start in self._shingles.find(words):
                beginning = tuple(words[start : start + SHINGLE_WORDS])
                for question in self._shingles.by_start.get(beginning, ()):
                    if tuple(words[start : start + len(question)]) == question:
                        found[int(np.searchsorted(ends, start, side="right"))][question] = None
        for (doc_id, text), questions in zip(batch, found, strict=True):
            yield doc_id, text, list(questions)


def read_questions(paths: Iterable[Path]) -> list[str]:
    """Return the questions of staged tasks (their questions.parquet)."""
    return [text for path in paths for text in artifacts.read_table(path)["question"].to_pylist()]


def overlap(folder: Path, questions: Iterable[str]) -> dict:
    """Count the questions that occur in the text of a corpus folder that models read.

    That text is the splits READ_SPLITS. Return the counts questions (all), not_checked (shorter
    than 8 words) and overlapping, and up to 10 examples {question, doc_id, split}.
    """
    asked = Questions(questions)
    matches: dict[tuple[str, ...], dict] = {}
    for split in READ_SPLITS if asked.total > asked.not_checked else ():
        for doc_id, _, found in asked.search(read_documents(folder, split)):
            for words in found:
                place = {"question": asked.texts[words][0], "doc_id": doc_id, "split": split}
                matches.setdefault(words, place)
    return {
        "questions": asked.total,
        "not_checked": asked.not_checked,
        "overlapping": sum(len(asked.texts[words]) for words in matches),
        "examples": list(matches.values())[:EXAMPLES],
    }


def refuse(corpus: str, overlaps: dict, allowed: int) -> None:
    """Raise ValueError if more than `allowed` questions (`max_overlap`) occur in a corpus."""
    if overlaps["overlapping"] > allowed:
        where, example = f"corpora.{corpus}", overlaps["examples"][0]
        raise ValueError(
            f"{where}: text that models read contains {overlaps['overlapping']} benchmark "
            f"questions, e.g. {example!r}; allowed: max_overlap = {allowed}. Set "
            f"{where}.on_overlap to remove, which drops these documents, or raise "
            f"{where}.max_overlap"
        )
