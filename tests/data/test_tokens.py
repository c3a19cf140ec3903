"""Tokenizers of all kinds and packed text.

Every token of any text is packed once and in order. Damage is detected.
"""

import json
import logging
import random
import shutil

import numpy as np
import pytest
from tokenizers.models import WordLevel
from transformers import AutoTokenizer

from pollination.core import artifacts
from pollination.data import encoding, tokens
from pollination.data.corpora import build_corpus, read_documents
from pollination.data.encoding import encode
from pollination.data.microworld import World
from pollination.data.tokens import TokenBlocks, make_tokenizer, pack, pack_ids
from pollination.models.checkpoint import load_tokenizer
from tests.conftest import shared

ALPHABET = [
    *(
        "ab1!'. "
        "\n\t\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u180e\u200b\u2003\u2028\u3000\ufeff"
        "日é\u0301🙂▁\x00\x01"
    ),
    "'s",
    "  ",
    " a",
    "<eos>",
    "<unk>",
]


@pytest.fixture(scope="module")
def prose(tmp_path_factory):
    """A generated corpus of English-like prose."""
    folder = tmp_path_factory.mktemp("prose")
    rng = random.Random(0)
    stems = ["".join(rng.choices("abcdefghilmnoprstu", k=rng.randint(2, 9))) for _ in range(1500)]
    lines = [
        " ".join(rng.choices(stems, k=rng.randint(5, 60))).capitalize() + "." for _ in range(600)
    ]
    (folder / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    build_corpus(
        {"kind": "files", "path": str(folder / "a.txt"), "txt_documents": "line"},
        100,
        folder / "corpus",
    )
    return folder / "corpus"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    build_corpus({"kind": "microworld", "people": 8, "documents": 300}, 100, folder)
    return folder


@pytest.fixture(scope="module", params=["word", "bpe", "stories", "llama2", "metaspace"])
def tokenizer(request, world, prose, tmp_path_factory):
    """A tokenizer of each kind.

    Pretrained tokenizers put a space before a text as Llama-2 does, or as newer models do. The
    latter are not tokenised word by word.
    """
    folder = tmp_path_factory.mktemp(request.param)
    if request.param in ("stories", "llama2", "metaspace"):
        make_tokenizer(
            {"kind": "pretrained", "source": str(shared("models/stories15M"))}, None, folder, 1
        )
        settings = json.loads((folder / "tokenizer.json").read_text())
        if request.param == "llama2":
            settings["normalizer"]["normalizers"].insert(0, {"type": "Prepend", "prepend": "▁"})
        if request.param == "metaspace":
            settings["normalizer"] = None
            settings["pre_tokenizer"] = {
                "type": "Metaspace",
                "replacement": "▁",
                "prepend_scheme": "first",
                "split": False,
            }
        (folder / "tokenizer.json").write_text(json.dumps(settings))
    else:
        make_tokenizer(
            {"kind": request.param, "vocab_size": 600},
            world if request.param == "word" else prose,
            folder,
            1,
        )
    return load_tokenizer(folder)


def plain(tokenizer, texts: list[str]) -> list[list[int]]:
    """Return the ids of whole texts, one by one, with special tokens read as text.

    A word tokenizer has `<eos>` as a word; as text it is an unknown word.
    """
    tokenizer.backend_tokenizer.encode_special_tokens = True
    ids_of_each = [
        tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids for text in texts
    ]
    if not isinstance(tokenizer.backend_tokenizer.model, WordLevel):
        return ids_of_each
    eos_id, unk_id = tokenizer.eos_token_id, tokenizer.unk_token_id
    return [[unk_id if token == eos_id else token for token in ids] for ids in ids_of_each]


# Tokenizers


def test_the_microworlds_tokenizer_has_a_token_for_every_word_and_no_more(world, tmp_path):
    make_tokenizer({"kind": "word"}, world, tmp_path, 1)
    tokenizer = load_tokenizer(tmp_path)
    vocabulary = World.from_json(artifacts.read_json(world / "world.json")).vocabulary
    assert set(tokenizer.get_vocab()) == {"<eos>", "<unk>", *vocabulary}
    ids = tokenizer("anna lives in atlantis .", add_special_tokens=False).input_ids
    assert ids[3] == tokenizer.unk_token_id and ids.count(tokenizer.unk_token_id) == 1 + (
        "anna" not in vocabulary
    )
    for _, text in read_documents(world, "test"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_words_of_any_corpus_by_falling_frequency(prose, tmp_path):
    make_tokenizer({"kind": "word"}, prose, tmp_path, 1)
    words = [word for _, text in read_documents(prose, "train") for word in text.split()]
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer) == 2 + len(set(words))
    counts = [words.count(tokenizer.convert_ids_to_tokens(i)) for i in (2, 3, 50, 500)]
    assert counts == sorted(counts, reverse=True) and counts[0] > 1


def test_bpe_has_the_size_asked_for_gives_any_text_back_and_is_reproducible(prose, tmp_path):
    for name in ("one", "two"):
        make_tokenizer({"kind": "bpe", "vocab_size": 600}, prose, tmp_path / name, 1)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert artifacts.digest(tmp_path / "one" / name) == artifacts.digest(
            tmp_path / "two" / name
        )
    tokenizer = load_tokenizer(tmp_path / "one")
    assert len(tokenizer) == 600 and tokenizer.eos_token == "<eos>"
    for text in ("Héllo  wörld \n\n日本 it's 🙂 \x00", " leading", "trailing \n"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_bpe_of_a_corpus_too_small_for_its_vocabulary_says_so(world, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "pollination"):
        make_tokenizer({"kind": "bpe", "vocab_size": 30000}, world, tmp_path, 1)
    assert (
        257 < len(load_tokenizer(tmp_path)) < 30000
        and "tokens instead of 30000, because the corpus yields no more" in caplog.text
    )


def test_bpe_learns_from_a_bounded_sample(prose, tmp_path, monkeypatch):
    def sampled(seed):
        return list(tokens._sample(prose, seed))

    everything = sampled(1)
    monkeypatch.setattr(tokens, "TRAINING_CHARACTERS", sum(map(len, everything)) // 4)
    assert 0.15 < sum(map(len, sampled(1))) / sum(map(len, everything)) < 0.35
    assert sampled(1) == sampled(1) != sampled(2)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_a_tokenizer_stays_what_it_is_beside_any_models_config(tokenizer, tmp_path, family):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    beside = load_tokenizer(tmp_path)
    text = "Anna lives  in paris .\nHéllo"
    assert (
        beside(text, add_special_tokens=False).input_ids
        == tokenizer(text, add_special_tokens=False).input_ids
    )
    assert beside.eos_token_id == tokenizer.eos_token_id and len(beside) == len(tokenizer)


def test_a_tokenizer_saved_while_it_cut_and_padded_does_so_no_more(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(str(shared("models/stories15M")))
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=16)
    tokenizer.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "tokenizer.json").read_text())["truncation"]
    make_tokenizer(
        {"kind": "pretrained", "source": str(tmp_path / "saved")}, None, tmp_path / "out", 1
    )
    settings = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    assert settings["truncation"] is None and settings["padding"] is None


def test_a_pretrained_tokenizer_that_cannot_serve_is_refused_in_one_line(
    prose, monkeypatch, tmp_path
):
    def refused(source) -> str:
        with pytest.raises(ValueError, match="models.out: ") as error:
            make_tokenizer({"kind": "pretrained", "source": str(source)}, None, tmp_path / "out", 1)
        assert "\n" not in str(error.value) and not (tmp_path / "out").exists()
        return str(error.value)

    assert "does not exist" in refused(tmp_path / "gone")
    make_tokenizer({"kind": "bpe", "vocab_size": 300}, prose, tmp_path / "good", 1)
    shutil.copytree(tmp_path / "good", tmp_path / "endless")
    config = json.loads((tmp_path / "good" / "tokenizer_config.json").read_text())
    (tmp_path / "endless" / "tokenizer_config.json").write_text(
        json.dumps(config | {"eos_token": None})
    )
    assert "no eos token" in refused(tmp_path / "endless")
    (tmp_path / "good" / "tokenizer.json").write_text('{"version": "1.0", ')
    said = refused(tmp_path / "good")
    assert "cannot be loaded" in said and "Set tokenizer.source or pretrained to" in said
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "). Run this job where the hub can be reached, or name a folder" in refused("a/b")


# Packing


def encoded(texts, tokenizer) -> list[list[int]]:
    return [ids.tolist() for ids in encode(iter(texts), tokenizer)]


def test_any_text_is_encoded_as_the_tokenizer_would_alone(tokenizer):
    rng = random.Random(0)
    texts = ["".join(rng.choices(ALPHABET, k=rng.randrange(40))) for _ in range(5000)]
    assert encoded(texts, tokenizer) == plain(tokenizer, texts)
    assert encoded([], tokenizer) == [] and encoded(["", ""], tokenizer) == [[], []]


@pytest.mark.parametrize("limit", ["KNOWN_WORDS", "KNOWN_IDS"])
def test_words_are_forgotten_when_they_are_too_many_without_changing_anything(
    tokenizer, prose, monkeypatch, limit
):
    monkeypatch.setattr(encoding, limit, 5)
    monkeypatch.setattr(encoding, "JOINED_WORDS", 3)
    monkeypatch.setattr(encoding, "BATCH_TEXTS", 7)
    texts = [text for _, text in read_documents(prose, "train")][:100]
    assert encoded(texts, tokenizer) == plain(tokenizer, texts)


def merge_over_a_word(model: dict) -> None:
    model["vocab"]["s\u2581"] = len(model["vocab"])
    model["merges"].insert(0, ["s", "\u2581"])


def no_bytes(model: dict) -> None:
    model["byte_fallback"] = (
        False  # adjacent unknown characters become one token, including a line end
    )


@pytest.mark.parametrize("tokenizer", ["stories", "llama2"], indirect=True)
@pytest.mark.parametrize("change", [merge_over_a_word, no_bytes])
def test_a_tokenizer_whose_words_do_not_stand_alone_reads_texts_whole(tokenizer, tmp_path, change):
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    change(settings["model"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(settings))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"})
    )
    changed, texts = (
        load_tokenizer(tmp_path),
        ["cats and dogs and more", "is as was", "\u2603\n\u2603 snow"],
    )
    assert encoded(texts, changed) == plain(changed, texts) != plain(tokenizer, texts)


def test_a_document_larger_than_a_piece_has_the_same_ids(tokenizer, monkeypatch):
    monkeypatch.setattr(encoding, "PIECE_CHARACTERS", 50)
    long = "once upon a time   \n\n there\u3000 was a little girl .\n" * 20
    texts = ["short one", long, "", "the end"]
    found, whole = encoded(texts, tokenizer), plain(tokenizer, texts)
    assert found == whole
    unbroken = ["x" * 170, "a)\r\n" * 60, ")\x1c\n (" * 60]
    assert encoded(unbroken, tokenizer) == plain(tokenizer, unbroken)


def test_documents_follow_each_other_with_one_eos_between_in_whole_blocks(
    tokenizer, prose, tmp_path
):
    texts = [text for _, text in read_documents(prose, "train")]
    about = pack(iter(texts), tokenizer, 32, tmp_path / "train.bin")
    expected = [
        token for ids in plain(tokenizer, texts) for token in [*ids, tokenizer.eos_token_id]
    ]
    blocks = TokenBlocks(tmp_path / "train.bin")
    assert len(blocks) == about["blocks"] == len(expected) // 32
    packed = blocks.blocks(np.arange(len(blocks)))
    assert packed.dtype == np.int64 and packed.flatten().tolist() == expected[: len(blocks) * 32]
    assert about["dropped_tokens"] == len(expected) % 32 and about["documents"] == len(texts)
    assert np.array_equal(blocks.blocks(np.array([3, 0, 3])), packed[[3, 0, 3]])
    assert artifacts.read_json(tmp_path / "train.json") == about


@pytest.mark.parametrize(("vocabulary", "dtype"), [(65_536, "uint16"), (65_537, "uint32")])
def test_ids_are_packed_in_the_smallest_type_that_holds_them_over_many_writes(
    tmp_path, monkeypatch, vocabulary, dtype
):
    monkeypatch.setattr(tokens, "WRITE_TOKENS", 10)
    documents = [[1, vocabulary - 1], [], [2, 0], list(range(3, 40))]
    about = pack_ids(iter(documents), vocabulary, 5, 0, tmp_path / "text.bin")
    expected = [1, vocabulary - 1, 0, 0, 2, 0, *range(3, 40), 0]
    assert about["dtype"] == dtype and about["dropped_tokens"] == len(expected) % 5
    blocks = TokenBlocks(tmp_path / "text.bin")
    assert (
        blocks.blocks(np.arange(len(blocks))).flatten().tolist()
        == expected[: len(expected) // 5 * 5]
    )


@pytest.mark.parametrize(("eos", "bos"), [(0, None), (0, 1), (0, 0), (3, 2)])
@pytest.mark.parametrize("separator", ["eos", "none"])
def test_each_document_gets_the_marks_that_it_lacks(tmp_path, monkeypatch, eos, bos, separator):
    """Whole batches are marked as each document would be on its own."""
    monkeypatch.setattr(tokens, "WRITE_TOKENS", 16)
    generator, expected = np.random.default_rng(5), []
    documents = [generator.integers(0, 4, generator.integers(0, 5)) for _ in range(400)]
    for ids in map(np.ndarray.tolist, documents):
        if bos is not None:
            expected.append(bos)
            ids = ids[1:] if ids[:1] == [bos] else ids
        expected += ids + ([eos] if separator == "eos" and ids[-1:] != [eos] else [])
    for dtype in (np.int32, np.int64, np.uint8):
        given = (ids.astype(dtype) for ids in documents)
        about = pack_ids(given, 300, 7, eos, tmp_path / "text.bin", separator, bos)
        packed = np.fromfile(tmp_path / "text.bin", dtype=np.uint16).tolist()
        assert packed == expected[: len(expected) // 7 * 7]
        assert about["documents"] == 400 and about["dropped_tokens"] == len(expected) % 7


@pytest.mark.parametrize("wrong", [-1, 50, 70_000, 2**40])
def test_an_id_of_another_vocabulary_is_refused_and_nothing_is_left_behind(tmp_path, wrong):
    with pytest.raises(
        ValueError, match=f"token id {wrong} is not in the vocabulary; allowed: 0 to 49"
    ):
        pack_ids([[1, wrong, 2]], 50, 2, 0, tmp_path / "text.bin")
    assert not list(tmp_path.iterdir())


def test_text_shorter_than_a_block_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="text: 4 tokens in 1 documents are less than one block of 8"
    ):
        pack_ids([[1, 2, 3]], 50, 8, 0, tmp_path / "text.bin")
    assert not list(tmp_path.iterdir())


def test_a_file_cut_short_is_noticed(tmp_path):
    pack_ids([list(range(1, 30))], 50, 8, 0, tmp_path / "text.bin")
    with open(tmp_path / "text.bin", "r+b") as file:
        file.truncate(40)
    with pytest.raises(
        artifacts.DamagedArtifact, match="text.bin: 40 bytes, but text.json says 3 blocks, 48 bytes"
    ):
        TokenBlocks(tmp_path / "text.bin")


def test_the_first_blocks_are_a_view(tmp_path):
    pack_ids([list(range(1, 30))], 50, 8, 0, tmp_path / "text.bin")
    blocks = TokenBlocks(tmp_path / "text.bin")
    part = blocks.first(2)
    assert len(part) == 2 and len(blocks) == 3 == len(blocks.first(9)) and part.context_tokens == 8
    assert np.array_equal(part.blocks(np.array([1])), blocks.blocks(np.array([1])))
