"""Turn text into token ids.

If no token spans two words, each distinct word is tokenised once and then looked up.
"""

import copy
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerFast

BATCH_TEXTS, BATCH_CHARACTERS = 4096, 4_000_000  # per call of the tokenizer
PIECE_CHARACTERS = 1_000_000  # a longer document is tokenised in pieces, cut between words
KNOWN_WORDS, KNOWN_IDS = 500_000, 4_000_000  # kept in memory, about 100 MB at most
JOINED_WORDS = 500  # new words tokenised as one text
# Unicode's White_Space: the meaning of \s in tokenizers
SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
META = "▁"  # SentencePiece writes it for a space
_WHITE = b"\t\n\v\f\r "
# white space after another character, or the separator beside another character
_WITHIN = re.compile(f"[^{META}\n][{META}\n]|.\x01|\x01.", re.DOTALL)
_CUT = re.compile(f"(?<![{SPACE}{META}])[ \n]")
# white space of two or three bytes, and META, as numbers
_WIDE = [
    int.from_bytes(c.encode(), "big")
    for c in (
        *"\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000",
        META,
        *map(chr, range(0x2000, 0x200B)),
    )
]


def encode(documents: Iterable[str], tokenizer: PreTrainedTokenizerFast) -> Iterator[np.ndarray]:
    """Yield the token ids (int32) of each document, without special tokens.

    Text that looks like a special token ("<eos>") stays text. Memory is bounded by a constant, or
    by the longest document if a token of the vocabulary may span two words. Tokenisation uses
    several threads if TOKENIZERS_PARALLELISM allows it.
    """
    reader = _reader(tokenizer)
    parts: list[np.ndarray] = []
    for batch in _batches(documents, reader.rules is not None):
        for part, (_, _, last) in zip(reader.read(batch), batch, strict=True):
            parts.append(part)
            if last:
                yield part if len(parts) == 1 else np.concatenate(parts)
                parts.clear()


def encode_with_offsets(
    texts: list[str], tokenizer: PreTrainedTokenizerFast
) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
    """Return the token ids of `encode`, and the characters (start, stop) of each token."""
    encodings = _reader(tokenizer).whole.encode_batch(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings], [encoding.offsets for encoding in encodings]


class Reader:
    """A tokenizer that reads every text as text, word by word where that is exact."""

    def __init__(self, backend: Tokenizer) -> None:
        self.backend, self.model = backend, _text_model(backend)
        self.rules = rules_of(backend, self.model)
        self.words = Words(self.rules) if self.rules else None

    @cached_property
    def whole(self) -> Tokenizer:
        """The tokenizer of whole texts. It shares the vocabulary, which is slow to copy."""
        added = self.backend.get_added_tokens_decoder()
        whole = _assemble(self.backend, self.backend.model)
        for _, token in sorted(added.items()):
            (whole.add_special_tokens if token.special else whole.add_tokens)([token])
        if whole.get_added_tokens_decoder().keys() != added.keys():  # their ids have gaps
            whole = copy.deepcopy(self.backend)
            whole.no_truncation()
            whole.no_padding()
        whole.model = self.model
        whole.encode_special_tokens = True
        return whole

    def read(self, batch: list[tuple[str, bool, bool]]) -> Iterable[np.ndarray]:
        if self.words is None or self.rules is None:
            return _ids(self.whole, [text for text, _, _ in batch])
        prefix = self.rules.prefix
        return self.words.encode(
            [prefix * first + text if text else text for text, first, _ in batch]
        )


def _assemble(backend: Tokenizer, model: models.Model) -> Tokenizer:
    """Return a tokenizer of `model` that prepares text as `backend` does, without added tokens."""
    made = Tokenizer(model)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if getattr(backend, part) is not None:
            setattr(made, part, getattr(backend, part))
    return made


_READERS: WeakKeyDictionary = WeakKeyDictionary()  # tokenizer -> (its size, its reader)


def _reader(tokenizer: PreTrainedTokenizerFast) -> Reader:
    """Return the reader of a tokenizer, made once: a copy of a large vocabulary takes seconds."""
    size, reader = _READERS.get(tokenizer, (None, None))
    if size != len(tokenizer):
        size, reader = len(tokenizer), Reader(tokenizer.backend_tokenizer)
        _READERS[tokenizer] = size, reader
    return reader


