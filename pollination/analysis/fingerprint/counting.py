"""Fingerprints of raw outputs, as the Slop Forensics toolkit (June 2025) defines them.

Text is normalised: NFKC, letters and marks in lower case, all other characters a space. Words have
at least 4 letters, and occur in the outputs of at least 2 prompts and at least 6 times in total.
The score of a word is its share of these words over its share of English (wordfreq). Bigrams and
trigrams consist of NLTK's alphabetic tokens without stopwords, occur in the outputs of at least 2
prompts, and are ranked by count. Ties are broken by name, so the order of rows has no effect.

One pass reads the text and stores each model as an array of word numbers, 4 bytes each. Each
distinct word is tokenised once, and all counting follows at the end.
"""

import unicodedata
from array import array
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from nltk.tokenize import NLTKWordTokenizer
from wordfreq import word_frequency

from pollination.core.datafiles import read_rows
from pollination.core.datafiles.formats import place
from pollination.core.datafiles.text import is_encodable

RARE = 1e-12  # English frequency of a word that wordfreq does not know
COLUMNS = ("model", "prompt_id", "output")
SIGN = " | "  # separator of words; the tokenizer keeps it
END = " "  # ends an output, so that no n-gram spans two outputs; no word contains a space


class _Letters(dict):
    """A table for str.translate, filled on demand: letters and marks in lower case, or a space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = character.lower() if unicodedata.category(character)[0] in "LM" else " "
        return self[code]


_LETTERS = _Letters()


def normalise(text: str) -> str:
    return unicodedata.normalize("NFKC", text).translate(_LETTERS)


def snowball_stopwords() -> frozenset[str]:
    """Return the Snowball project's English list, as the package stop-words ships it."""
    from stop_words import get_stop_words

    return frozenset(get_stop_words("en"))


class _Numbers(dict):
    """text -> its number, in order of arrival."""

    def __missing__(self, text: str) -> int:
        self[text] = len(self)
        return self[text]


class Counter:
    """Counter of the outputs of many models; `settings` is the config's `count`."""

    def __init__(self, settings: dict, stopwords: frozenset[str]) -> None:
        self.settings = settings
        self.stopwords = frozenset(piece for word in stopwords for piece in normalise(word).split())
        self.models: dict[str, _Model] = {}
        self.numbers = _Numbers({END: 0})  # of words as they are written
        self.words: list[str] = []  # in the order of their numbers
        self.tokens: list[str] = []
        self.tokenize = NLTKWordTokenizer().tokenize

    def add(self, model: str, prompt_id: str, output: str | None) -> None:
        """Add one output; None and text shorter than min_characters count as dropped."""
        counted = self.models.setdefault(model, _Model())
        if output is None or len(output) < max(1, self.settings["min_characters"]):
            counted.dropped += 1
            return
        written = normalise(output).split()[: self.settings["output_words"]]
        counted.words.extend(map(self.numbers.__getitem__, written))
        counted.words.append(self.numbers[END])
        counted.lengths.append(len(written) + 1)
        counted.prompts.append(counted.prompt_numbers[prompt_id])

    def fingerprints(self) -> list[dict]:
        """Return one fingerprint per model, sorted by name: the toolkit's fields and counts."""
        self.words, numbers, flat, counts = list(self.numbers), _Numbers(), [], []
        # normalised text does not contain the separator, so one call tokenises all distinct words
        for word in " ".join(self.tokenize(SIGN.join(self.words))).split(SIGN.strip()):
            tokens = [
                numbers[token]
                for token in word.split()
                if token.isalpha() and token not in self.stopwords
            ]
            flat += tokens
            counts.append(len(tokens))
        flat[:0], counts[0] = [-1], 1  # of END
        self.tokens = list(numbers)
        long = np.array(
            [word != END and len(word) >= self.settings["min_letters"] for word in self.words]
        )
        tables = long, np.array(counts), np.array(flat, dtype=np.int32)
        return [self._fingerprint(name, self.models[name], *tables) for name in sorted(self.models)]

    def _fingerprint(
        self, name: str, model: "_Model", long: np.ndarray, counts: np.ndarray, flat: np.ndarray
    ) -> dict:
        """Return the fingerprint of one model.

        `long`: whether each word is long enough; `counts`: number of tokens per word; `flat`: the
        numbers of these tokens, word after word.
        """
        settings, prompts, outputs = self.settings, len(model.prompt_numbers), len(model.lengths)
        head = {
            "model_name": name,
            "outputs": outputs,
            "dropped": model.dropped,
            "prompts": prompts,
            "words_written": len(model.words) - outputs,
        }
        words = np.array(model.words)
        prompts_of = np.repeat(np.array(model.prompts), np.array(model.lengths))
        known, unknown = self._top_words(words[long[words]], prompts_of[long[words]], prompts)
        spread = counts[words]
        # from a token's place here to its place in `flat`
        shifts = (np.cumsum(counts) - counts)[words] - (np.cumsum(spread) - spread)
        tokens = flat[np.repeat(shifts, spread) + np.arange(spread.sum())]
        bigrams, trigrams = (
            self._top_ngrams(tokens, np.repeat(prompts_of, spread), prompts, length, settings[key])
            for length, key in ((2, "bigrams"), (3, "trigrams"))
        )
        return head | {
            "top_repetitive_words": known[: settings["words"]],
            "zero_frequency_words": unknown[: settings["unknown_words"]],
            "top_bigrams": bigrams,
            "top_trigrams": trigrams,
        }

    def _top_words(
        self, words: np.ndarray, prompts_of: np.ndarray, prompts: int
    ) -> tuple[list[dict], list[dict]]:
        """Return (English words, words that English does not have), each sorted."""
        numbers, counts = _recurring(words, prompts_of, prompts, self.settings["min_prompts"])
        enough = counts >= self.settings["min_count"]
        numbers, counts = numbers[enough], counts[enough]
        known, unknown, total = [], [], int(counts.sum())
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            word, share = self.words[number], count / total
            english = _english(word)
            if english > 0:
                known.append({"word": word, "score": share / max(english, RARE), "count": count})
            else:
                unknown.append({"word": word, "corpus_freq": share, "count": count})
        known.sort(key=lambda entry: (-entry["score"], entry["word"]))
        unknown.sort(key=lambda entry: (-entry["count"], entry["word"]))
        return known, unknown

    def _top_ngrams(
        self, tokens: np.ndarray, prompts_of: np.ndarray, prompts: int, length: int, top: int
    ) -> list[dict]:
        if len(tokens) <= length or top == 0:
            return []
        keys = tokens[: len(tokens) - length + 1].astype(np.int64)
        inside = np.ones(len(keys), dtype=bool)
        first, steps = keys, []
        for step in range(1, length):
            following = tokens[step : step + len(keys)]
            inside &= following >= 0
            # renumber, so that keys of any length fit 64 bits
            seen, place = np.unique(keys, return_inverse=True)
            steps.append(seen)
            keys = place * (len(self.tokens) + 1) + following + 1
        inside &= first >= 0
        numbers, counts = _recurring(
            keys[inside], prompts_of[: len(keys)][inside], prompts, self.settings["min_prompts"]
        )
        if len(counts) > top:
            least = np.partition(counts, -top)[-top]
            numbers, counts = numbers[counts >= least], counts[counts >= least]
        entries = []
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            parts = []
            for seen in reversed(steps):
                number, last = divmod(number, len(self.tokens) + 1)
                parts.append(self.tokens[last - 1])
                number = int(seen[number])
            ngram = " ".join([self.tokens[number], *reversed(parts)])
            entries.append({"ngram": ngram, "frequency": count})
        entries.sort(key=lambda entry: (-entry["frequency"], entry["ngram"]))
        return entries[:top]


