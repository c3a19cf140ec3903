"""Text to token ids. Where a tokenizer treats words one by one, each distinct word of a corpus is tokenised once, and the rest is looking up."""

import copy
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

BATCH_TEXTS, BATCH_CHARACTERS = 4096, 4_000_000  # tokenised at once
PIECE_CHARACTERS = 1_000_000  # a longer document is tokenised in pieces, cut before white space
KNOWN_WORDS, KNOWN_IDS = 500_000, 4_000_000  # what is remembered of words, about 100 MB at most
JOINED_WORDS = 500  # new words tokenised as one text
SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # Unicode's White_Space, which tokenizers mean by \s
META = "▁"  # what SentencePiece writes for a space
_WHITE = b"\t\n\v\f\r "
_WITHIN = re.compile(f"[^{META}\n][{META}\n]|.\x01|\x01.", re.DOTALL)  # white space after another character, or the separator beside one
_WIDE = [
    int.from_bytes(c.encode(), "big") for c in (*"\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000", META, *map(chr, range(0x2000, 0x200B)))
]


def encode(documents: Iterable[str], tokenizer: PreTrainedTokenizerFast) -> Iterator[np.ndarray]:
    """Token ids (int32) of each document, without special tokens; text that looks like one ("<eos>") is text. Batches, bounded memory.

    What has to be tokenised is spread over several threads where TOKENIZERS_PARALLELISM allows it.
    """
    rules = rules_of(tokenizer.backend_tokenizer)
    if rules:
        words = Words(rules)
    else:
        whole = copy.deepcopy(tokenizer.backend_tokenizer)
        whole.encode_special_tokens = True
        whole.no_truncation()
        whole.no_padding()
    parts: list[np.ndarray] = []
    for batch in _batches(documents):
        texts = [rules.prefix * first + text if rules and text else text for text, first, _ in batch]
        ids = words.encode(texts) if rules else _ids(whole, texts)
        for part, (_, _, last) in zip(ids, batch, strict=True):
            parts.append(part)
            if last:
                yield part if len(parts) == 1 else np.concatenate(parts)
                parts.clear()


def _ids(backend: Tokenizer, texts: list[str]) -> list[np.ndarray]:
    return [np.array(encoding.ids, dtype=np.int32) for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]


def _batches(documents: Iterable[str]) -> Iterator[list[tuple[str, bool, bool]]]:
    """Lists of (text, whether it begins a document, whether it ends one)."""
    batch, characters = [], 0
    for document in documents:
        pieces = list(_pieces(document)) if len(document) > PIECE_CHARACTERS else [document]
        for number, text in enumerate(pieces):
            batch.append((text, number == 0, number == len(pieces) - 1))
            characters += len(text)
            if len(batch) >= BATCH_TEXTS or characters >= BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch


def _pieces(text: str) -> Iterator[str]:
    """Cut where white space begins, so that words stay whole; in the middle of a word that is longer than a piece."""
    start = 0
    while start < len(text):
        stop = start + PIECE_CHARACTERS
        if stop < len(text):
            cut = max(text.rfind(" ", start + 1, stop), text.rfind("\n", start + 1, stop))
            while cut > start and (text[cut - 1].isspace() or text[cut - 1] == META):
                cut -= 1
            stop = cut if cut > start else stop
        yield text[start:stop]
        start = stop


def _table(characters: bytes) -> np.ndarray:
    """Which of the 256 bytes are among some."""
    return np.isin(np.arange(256), list(characters))


# --- word by word -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rules:
    """Where a text may be cut into words whose ids, end to end, are those of the text; `backend` tokenises words.

    A word begins at a byte of `cuts` that follows anything but white space. `separator`, between words that match `joinable` (RE2), is one
    token that leaves theirs alone: many are tokenised as one text. `prefix` is what the tokenizer sets before a text.
    """

    backend: Tokenizer
    cuts: bytes
    separator: str | None = None
    joinable: str = ""
    prefix: str = ""


def rules_of(tokenizer: Tokenizer) -> Rules | None:
    """The rules of a tokenizer, and None where words do not stand alone; nothing is taken for granted.

    - WhitespaceSplit, and ByteLevel with GPT-2's pattern: no token has white space after another character.
    - BPE of a whole text, spaces written as "▁" (Llama-2): merges go over such a place only into a token that has it inside, and none has.
    """
    settings = json.loads(tokenizer.to_str())
    splitter, model, normalizer = settings["pre_tokenizer"] or {}, settings["model"], settings["normalizer"]
    if model.get("dropout") or not all(token["special"] for token in settings["added_tokens"]):
        return None
    backend = Tokenizer(tokenizer.model)  # without special tokens: what looks like one is text
    if normalizer is None and splitter:
        backend.pre_tokenizer = tokenizer.pre_tokenizer
        if splitter["type"] == "WhitespaceSplit":
            return Rules(backend, _WHITE)
        if splitter["type"] == "ByteLevel" and splitter.get("use_regex", True) and not splitter["add_prefix_space"]:
            return Rules(backend, _WHITE, "\n", f"^ ?[^{SPACE}]+$")
        return None
    steps = normalizer.get("normalizers", [normalizer]) if normalizer else []
    prefix = " " if steps[:1] == [{"type": "Prepend", "prepend": META}] else ""
    vocabulary = model.get("vocab", {})
    if (
        not splitter
        and model["type"] == "BPE"
        and not model.get("ignore_merges")
        and steps[len(prefix) :] == [{"type": "Replace", "pattern": {"String": " "}, "content": META}]
        and META in vocabulary
        # a line's end has a token: unknown characters side by side may become one
        and ("\n" in vocabulary or model.get("byte_fallback") and "<0x0A>" in vocabulary)
        and not any(map(_WITHIN.search, vocabulary))
    ):
        backend.normalizer = normalizers.Replace(" ", META)
        return Rules(backend, b" \n", "\x01", "^[^\x01]*$", prefix)
    return None