def _text_model(backend: Tokenizer) -> models.Model:
    """Return a tokenizer's model, changed so that no text becomes a special token.

    The vocabulary may hold the name of a special token as a word, a piece or a result of merges.
    Such a name becomes a token exactly if it does so on its own. It gets a name that no text has;
    its id stays.
    """
    model, plain = backend.model, Tokenizer(backend.model)
    affixes = ("continuing_subword_prefix", "end_of_word_suffix")
    is_positional = any(getattr(model, affix, None) for affix in affixes)

    def can_be_read(name: str, number: int) -> bool:
        if plain.token_to_id(name) is None:
            return False
        if isinstance(model, models.BPE) and None in map(plain.token_to_id, name):
            return bool(model.ignore_merges)  # merges need a token for each character
        return is_positional or number in plain.encode(name, add_special_tokens=False).ids

    hidden = {
        token.content
        for number, token in backend.get_added_tokens_decoder().items()
        if token.special and can_be_read(token.content, number)
    }
    if not hidden:
        return model
    bare = json.loads(plain.to_str())
    spec = bare["model"]
    if spec["type"] == "Unigram":
        spec["vocab"] = [(_hide(piece, hidden), score) for piece, score in spec["vocab"]]
    else:
        spec["vocab"] = {_hide(word, hidden): number for word, number in spec["vocab"].items()}
        spec["unk_token"] = _hide(spec["unk_token"], hidden)
    if spec["type"] == "BPE":
        inner = spec["continuing_subword_prefix"] or ""
        spec["merges"] = [
            (left, right)
            for left, right in spec["merges"]
            if hidden.isdisjoint((left, right, left + right.removeprefix(inner)))
        ]
    return Tokenizer.from_str(json.dumps(bare)).model


def _hide(word: str | None, hidden: set[str]) -> str | None:
    return f"\U0010ffff {word}" if word in hidden else word


def _ids(backend: Tokenizer, texts: list[str]) -> list[np.ndarray]:
    return [
        np.array(encoding.ids, dtype=np.int32)
        for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)
    ]


def _batches(documents: Iterable[str], may_cut: bool) -> Iterator[list[tuple[str, bool, bool]]]:
    """Yield lists of (text, whether a document begins with it, whether a document ends with it)."""
    batch, characters = [], 0
    for document in documents:
        is_cut = may_cut and len(document) > PIECE_CHARACTERS
        pieces = list(_pieces(document)) if is_cut else [document]
        for number, text in enumerate(pieces):
            batch.append((text, number == 0, number == len(pieces) - 1))
            characters += len(text)
            if len(batch) >= BATCH_TEXTS or characters >= BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch


def _pieces(text: str) -> Iterator[str]:
    """Cut a text where a word of `Words` begins, so no token spans a cut."""
    start = 0
    while start < len(text):
        cut = _CUT.search(text, start + PIECE_CHARACTERS)
        stop = cut.start() if cut else len(text)
        yield text[start:stop]
        start = stop


def _table(characters: bytes) -> np.ndarray:
    """Return for each of the 256 bytes whether it is in `characters`: bool (256,)."""
    return np.isin(np.arange(256), list(characters))


# --- word by word


@dataclass(frozen=True)
class Rules:
    """Rules that cut a text into words. The ids of the words, end to end, are the ids of the text.

    `backend` tokenises words. A word begins at a byte of `cuts` that does not follow white space.
    `separator` is one token and does not change the ids of words that match `joinable` (RE2), so
    many such words are tokenised as one text. The tokenizer puts `prefix` before a text.
    """

    backend: Tokenizer
    cuts: bytes
    separator: str | None = None
    joinable: str = ""
    prefix: str = ""


def rules_of(tokenizer: Tokenizer, model: models.Model) -> Rules | None:
    """Return the rules of a tokenizer, or None if a token may span two of its words.

    `model` tokenises the words.

    - WhitespaceSplit, and ByteLevel with GPT-2's pattern: no token has white space after another
      character.
    - BPE of a whole text, with spaces written as "▁" (Llama-2): a merge across a cut makes a token
      with white space after another character, and the vocabulary has no such token.
    """
    settings = json.loads(_assemble(tokenizer, models.WordLevel()).to_str())
    splitter, normalizer = settings["pre_tokenizer"] or {}, settings["normalizer"]
    added = tokenizer.get_added_tokens_decoder().values()
    if getattr(model, "dropout", None) or not all(token.special for token in added):
        return None
    backend = Tokenizer(model)  # it knows no added tokens
    if normalizer is None and splitter:
        backend.pre_tokenizer = tokenizer.pre_tokenizer
        if splitter["type"] == "WhitespaceSplit":
            return Rules(backend, _WHITE)
        if (
            splitter["type"] == "ByteLevel"
            and splitter.get("use_regex", True)
            and not splitter["add_prefix_space"]
        ):
            return Rules(backend, _WHITE, "\n", f"^ ?[^{SPACE}]+$")
        return None
    steps = normalizer.get("normalizers", [normalizer]) if normalizer else []
    prefix = " " if steps[:1] == [{"type": "Prepend", "prepend": META}] else ""
    replacement = {"type": "Replace", "pattern": {"String": " "}, "content": META}
    if (
        not splitter
        and isinstance(model, models.BPE)
        and not model.ignore_merges
        and steps[len(prefix) :] == [replacement]
        and _stand_alone(backend.get_vocab(), model.byte_fallback)
    ):
        backend.normalizer = normalizers.Replace(" ", META)
        return Rules(backend, b" \n", "\x01", "^[^\x01]*$", prefix)
    return None


