"""Tokenizers, and token ids packed into memory-mapped blocks of context length.

A packed text has two files. `<stem>.bin` is a flat array of ids: uint16 for vocabularies up to
65,536, else uint32. `<stem>.json` holds blocks, context_tokens, tokens (packed), dtype, documents,
dropped_tokens (of the last, incomplete block) and eos_id.
"""

import copy
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedRandom
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pollination.core import artifacts, causes
from pollination.core.seeds import derive_seed
from pollination.data.encoding import encode
from pollination.data.files import read_documents
from pollination.data.microworld import World
from pollination.data.special import decide_bos, special_tokens

EOS, UNK = "<eos>", "<unk>"
FILES = ("tokenizer.json", "tokenizer_config.json")
TRAINING_CHARACTERS = 100_000_000  # more text hardly changes the vocabulary of a BPE
WRITE_TOKENS = 1_000_000

Batch = tuple[np.ndarray, np.ndarray]  # token ids of documents, end to end, and their lengths

log = logging.getLogger("pollination")
# words, digits, accents, other scripts, signs and line ends
SAMPLE = "The film's 3 scenes (1999) — naïve Ärzte, 中文 и русский; x_y = {'a': 1}\n\n\tEnd."


def make_tokenizer(
    spec: dict, corpus_folder: Path | None, folder: Path, seed: int, bos: str = "none"
) -> None:
    """Write tokenizer.json and tokenizer_config.json of a model's tokenizer into `folder`.

    `folder` has the name of the model, and `spec` is its `tokenizer` block. Kind `word` takes the
    words of a microworld, or the words of a corpus's training text by falling frequency. Kind `bpe`
    is byte-level BPE of `vocab_size` tokens, trained on at most TRAINING_CHARACTERS of training
    text. It logs a warning if the corpus yields fewer tokens. Kind `pretrained` loads a folder or a
    hub model. `bos` is the model's key of this name (data/special.py).
    ValueError: a pretrained tokenizer is missing, slow-only or without an eos token, or as in
    `decide_bos`.
    """
    if spec["kind"] == "pretrained":
        tokenizer = _pretrained(spec["source"], f"models.{Path(folder).name}")
    else:
        assert corpus_folder is not None, "the rule names the corpus"
        made = (
            _word_level(corpus_folder)
            if spec["kind"] == "word"
            else _bpe(spec["vocab_size"], corpus_folder, seed)
        )
        unk = {"unk_token": UNK} if spec["kind"] == "word" else {}
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=made, eos_token=EOS, clean_up_tokenization_spaces=False, **unk
        )
    decide_bos(bos, tokenizer, f"models.{Path(folder).name}.bos")
    # a loaded tokenizer may have been saved with truncation or padding
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
        log.warning(
            "tokenizer.vocab_size: the vocabulary has only %d tokens instead of %d, because the "
            "corpus yields no more",
            tokenizer.get_vocab_size(),
            vocabulary,
        )
    return tokenizer


def _sample(corpus_folder: Path, seed: int) -> Iterator[str]:
    """Yield training documents, or a random sample if they exceed TRAINING_CHARACTERS."""
    total = artifacts.read_json(Path(corpus_folder) / "corpus.json")["characters"]["train"]
    share = TRAINING_CHARACTERS / max(total, 1)
    for doc_id, text in read_documents(corpus_folder, "train"):
        if share >= 1 or derive_seed(seed, "tokenizer", doc_id) / 2**63 < share:
            yield text


def _pretrained(source: str, key: str) -> PreTrainedTokenizerFast:
    path = Path(source).expanduser()
    if not path.is_dir() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise ValueError(
            f"{key}: the tokenizer folder {source!r} does not exist. Give the right path "
            "(tokenizer.source or pretrained), set `data`, download it with `pollination data`, or "
            "name a hub model (owner/name)"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(path) if path.is_dir() else source, use_fast=True, trust_remote_code=False
        )
    except Exception as error:  # loaders raise any class, even bare Exception
        reason = " ".join(str(error).split())
        remedy = causes.remedy(
            error,
            "Set tokenizer.source or pretrained to a folder with tokenizer.json, or to a hub model",
        )
        raise ValueError(
            f"{key}: the tokenizer of {source!r} cannot be loaded ({reason}). {remedy}"
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{key}: {source!r} has no fast tokenizer (tokenizer.json). Set tokenizer.source or "
            "pretrained to a folder or hub model that has this file"
        )
    if (file := path / "tokenizer.json").is_file():
        _check_reading(tokenizer, Tokenizer.from_file(str(file)), f"{key}: {source!r}")
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"{key}: the tokenizer of {source!r} has no eos token, which separates documents. Set "
            "eos_token in its tokenizer_config.json"
        )
    return tokenizer