class _Model:
    """One model's text: word numbers with END after each output, their lengths and prompts."""

    def __init__(self) -> None:
        self.dropped = 0
        self.prompt_numbers = _Numbers()
        self.words, self.lengths, self.prompts = (array("i") for _ in range(3))


@cache
def _english(word: str) -> float:
    return word_frequency(word, "en")


def _recurring(
    items: np.ndarray, prompts_of: np.ndarray, prompts: int, least: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (items in the outputs of at least `least` prompts, their counts)."""
    numbers, place, counts = np.unique(items, return_inverse=True, return_counts=True)
    pairs = np.unique(place.astype(np.int64) * max(1, prompts) + prompts_of)
    enough = np.bincount(pairs // max(1, prompts), minlength=len(numbers)) >= least
    return numbers[enough], counts[enough]


def read_outputs(path: str | Path, columns: tuple[str, ...] = COLUMNS) -> Iterator[tuple]:
    """Yield the named columns of each row of a file, which is streamed.

    A null output is None; a null name or prompt is an error.
    """
    *names, output = columns
    for number, *cells, text in read_rows(path, columns, text=(output,), complete=True):
        if set(map(type, cells)) != {str} or not all(cells) or not "".join(cells).isascii():
            for name, cell in zip(names, cells, strict=True):
                if trouble := _unfit(cell):
                    raise ValueError(f"{place(path, number)}: {name} {trouble}")
            cells = list(map(str, cells))
        if text is not None and not (type(text) is str and (text.isascii() or is_encodable(text))):
            raise ValueError(
                f"{place(path, number)}: {output} {str(text)[:40]!r} is not text that UTF-8 can "
                "hold; write a string or null"
            )
        yield *cells, text


def _unfit(cell: object) -> str | None:
    """Return why a value names no model or prompt; None if it does."""
    if cell is None or cell == "":
        return "is missing; every output needs one"
    if (type(cell) is str and is_encodable(cell)) or (type(cell) in (int, float) and cell == cell):
        return None
    return (
        f"{str(cell)[:40]!r} is neither a number nor text that UTF-8 can hold; write one of these"
    )
