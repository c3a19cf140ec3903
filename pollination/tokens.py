"""Tokenizers, and token ids packed into blocks of context length that are memory-mapped.

A packed text is `<stem>.bin`, a flat array of uint16 (vocabularies up to 65,536) or uint32 ids, and `<stem>.json`: blocks,
context_tokens, tokens (packed), dtype, documents, dropped_tokens (the last, incomplete block), eos_id.
"""

import copy
import hashlib
import json
import logging
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pollination import artifacts
from pollination.corpora.files import read_documents
from pollination.corpora.microworld import World
from pollination.seeds import derive_seed

EOS, UNK = "<eos>", "<unk>"
FILES = ("tokenizer.json", "tokenizer_config.json")
TRAINING_CHARACTERS = 100_000_000  # a BPE's vocabulary settles long before this
BATCH_DOCUMENTS, BATCH_CHARACTERS = 1024, 2_000_000  # tokenised at once
PIECE_CHARACTERS = 1_000_000  # a longer document is tokenised in pieces, cut before white space
WRITE_TOKENS = 1_000_000
KNOWN_WORDS, KNOWN_CHARACTERS = 500_000, 40  # how many words' ids are remembered, and the longest such word
_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_WORD = re.compile(f"[{_SPACE}]*[^{_SPACE}]+|[{_SPACE}]+")

log = logging.getLogger("pollination")


def make_tokenizer(spec: dict, corpus_folder: Path | None, folder: Path, seed: int) -> None:
    """Write tokenizer.json and tokenizer_config.json of the config's `tokenizer` into `folder`.

    kind word: the words of a microworld, or of a corpus's training text by falling frequency; bpe: byte-level BPE of `vocabulary`
    tokens (fewer where the corpus has no more to merge; logged), trained on at most TRAINING_CHARACTERS of training text;
    pretrained: by folder or name. ValueError: a pretrained one is absent, slow-only or without an eos token.
    """
    if spec["kind"] == "pretrained":
        tokenizer = _pretrained(spec["source"])
    else:
        made = _word_level(corpus_folder) if spec["kind"] == "word" else _bpe(spec["vocabulary"], corpus_folder, seed)
        unk = {"unk_token": UNK} if spec["kind"] == "word" else {}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=EOS, clean_up_tokenization_spaces=False, **unk)
    # A tokenizer saved while it cut or padded a batch would go on doing so.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tokenizer.", dir=folder) as temporary:
        tokenizer.save_pretrained(temporary)
        for name in FILES:
            with artifacts.atomic(folder / name) as target:
                shutil.move(Path(temporary) / name, target)


def _word_level(corpus_folder: Path) -> Tokenizer:
    world = Path(corpus_folder) / "world.json"
    if world.exists():
        words = World.from_json(artifacts.read_json(world)).vocabulary
    else:
        counts: Counter = Counter()
        for _, text in read_documents(corpus_folder, "train"):
            counts.update(text.split())
        words = sorted(counts, key=lambda word: (-counts[word], word))
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([EOS, UNK, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def _bpe(vocabulary: int, corpus_folder: Path, seed: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sample(corpus_folder, seed), trainer)
    if tokenizer.get_vocab_size() < vocabulary:
        log.warning("the corpus yields %d tokens, not the %d of tokenizer.vocabulary", tokenizer.get_vocab_size(), vocabulary)
    return tokenizer


def _sample(corpus_folder: Path, seed: int) -> Iterator[str]:
    """Training documents, each taken with the same probability where all are too many."""
    total = artifacts.read_json(Path(corpus_folder) / "corpus.json")["characters"]["train"]
    share = TRAINING_CHARACTERS / max(total, 1)
    for doc_id, text in read_documents(corpus_folder, "train"):
        if share >= 1 or derive_seed(seed, "tokenizer", doc_id) / 2**63 < share:
            yield text


def _pretrained(source: str) -> PreTrainedTokenizerFast:
    path = Path(source).expanduser()
    if not path.is_dir() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise ValueError(
            f"tokenizer.source: {source!r}: there is no such folder; correct the path, or name a model of the hub (owner/name)"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path) if path.is_dir() else source, use_fast=True, trust_remote_code=False)
    except Exception as error:  # its loaders raise whatever their libraries do, even bare Exception
        reason = " ".join(str(error).split())
        raise ValueError(
            f"tokenizer.source: {source!r} cannot be loaded ({reason}); name a folder with tokenizer.json, or a hub model"
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"tokenizer.source: {source!r} has no fast tokenizer (tokenizer.json); name one that has")
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"tokenizer.source: {source!r} has no eos token, which parts documents; set eos_token in its tokenizer_config.json"
        )
    return tokenizer


def vocabulary_id(tokenizer) -> str:
    """Names what token ids mean: tokenizers that agree in every id have the same."""
    words = sorted((index, word) for word, index in tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:12]


def encode(documents: Iterable[str], tokenizer: PreTrainedTokenizerFast) -> Iterator[list[int]]:
    """Token ids of each document, without special tokens; text that looks like one ("<eos>") is text. Batches, bounded memory.

    Where the tokenizer treats words one by one, each distinct word is tokenised once. What is left to tokenise is spread over
    several threads where TOKENIZERS_PARALLELISM allows it.
    """
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    ids_of = lambda texts: [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]  # noqa: E731
    by_word, known = _treats_words_alone(backend), {}
    for batch in _batches(documents):
        if by_word:
            words = [_WORD.findall(text) for text in batch]
            new = list(set(chain.from_iterable(words)) - known.keys())
            known.update(zip(new, ids_of(new), strict=True))
            yield from (list(chain.from_iterable(map(known.__getitem__, text))) for text in words)
            for word in new:
                if len(word) > KNOWN_CHARACTERS:
                    del known[word]
            if len(known) > KNOWN_WORDS:
                known.clear()
        elif len(batch) == 1:
            yield list(chain.from_iterable(ids_of([piece])[0] for piece in _pieces(batch[0])))
        else:
            yield from ids_of(batch)


