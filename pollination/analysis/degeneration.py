"""Spans of degenerate text of the kinds that study A underlines (figure 7, tables 3 to 5).

docs/semantics.md documents the rules. They are heuristics, the same for every text. Human text has
such spans too, so the evidence is a share that grows over generations. All scans take time linear
in the length of the text. Only the standard library is imported, because figures and rules import
this module.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice, pairwise

from pollination.data.words import TOKEN, words

KINDS = {  # by priority: if spans overlap, the first kind keeps the characters
    "url": "URL-like string",
    "repetition": "repetition",
    "enumeration": "enumeration",
    "unknown": "word outside the human vocabulary",
}
LONGEST_UNIT = 20  # tokens of a phrase that repeats
REPEATS, WORD_REPEATS = 3, 4  # consecutive repeats that make a loop: of a phrase, of a word
RECURRENCE = 12  # consecutive tokens that occur earlier in the same text
ITEMS, ITEM_WORDS = 7, 3  # a list has at least 7 items of at most 3 words
RUN = 12  # length of a run of repeated characters
NUMBERS = 6  # numbers in a row

_CHARACTERS = re.compile(r"(\S{1,8}?)\1{5,}")
_CHUNK = re.compile(r"\S+")
_ENDINGS = "com|org|net|edu|gov|info|html?|php|aspx?|jsp|pdf|jpe?g|png"
_URL = re.compile(
    rf"""[a-z][a-z0-9+.-]{{1,9}}://                          # a scheme
    |  ^\W{{0,2}}www\.
    |  [a-z0-9-]{{2,63}}\.(?:{_ENDINGS})(?![a-z0-9])         # a host or a file
    |  (?:%[0-9a-f]{{2}}\S{{0,40}}?){{2}}                    # escaped characters
    |  [?&][\w.-]{{1,40}}=                                   # a query
    |  \w@[\w-]{{1,63}}\.\w                                  # a mail address""",
    re.VERBOSE | re.IGNORECASE,
)
_SPACED_URL = re.compile(  # with the spaces of a word tokenizer
    r"(?:https?\s{1,3}:(?:\s{0,3}/){1,2}|www\s{1,3}\.)"
    r"(?:\s{0,3}[\w%?=&#~-]{1,60}\s{0,3}[./:]){0,12}\s{0,3}[\w%?=&#~-]{0,60}",
    re.IGNORECASE,
)
_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{16,}")
_SEPARATOR = re.compile(r"[,;:/|•·–—&()\[\]\n]+|\s-\s|(?<!\S)\d{1,4}[.)](?=\s)|\band\b")
_STOP = re.compile(r"[.!?][\"'”’)]*\s")
_NUMBERS = re.compile(rf"(?<!\w)(?:\d+(?!\d)[^\w\s]*\s*){{{NUMBERS},}}")


@dataclass(frozen=True, order=True)
class Span:
    """Characters `start` to `end` (exclusive) of a text."""

    start: int
    end: int
    kind: str


def find(text: str, vocabulary: Collection[str], prompt: str = "") -> list[Span]:
    """Return the degenerate spans of a completion, in order and disjoint.

    `vocabulary`: words of human text in lower case; the prompt's words are added.
    """
    kinds = {
        "url": _urls(text),
        "repetition": _repetitions(text),
        "enumeration": _enumerations(text),
        "unknown": _unknown(text, vocabulary, prompt),
    }
    marked = bytearray(len(text))  # 0: none, else the position of the kind in KINDS, from 1
    for number, kind in reversed(list(enumerate(KINDS, 1))):
        for start, end in kinds[kind]:
            while end > start and text[end - 1].isspace():
                end -= 1
            marked[start:end] = bytes([number]) * (end - start)
    names, changes = list(KINDS), (i for i in range(1, len(text)) if marked[i] != marked[i - 1])
    edges = [0, *changes, len(text)]
    spans = [
        Span(start, end, names[marked[start] - 1])
        for start, end in pairwise(edges)
        if start < end and marked[start]
    ]
    return [
        span
        for span in spans
        if span.end - span.start >= RUN or any(c.isalnum() for c in text[span.start : span.end])
    ]