@dataclass
class Words:
    """The words met so far and their ids: word n has `ids[starts[n] : starts[n] + lengths[n]]`."""

    rules: Rules
    numbers: dict[str, int] = field(default_factory=dict)
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    starts: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    lengths: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def encode(self, texts: list[str]) -> Iterator[np.ndarray]:
        """Ids of each text."""
        raw = [text.encode() for text in texts]
        ends = np.cumsum([len(text) for text in raw])
        data = np.frombuffer(b"".join(raw), dtype=np.uint8)
        begins = self.begins(data, ends)
        words = pa.Array.from_buffers(
            pa.utf8(), len(begins), [None, pa.py_buffer(np.append(begins, len(data)).astype(np.int32)), pa.py_buffer(data)]
        ).dictionary_encode()
        distinct = words.dictionary.to_pylist()
        if len(self.numbers) > KNOWN_WORDS or len(self.ids) > KNOWN_IDS:
            self.numbers, self.ids, self.starts, self.lengths = {}, self.ids[:0], self.starts[:0], self.lengths[:0]
        numbers_U = np.fromiter(map(self.numbers.get, distinct, repeat(-1)), dtype=np.int64, count=len(distinct))
        unknown = np.flatnonzero(numbers_U < 0)
        new = [distinct[place] for place in unknown.tolist()]
        self.learn(new)
        numbers_U[unknown] = np.fromiter(map(self.numbers.__getitem__, new), dtype=np.int64, count=len(new))
        numbers = numbers_U[words.indices.to_numpy()]
        lengths = self.lengths[numbers]
        after = np.append(0, np.cumsum(lengths))  # ids before each word, and in all
        ids = self.ids[np.repeat(self.starts[numbers] - after[:-1], lengths) + np.arange(after[-1])]
        first = 0
        for last in after[np.searchsorted(begins, ends)].tolist():
            yield ids[first:last]
            first = last

    def begins(self, data: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Where words begin in UTF-8 bytes, of texts that end at `ends`."""
        begin = np.zeros(len(data) + 1, dtype=bool)
        begin[1:-1] = _table(self.rules.cuts)[data[1:]] & ~_table(_WHITE)[data[:-1]]
        at = np.flatnonzero(begin)
        at = at[data[at - 1] >= 0x80]  # the character before may be white space of two or three bytes
        pair = data[at - 2].astype(np.int64) << 8 | data[at - 1]
        begin[at[np.isin(pair, _WIDE) | np.isin(data[at - 3].astype(np.int64) << 16 | pair, _WIDE)]] = False
        begin[0] = True
        begin[ends] = True
        return np.flatnonzero(begin[: len(data)])

    def learn(self, words: list[str]) -> None:
        """Tokenise new words: as many as may be together, the others one by one."""
        joined, others, ids, lengths = self.together(words)
        alone = _ids(self.rules.backend, others)
        more = np.array([len(one) for one in alone], dtype=np.int64)
        starts = np.concatenate([np.cumsum(lengths + 1) - lengths - 1, len(ids) + np.cumsum(more) - more])
        self.starts = np.concatenate([self.starts, len(self.ids) + starts])
        self.lengths = np.concatenate([self.lengths, lengths, more])
        self.ids = np.concatenate([self.ids, ids, *alone])
        self.numbers.update(zip(joined + others, range(len(self.numbers), len(self.lengths)), strict=True))

    def together(self, words: list[str]) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
        """Words that could be tokenised together, all others; the ids of the former, the separator's after each word, and the words' lengths."""
        none = [], words, np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64)
        separator = self.rules.separator
        mark = self.rules.backend.encode(separator or "", add_special_tokens=False).ids
        if (
            not words
            or len(mark) != 1
            or mark[0] == self.rules.backend.token_to_id(getattr(self.rules.backend.model, "unk_token", None) or "")
        ):
            return none
        may = pc.match_substring_regex(pa.array(words), self.rules.joinable).to_pylist()
        joined, others = ([word for word, joins in zip(words, may, strict=True) if joins == wanted] for wanted in (True, False))
        texts = [separator.join([*joined[start : start + JOINED_WORDS], ""]) for start in range(0, len(joined), JOINED_WORDS)]
        ids = np.concatenate([none[2], *_ids(self.rules.backend, texts)])
        at = np.flatnonzero(ids == mark[0])
        return (joined, others, ids, np.diff(at, prepend=-1) - 1) if len(at) == len(joined) else none