def _check_reading(tokenizer, file: Tokenizer, name: str) -> None:
    """Check that a tokenizer gives the tokens of its file.

    ValueError: the class that transformers chooses by the architecture reads the file otherwise.
    """
    file.no_truncation()
    file.no_padding()
    known = sorted(file.get_vocab(with_added_tokens=False), key=len)
    for text in (SAMPLE, " ".join(known[:200]), " ".join(known[-200:])):
        expected = file.encode(text, add_special_tokens=False).ids
        if tokenizer(text, add_special_tokens=False)["input_ids"] != expected:
            raise ValueError(
                f"{name}: transformers reads its tokenizer.json as a {type(tokenizer).__name__}, "
                "which gives other tokens than the file. Set tokenizer_class: "
                "PreTrainedTokenizerFast in its tokenizer_config.json, or correct the file"
            )


def largest_id(tokenizer) -> int:
    """Return the largest token id. It exceeds the number of tokens if ids have gaps."""
    return max(tokenizer.get_vocab().values(), default=-1)


def vocabulary_id(tokenizer) -> str:
    """Return a digest of the vocabulary and of bos. Readers of equal ids have the same."""
    words: list = sorted((index, word) for word, index in tokenizer.get_vocab().items())
    if (bos_id := special_tokens(tokenizer).bos_id) is not None:
        words.append(bos_id)
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:12]


def pack(
    documents: Iterable[str],
    tokenizer: PreTrainedTokenizerFast,
    context_tokens: int,
    path: Path,
    separator: str = "eos",
) -> dict:
    """Tokenise documents and pack them (`pack_ids`). Return the content of `<stem>.json`."""
    ids, special = encode(documents, tokenizer), special_tokens(tokenizer)
    vocabulary = largest_id(tokenizer) + 1
    return pack_ids(
        ids, vocabulary, context_tokens, special.eos_id, path, separator, special.bos_id
    )


def pack_ids(
    documents: Iterable[Sequence[int] | np.ndarray],
    vocabulary: int,
    context_tokens: int,
    eos_id: int,
    path: Path,
    separator: str = "eos",
    bos_id: int | None = None,
) -> dict:
    """Pack documents, which are sequences or arrays of token ids, as `pack_batches`."""
    batches = _batches(documents)
    return pack_batches(batches, vocabulary, context_tokens, eos_id, path, separator, bos_id)


def _batches(documents: Iterable[Sequence[int] | np.ndarray]) -> Iterator[Batch]:
    held: list[np.ndarray] = []
    tokens = 0
    for document in documents:
        held.append(np.asarray(document, dtype=None if len(document) else np.int32))
        tokens += len(document)
        if tokens >= WRITE_TOKENS or len(held) >= WRITE_TOKENS:
            yield np.concatenate(held), np.array([len(ids) for ids in held])
            held, tokens = [], 0
    if held:
        yield np.concatenate(held), np.array([len(ids) for ids in held])


