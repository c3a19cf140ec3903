"""From raw outputs to fingerprints, by the definition of the Slop Forensics toolkit (version of June 2025), in one pass over the text.

Text is normalised (NFKC; letters and marks kept and lower-cased, all else a space). Words have 4 letters or more, stand in the outputs to 2
prompts and 6 times in all; each is scored by its share of these words over its share of English (wordfreq). Bigrams and trigrams are of NLTK's
alphabetic tokens without stopwords, in the outputs to 2 prompts, ranked by count. Ties are broken by name, so the order of rows means nothing.

While text streams by, a model is two arrays of numbers (words, tokens) with the prompt of each: 16 bytes a word, whatever is counted later.
"""

import json
import unicodedata
from array import array
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from nltk.tokenize import NLTKWordTokenizer
from wordfreq import word_frequency

RARE = 1e-12  # English frequency of a word that wordfreq does not know
COLUMNS = ("model", "prompt_id", "output")


class _Letters(dict):
    """A table for str.translate that is filled as characters come: letters and marks to lower case, all else to a space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = character.lower() if unicodedata.category(character)[0] in "LM" else " "
        return self[code]


_LETTERS = _Letters()


def normalise(text: str) -> str:
    return unicodedata.normalize("NFKC", text).translate(_LETTERS)


def snowball_stopwords() -> frozenset[str]:
    """The English list of the Snowball project, as the package stop-words ships it."""
    from stop_words import get_stop_words

    return frozenset(get_stop_words("en"))


class Counter:
    """Counts the outputs of many models at once; `settings` is the config's `count`, `stopwords` a set of words."""

    def __init__(self, settings: dict, stopwords: frozenset[str]) -> None:
        self.settings = settings
        self.stopwords = frozenset(piece for word in stopwords for piece in normalise(word).split())
        self.models: dict[str, _Model] = {}
        self.words: list[str] = []  # number -> word or token
        self.numbers: dict[str, int] = {}
        self.seen: dict[str, tuple[int, tuple[int, ...]]] = {}  # word -> its number (-1: too short), its tokens' numbers
        self.tokenize = NLTKWordTokenizer().tokenize

    def add(self, model: str, prompt_id: str, output: str | None) -> None:
        """One output. None and what is shorter than min_characters are counted as dropped."""
        counted = self.models.setdefault(model, _Model())
        if output is None or len(output) < max(1, self.settings["min_characters"]):
            counted.dropped += 1
            return
        prompt = counted.prompts.setdefault(prompt_id, len(counted.prompts))
        written = normalise(output).split()[: self.settings["output_words"]]
        looked_up = [self.seen.get(word) or self._look(word) for word in written]
        words = [number for number, _ in looked_up if number >= 0]
        tokens = [number for _, numbers in looked_up for number in numbers]
        counted.outputs += 1
        counted.written += len(written)
        counted.words.extend(words)
        counted.word_prompts.extend([prompt] * len(words))
        counted.tokens.extend([*tokens, -1])  # an n-gram does not reach into the next output
        counted.token_prompts.extend([prompt] * (len(tokens) + 1))

    def _look(self, word: str) -> tuple[int, tuple[int, ...]]:
        """Normalised text holds no sign that could join words, so a word is tokenised alone, and once."""
        tokens = [token for token in self.tokenize(word) if token.isalpha() and token not in self.stopwords]
        number = self._number(word) if len(word) >= self.settings["min_letters"] else -1
        self.seen[word] = number, tuple(self._number(token) for token in tokens)
        return self.seen[word]

    def _number(self, word: str) -> int:
        if word not in self.numbers:
            self.numbers[word] = len(self.words)
            self.words.append(word)
        return self.numbers[word]

    def fingerprints(self) -> list[dict]:
        """A fingerprint a model, by name, in the toolkit's own shape with a few counts beside it."""
        return [self._fingerprint(name, self.models[name]) for name in sorted(self.models)]

    def _fingerprint(self, name: str, model: "_Model") -> dict:
        settings, prompts = self.settings, len(model.prompts)
        head = {"model_name": name, "outputs": model.outputs, "dropped": model.dropped, "prompts": prompts, "words_written": model.written}
        words, unknown = self._top_words(np.array(model.words), np.array(model.word_prompts), prompts)
        tokens, token_prompts = np.array(model.tokens), np.array(model.token_prompts)
        bigrams, trigrams = (
            self._top_ngrams(tokens, token_prompts, prompts, length, settings[key]) for length, key in ((2, "bigrams"), (3, "trigrams"))
        )
        return head | {
            "top_repetitive_words": words[: settings["words"]],
            "zero_frequency_words": unknown[: settings["unknown_words"]],
            "top_bigrams": bigrams,
            "top_trigrams": trigrams,
        }

    def _top_words(self, words: np.ndarray, prompts_of: np.ndarray, prompts: int) -> tuple[list[dict], list[dict]]:
        """(known to English, unknown to it), each sorted."""
        numbers, counts = _recurring(words, prompts_of, prompts, self.settings["min_prompts"])
        numbers, counts = numbers[counts >= self.settings["min_count"]], counts[counts >= self.settings["min_count"]]
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

    def _top_ngrams(self, tokens: np.ndarray, prompts_of: np.ndarray, prompts: int, length: int, top: int) -> list[dict]:
        if len(tokens) <= length or top == 0:
            return []
        keys, inside = tokens[: len(tokens) - length + 1].astype(np.int64), np.ones(len(tokens) - length + 1, dtype=bool)
        first, steps = keys, []
        for step in range(1, length):
            following = tokens[step : step + len(keys)]
            inside &= following >= 0
            seen, place = np.unique(keys, return_inverse=True)  # small numbers again, so that keys of any length fit 64 bits
            steps.append(seen)
            keys = place * (len(self.words) + 1) + following + 1
        inside &= first >= 0
        numbers, counts = _recurring(keys[inside], prompts_of[: len(keys)][inside], prompts, self.settings["min_prompts"])
        if len(counts) > top:
            least = np.partition(counts, -top)[-top]
            numbers, counts = numbers[counts >= least], counts[counts >= least]
        found = []
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            parts = []
            for seen in reversed(steps):
                number, last = divmod(number, len(self.words) + 1)
                parts.append(self.words[last - 1])
                number = int(seen[number])
            found.append({"ngram": " ".join([self.words[number], *reversed(parts)]), "frequency": count})
        found.sort(key=lambda entry: (-entry["frequency"], entry["ngram"]))
        return found[:top]