def shares(text: str, spans: Iterable[Span]) -> dict[str, float]:
    """Return the share of characters by kind, `any` of them, and `empty` (1 for a blank text)."""
    by_kind = dict.fromkeys(KINDS, 0.0)
    for span in spans:
        by_kind[span.kind] += (span.end - span.start) / len(text)
    return by_kind | {"any": sum(by_kind.values()), "empty": float(not text.strip())}


def _urls(text: str) -> Iterator[tuple[int, int]]:
    for match in _CHUNK.finditer(text):
        if _URL.search(match[0]) or any(map(_random, _IDENTIFIER.findall(match[0]))):
            yield match.span()
    for match in _SPACED_URL.finditer(text):
        yield match.span()


def _random(word: str) -> bool:
    """Return whether a string mixes digits and letters of both cases, like an identifier."""
    return (
        sum(c.isdigit() for c in word) >= 2
        and any(c.isupper() for c in word)
        and any(c.islower() for c in word)
    )


def _repetitions(text: str) -> Iterator[tuple[int, int]]:
    """Yield loops of a phrase, phrases that occurred before, and runs of characters."""
    for match in _CHARACTERS.finditer(text):
        if match.end() - match.start() >= RUN:
            yield match.span()
    places = [match.span() for match in TOKEN.finditer(text)]
    tokens = [text[start:end].lower() for start, end in places]
    for unit in range(1, min(LONGEST_UNIT, len(tokens) // 2) + 1):
        least, run = (WORD_REPEATS if unit == 1 else REPEATS) * unit, 0
        for i in range(unit, len(tokens) + 1):
            if i < len(tokens) and tokens[i] == tokens[i - unit]:
                run += 1
                continue
            if run + unit >= least and any(token.isalnum() for token in tokens[i - unit : i]):
                yield places[i - run - unit][0], places[i - 1][1]
            run = 0
    seen: dict[tuple, int] = {}
    for i in range(len(tokens) - RECURRENCE + 1):
        phrase = tuple(tokens[i : i + RECURRENCE])
        if seen.setdefault(phrase, i) <= i - RECURRENCE:
            yield places[i][0], places[i + RECURRENCE - 1][1]


def _enumerations(text: str) -> Iterator[tuple[int, int]]:
    """Yield runs of numbers, and lists of many short items without a sentence."""
    for match in _NUMBERS.finditer(text):
        yield match.span()
    first = last = items = start = 0
    for end, after in [
        *(match.span() for match in _SEPARATOR.finditer(text)),
        (len(text), len(text)),
    ]:
        stop = _STOP.search(f"{text[start:end]} ")
        # the last item before a sentence ends
        item = text[start : start + stop.start()] if stop else text[start:end]
        count = len(item.split())
        if 0 < count <= ITEM_WORDS:
            first = first if items else start + len(item) - len(item.lstrip())
            last, items = start + len(item), items + 1
        if count > ITEM_WORDS or stop or end == len(text):
            if items >= ITEMS:
                yield first, last
            items = 0
        start = after


def _unknown(text: str, vocabulary: Collection[str], prompt: str) -> Iterator[tuple[int, int]]:
    """Yield words that are neither in the vocabulary nor in the prompt.

    Single letters are skipped. So is a last word that ends the text, because it may be cut. A
    tokenizer may drop the space before the first word, so that word is tried alone and as the end
    of the prompt's last word.
    """
    begun = re.findall(r"\w*$", prompt)[0]
    known = {word for _, _, word in words(prompt)}
    if text[:1].isalnum():
        known |= {
            first
            for _, _, first in islice(words(text), 1)
            if _knows(vocabulary, next(words(begun + text))[2])
        }
    for start, end, word in words(text):
        judged = end < len(text) and end - start > 1
        if judged and word not in known and not _knows(vocabulary, word):
            yield start, end


def _knows(vocabulary: Collection[str], word: str) -> bool:
    return word in vocabulary or (
        "'" in word and all(part in vocabulary for part in word.split("'"))
    )


@cache
def english() -> frozenset[str]:
    """Return wordfreq's large English word list, because a corpus may lack ordinary words."""
    from wordfreq import get_frequency_dict

    return frozenset(get_frequency_dict("en", wordlist="best"))