def pack_batches(
    batches: Iterable[Batch],
    vocabulary: int,
    context_tokens: int,
    eos_id: int,
    path: Path,
    separator: str = "eos",
    bos_id: int | None = None,
) -> dict:
    """Write documents end to end, cut into blocks.

    A batch is (the token ids of some documents, end to end; the length of each). Ids are below
    `vocabulary`: the largest id of the tokenizer plus one. `bos_id` is put before each document
    that does not begin with it (None: nothing). `separator` "eos" puts one eos after each document
    that does not end with it. "none" puts nothing. The function streams, drops the last, incomplete
    block and returns the content of `<stem>.json`.
    ValueError: an id is outside the vocabulary, or the text is shorter than one block.
    """
    path = Path(path)
    dtype = np.dtype(np.uint16 if vocabulary <= 2**16 else np.uint32)
    tokens = count = 0
    with artifacts.atomic(path) as temporary, open(temporary, "wb") as file:
        for batch in batches:
            ids = _separated(*batch, eos_id if separator == "eos" else None, bos_id)
            if len(ids) and not 0 <= ids.min() <= ids.max() < vocabulary:
                wrong = int(ids[(ids < 0) | (ids >= vocabulary)][0])
                raise ValueError(
                    f"{path.stem}: token id {wrong} is not in the vocabulary; allowed: 0 to "
                    f"{vocabulary - 1}. Use the tokenizer that wrote the text"
                )
            # numpy's tofile does not report a full disk
            file.write(np.ascontiguousarray(ids, dtype=dtype).data)
            tokens += len(ids)
            count += len(batch[1])
        blocks = tokens // context_tokens
        if blocks == 0:
            raise ValueError(
                f"{path.stem}: {tokens} tokens in {count} documents are less than one block of "
                f"{context_tokens} tokens. Add text, raise the split's share of held_out or "
                "generate.tokens, or lower context_tokens"
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
    about |= {} if bos_id is None else {"bos_id": bos_id}
    artifacts.write_json(path.with_suffix(".json"), about)
    return about


def _separated(
    ids: np.ndarray, lengths: np.ndarray, eos_id: int | None, bos_id: int | None
) -> np.ndarray:
    """Return a batch with eos after and bos before the documents that lack them; None: neither.

    A token that is both may begin a document, but then it does not end it too.
    """
    ends = np.cumsum(lengths)
    starts, last = ends - lengths, len(ids) - 1
    begun = np.zeros(len(lengths), dtype=bool)
    if bos_id is not None and len(ids):
        begun = (lengths > 0) & (ids[np.minimum(starts, last)] == bos_id)
    places, tokens = [starts, ends], [bos_id, eos_id]
    missing = [~begun & (bos_id is not None), np.full(len(lengths), eos_id is not None)]
    if eos_id is not None and len(ids):
        missing[1] = ~((lengths > begun) & (ids[ends - 1] == eos_id))
    where = np.column_stack(missing).ravel()
    if not where.any():
        return ids
    added = np.tile([token or 0 for token in tokens], len(lengths))[where]
    wide = ids.astype(np.result_type(ids, np.int32), copy=False)
    return np.insert(wide, np.column_stack(places).ravel()[where], added)


class TokenBlocks:
    """A packed text, memory-mapped. `copy` is an open copy of its file, to read instead.

    DamagedArtifact: its size is not the size that its json states.
    """

    def __init__(self, path: Path, copy: BufferedRandom | None = None) -> None:
        path = Path(path)
        self.source = copy or path.absolute()
        about = artifacts.read_json(path.with_suffix(".json"))
        self.context_tokens, self.eos_id = about["context_tokens"], about["eos_id"]
        dtype = np.dtype(about["dtype"])
        size, expected = path.stat().st_size, about["blocks"] * self.context_tokens * dtype.itemsize
        if size != expected:
            raise artifacts.DamagedArtifact(
                f"{path}: {size} bytes, but {path.stem}.json says {about['blocks']} blocks, "
                f"{expected} bytes. Delete it and run snakemake again"
            )
        self.tokens_NT: np.ndarray = np.memmap(
            copy or path, dtype=dtype, mode="r", shape=(about["blocks"], self.context_tokens)
        )

    def __reduce__(self) -> tuple:
        """Let other processes of this machine map the same file, while this process lives."""
        source = self.source
        if not isinstance(source, Path):  # a copy without a name
            source = Path(f"/proc/{os.getpid()}/fd/{source.fileno()}")
        about = vars(self) | {"source": source, "tokens_NT": None}
        return _mapped, (about, self.tokens_NT.dtype, self.tokens_NT.shape)

    def __len__(self) -> int:
        return len(self.tokens_NT)

    def blocks(self, indices: np.ndarray) -> np.ndarray:
        """Return the blocks at `indices` (B,) as int64 (B, T)."""
        return self.tokens_NT[indices].astype(np.int64)

    def first(self, count: int) -> "TokenBlocks":
        """Return the first `count` blocks, or all if there are fewer."""
        part = copy.copy(self)
        part.tokens_NT = self.tokens_NT[:count]
        return part


def _mapped(about: dict, dtype: np.dtype, shape: tuple[int, int]) -> TokenBlocks:
    blocks = TokenBlocks.__new__(TokenBlocks)
    vars(blocks).update(about)
    blocks.tokens_NT = np.memmap(about["source"], dtype=dtype, mode="r", shape=shape)
    return blocks
