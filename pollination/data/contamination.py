"""Find benchmark questions that occur word for word in training text."""

import re
import unicodedata
from collections.abc import Iterable
from itertools import chain, repeat
from pathlib import Path

import numpy as np

from pollination.data.files import read_documents

# A question is found by its first words. Shorter questions match by chance: they are not checked.
SHINGLE_WORDS = 8
BATCH_CHARACTERS = 2_000_000
EXAMPLES = 10

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


def overlap(folder: Path, questions: Iterable[str]) -> dict:
    """Count the questions that occur in a training document as a contiguous word sequence.

    Questions and documents are compared as words of letters and digits, in NFKC and lower case.
    Return the counts questions (all), not_checked (shorter than 8 words) and overlapping, and up to
    10 examples {question, doc_id}.
    """
    asked = list(questions)
    texts: dict[tuple[str, ...], list[str]] = {}
    for text in asked:
        texts.setdefault(tuple(normalised_words(text)), []).append(text)
    long = {words: originals for words, originals in texts.items() if len(words) >= SHINGLE_WORDS}
    shingles, matches = _Shingles(long), {}  # matches: a question's words -> doc_id

    def search(words: list[str], documents: list[tuple[int, str]]) -> None:
        ends = [end for end, _ in documents]
        for start in shingles.find(words):
            for question in shingles.by_start.get(tuple(words[start : start + SHINGLE_WORDS]), ()):
                stop = start + len(question)
                if question not in matches and tuple(words[start:stop]) == question:
                    document = int(np.searchsorted(ends, start, side="right"))
                    matches[question] = documents[document][1]

    words, documents, characters = [], [], 0
    for doc_id, text in read_documents(folder, "train") if long else ():
        # no question contains the word "", so no match spans two documents
        words += [*normalised_words(text), ""]
        documents.append((len(words), doc_id))
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            search(words, documents)
            words, documents, characters = [], [], 0
    search(words, documents)
    return {
        "questions": len(asked),
        "not_checked": sum(len(texts[words]) for words in texts if words not in long),
        "overlapping": sum(len(long[question]) for question in matches),
        "examples": [
            {"question": long[question][0], "doc_id": doc_id}
            for question, doc_id in list(matches.items())[:EXAMPLES]
        ],
    }