class _Model:
    """What one model has written so far."""

    def __init__(self) -> None:
        self.outputs = self.dropped = self.written = 0
        self.prompts: dict[str, int] = {}
        self.words, self.word_prompts, self.tokens, self.token_prompts = (array("i") for _ in range(4))


@cache
def _english(word: str) -> float:
    return word_frequency(word, "en")


def _recurring(items: np.ndarray, prompts_of: np.ndarray, prompts: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """(items that stand in the outputs to `least` prompts or more, how often each stands there in all)."""
    numbers, place, counts = np.unique(items, return_inverse=True, return_counts=True)
    pairs = np.unique(place.astype(np.int64) * max(1, prompts) + prompts_of)
    enough = np.bincount(pairs // max(1, prompts), minlength=len(numbers)) >= least
    return numbers[enough], counts[enough]


def read_outputs(path: str | Path, columns: tuple[str, ...] = COLUMNS) -> Iterator[tuple]:
    """The named columns of each row of a parquet or jsonl file, read piece by piece. A null output is None; a null name or prompt an error."""
    path = Path(path)
    for number, row in enumerate(_parquet(path, columns) if path.suffix == ".parquet" else _jsonl(path, columns), 1):
        for name, value in zip(columns[:-1], row[:-1], strict=True):
            if value is None or value == "":
                raise ValueError(f"{path}, row {number}: no {name}; every output needs one")
        if row[-1] is not None and not isinstance(row[-1], str):
            raise ValueError(f"{path}, row {number}: {columns[-1]} {str(row[-1])[:40]!r} is no text")
        yield (*(str(value) for value in row[:-1]), row[-1])


def _parquet(path: Path, columns: tuple[str, ...]) -> Iterator[tuple]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from None
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise ValueError(
            f"{path}: column {missing[0]!r} is absent; needed: {', '.join(columns)}; it has {', '.join(file.schema_arrow.names)}"
        )
    for batch in file.iter_batches(batch_size=1024, columns=list(columns)):
        yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


def _jsonl(path: Path, columns: tuple[str, ...]) -> Iterator[tuple]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error.msg}); every line must be one object") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: not an object; every line must hold {', '.join(columns)}")
            yield tuple(row.get(name) for name in columns)