def _treats_words_alone(backend: Tokenizer) -> bool:
    """Whether a text's ids are those of its words (white space and what follows it up to the next) end to end.

    True of WhitespaceSplit and of ByteLevel with GPT-2's pattern, in which no token has white space after another character;
    nothing else is taken for granted. White space means Unicode's White_Space property, to both of them and to _WORD.
    """
    settings = json.loads(backend.to_str())
    splitter, model = settings["pre_tokenizer"] or {}, settings["model"]
    byte_level = splitter.get("type") == "ByteLevel" and splitter.get("use_regex", True) and not splitter["add_prefix_space"]
    return (
        (byte_level or splitter.get("type") == "WhitespaceSplit")
        and settings["normalizer"] is None
        and not model.get("dropout")
        and all(token["special"] for token in settings["added_tokens"])
    )


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    """Lists of documents, a long document alone."""
    batch, characters = [], 0
    for text in documents:
        long = len(text) > PIECE_CHARACTERS
        if batch and (long or len(batch) >= BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        if long:
            yield [text]
        else:
            batch.append(text)
            characters += len(text)
    if batch:
        yield batch


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        stop = start + PIECE_CHARACTERS
        if stop < len(text):
            cut = max(text.rfind(" ", start + 1, stop), text.rfind("\n", start + 1, stop))
            stop = cut if cut > 0 else stop
        yield text[start:stop]
        start = stop


def pack(documents: Iterable[str], tokenizer: PreTrainedTokenizerFast, context_tokens: int, path: Path, separator: str = "eos") -> dict:
    """Tokenise documents and pack them (see pack_ids); returns what `<stem>.json` says."""
    return pack_ids(encode(documents, tokenizer), len(tokenizer), context_tokens, tokenizer.eos_token_id, path, separator)


def pack_ids(documents: Iterable[list[int]], vocabulary: int, context_tokens: int, eos_id: int, path: Path, separator: str = "eos") -> dict:
    """Write documents end to end, cut into blocks; returns what `<stem>.json` says.

    `separator` "eos": one eos after each document that has none yet; "none": nothing between them.

    Streams; the last, incomplete block is dropped. ValueError: an id outside the vocabulary, or not one whole block.
    """
    path = Path(path)
    dtype = np.dtype(np.uint16 if vocabulary <= 2**16 else np.uint32)
    held: list[int] = []
    tokens = count = 0
    with artifacts.atomic(path) as temporary, open(temporary, "wb") as file:

        def flush() -> int:
            ids = np.array(held, dtype=np.int64)
            if len(ids) and not 0 <= ids.min() <= ids.max() < vocabulary:
                wrong = int(ids[(ids < 0) | (ids >= vocabulary)][0])
                raise ValueError(f"token id {wrong} is not in the vocabulary of {vocabulary}: the text was written with another tokenizer")
            file.write(ids.astype(dtype).data)  # numpy's tofile does not say that a disk is full
            held.clear()
            return len(ids)

        for ids in documents:
            held.extend(ids)
            if separator == "eos" and (not len(ids) or ids[-1] != eos_id):
                held.append(eos_id)
            count += 1
            if len(held) >= WRITE_TOKENS:
                tokens += flush()
        tokens += flush()
        blocks = tokens // context_tokens
        if blocks == 0:
            raise ValueError(
                f"{path.stem}: {tokens} tokens in {count} documents are less than one block of {context_tokens};"
                " add text (a larger share of held_out, more generate.tokens) or lower context_tokens"
            )
        file.truncate(blocks * context_tokens * dtype.itemsize)
    about = {
        "blocks": blocks,
        "context_tokens": context_tokens,
        "tokens": blocks * context_tokens,
        "dtype": dtype.name,
        "documents": count,
        "dropped_tokens": tokens - blocks * context_tokens,
        "eos_id": eos_id,
    }
    artifacts.write_json(path.with_suffix(".json"), about)
    return about


class TokenBlocks:
    """A packed text, memory-mapped. DamagedArtifact where the file's size is not what its json says."""

    def __init__(self, path: Path) -> None:
        path = Path(path)
        about = artifacts.read_json(path.with_suffix(".json"))
        self.context_tokens, self.eos_id = about["context_tokens"], about["eos_id"]
        dtype = np.dtype(about["dtype"])
        size, expected = path.stat().st_size, about["blocks"] * self.context_tokens * dtype.itemsize
        if size != expected:
            raise artifacts.DamagedArtifact(
                f"{path}: {size} bytes, but {path.stem}.json says {about['blocks']} blocks, {expected} bytes; delete it and run snakemake again"
            )
        self.tokens_NT = np.memmap(path, dtype=dtype, mode="r", shape=(about["blocks"], self.context_tokens))

    def __len__(self) -> int:
        return len(self.tokens_NT)

    def blocks(self, indices: np.ndarray) -> np.ndarray:
        """The blocks at `indices` as int64 (B, T)."""
        return self.tokens_NT[indices].astype(np.int64)

    def first(self, count: int) -> "TokenBlocks":
        """The first `count` blocks (all, where there are no more)."""
        part = copy.copy(self)
        part.tokens_NT = self.tokens_NT[:count]
        return part