def _stand_alone(vocabulary: dict[str, int], has_bytes: bool) -> bool:
    """Return whether no token of a vocabulary with "▁" for spaces spans two words."""
    # without its own token, a line end could fuse with an unknown character beside it
    has_newline = "\n" in vocabulary or (has_bytes and "<0x0A>" in vocabulary)
    return META in vocabulary and has_newline and not any(map(_WITHIN.search, vocabulary))


@dataclass
class Words:
    """The known words and their ids: word n has `ids[starts[n] : starts[n] + lengths[n]]`."""

    rules: Rules
    numbers: dict[str, int] = field(default_factory=dict)
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    starts: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    lengths: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def encode(self, texts: list[str]) -> Iterator[np.ndarray]:
        """Yield the token ids (int32) of each text."""
        raw = [text.encode() for text in texts]
        ends = np.cumsum([len(text) for text in raw])
        data = np.frombuffer(b"".join(raw), dtype=np.uint8)
        begins = self.begins(data, ends)
        words = pa.Array.from_buffers(
            pa.utf8(),
            len(begins),
            [None, pa.py_buffer(np.append(begins, len(data)).astype(np.int32)), pa.py_buffer(data)],
        ).dictionary_encode()
        distinct = words.dictionary.to_pylist()
        if len(self.numbers) > KNOWN_WORDS or len(self.ids) > KNOWN_IDS:
            self.numbers, self.ids = {}, self.ids[:0]
            self.starts, self.lengths = self.starts[:0], self.lengths[:0]
        numbers_U = np.fromiter(
            map(self.numbers.get, distinct, repeat(-1)), dtype=np.int64, count=len(distinct)
        )
        unknown = np.flatnonzero(numbers_U < 0)
        new = [distinct[place] for place in unknown.tolist()]
        self.learn(new)
        numbers_U[unknown] = np.fromiter(
            map(self.numbers.__getitem__, new), dtype=np.int64, count=len(new)
        )
        numbers = numbers_U[words.indices.to_numpy()]
        lengths = self.lengths[numbers]
        after = np.append(0, np.cumsum(lengths))  # number of ids before each word, then their sum
        ids = self.ids[np.repeat(self.starts[numbers] - after[:-1], lengths) + np.arange(after[-1])]
        first = 0
        for last in after[np.searchsorted(begins, ends)].tolist():
            yield ids[first:last]
            first = last

    def begins(self, data: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return where words begin in the UTF-8 bytes `data` of texts that end at `ends`."""
        begin = np.zeros(len(data) + 1, dtype=bool)
        begin[1:-1] = _table(self.rules.cuts)[data[1:]] & ~_table(_WHITE)[data[:-1]]
        at = np.flatnonzero(begin)
        at = at[data[at - 1] >= 0x80]  # the preceding character may be wide white space
        pair = data[at - 2].astype(np.int64) << 8 | data[at - 1]
        triple = data[at - 3].astype(np.int64) << 16 | pair
        begin[at[np.isin(pair, _WIDE) | np.isin(triple, _WIDE)]] = False
        begin[0] = True
        begin[ends] = True
        return np.flatnonzero(begin[: len(data)])

    def learn(self, words: list[str]) -> None:
        """Tokenise new words: joinable words as one text, every other word on its own."""
        joined, single, ids, lengths = self.together(words)
        single_ids = _ids(self.rules.backend, single)
        single_lengths = np.array([len(ids_of_word) for ids_of_word in single_ids], dtype=np.int64)
        joined_starts = np.cumsum(lengths + 1) - lengths - 1  # a separator follows each word
        single_starts = len(ids) + np.cumsum(single_lengths) - single_lengths
        starts = np.concatenate([joined_starts, single_starts])
        self.starts = np.concatenate([self.starts, len(self.ids) + starts])
        self.lengths = np.concatenate([self.lengths, lengths, single_lengths])
        self.ids = np.concatenate([self.ids, ids, *single_ids])
        new_numbers = range(len(self.numbers), len(self.lengths))
        self.numbers.update(zip(joined + single, new_numbers, strict=True))

    def together(self, words: list[str]) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
        """Return the words tokenised together, all other words, and the former's ids and lengths.

        The separator's id follows each word in the ids. Lengths (in tokens) do not count it.
        """
        no_words: list[str] = []
        none = no_words, words, np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64)
        backend, separator = self.rules.backend, self.rules.separator or ""
        mark = backend.encode(separator, add_special_tokens=False).ids
        unknown = getattr(backend.model, "unk_token", None) or ""
        if not words or len(mark) != 1 or mark[0] == backend.token_to_id(unknown):
            return none
        joinable = pc.match_substring_regex(pa.array(words), self.rules.joinable).to_pylist()
        joined, single = (
            [word for word, joins in zip(words, joinable, strict=True) if joins == wanted]
            for wanted in (True, False)
        )
        texts = [
            separator.join([*joined[start : start + JOINED_WORDS], ""])
            for start in range(0, len(joined), JOINED_WORDS)
        ]
        ids = np.concatenate([none[2], *_ids(backend, texts)])
        at = np.flatnonzero(ids == mark[0])
        if len(at) != len(joined):
            return none
        return joined, single, ids, np.diff(at, prepend=-1) - 1
