"""Packing, prompts, scoring and few-shot requests read a text alike, and no text is a token."""

import json
import random
from pathlib import Path

import pytest
import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pollination.data import encoding
from pollination.data.encoding import encode, encode_with_offsets
from pollination.data.special import BOS_KEY, decide_bos, special_tokens
from pollination.data.tokens import TokenBlocks, make_tokenizer, pack, vocabulary_id
from pollination.evaluation.disagreement import disagreement
from pollination.evaluation.harness import HarnessModel, encode_pairs
from pollination.evaluation.perplexity import document_sequences, perplexity, summarize
from pollination.evolution.shards import _texts
from pollination.models.checkpoint import load_tokenizer, write_blueprint
from pollination.models.completion import _encode, complete, continue_prompts
from tests.conftest import shared

HOSTILE = [
    "",
    " ",
    "  two leading spaces",
    "the <unk> of <unk> , <eos> and <s> .",
    "<s>the cat</s>",
    "a<|endoftext|>b",
    "<|endoftext|>",
    "[CLS] the [SEP] <bos><eos>",
    "<bos> <extra> twice<extra>",
    "\ufeffthe cat",
    "line\r\nline\r\n\r\n)\r\n",
    "\x00\x01\x1c\x85 nul\tand\x7f",
    "🙂👩‍👩‍👧 e\u0301 日本語 \u2028 \u200b",
    "▁<s>▁",
    "supercalifragilistic" * 300,
    "\n\n\n   \n",
]
SPECIALS = ["<unk>", "<s>", "</s>", "<eos>", "<bos>", "<|endoftext|>", "[CLS]", "[SEP]"]
TEXT = ["the cat sat on the mat .", "a <unk> line and an <eos> here </s>", "<s> <bos> x"] * 40


def template(before: list[tuple[str, int]], after: list[tuple[str, int]]):
    return processors.TemplateProcessing(
        single=[*(name for name, _ in before), "$A", *(name for name, _ in after)],
        special_tokens=[*before, *after],
    )


def trained(kind: str) -> tuple[Tokenizer, dict[str, str]]:
    """A small tokenizer of a kind. Some learn the names of their own special tokens from text."""
    if kind == "gpt2":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        made.train_from_iterator([*TEXT, "a<|endoftext|>b"], trainer)
        return made, {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    if kind in ("gemma", "unigram"):
        spaces = pre_tokenizers.Metaspace(prepend_scheme="never", split=kind == "unigram")
        if kind == "gemma":
            made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
            trainer = trainers.BpeTrainer(
                vocab_size=500,
                special_tokens=["<pad>", "<eos>", "<bos>", "<unk>"]
                + [f"<0x{n:02X}>" for n in range(256)],
                show_progress=False,
            )
        else:
            made = Tokenizer(models.Unigram())
            trainer = trainers.UnigramTrainer(
                vocab_size=80,
                special_tokens=["<eos>", "<bos>", "<unk>"],
                unk_token="<unk>",
                show_progress=False,
            )
        made.pre_tokenizer = spaces
        made.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        made.train_from_iterator(TEXT, trainer)
        made.add_tokens([AddedToken("<extra>", normalized=False), AddedToken("\n\n")])
        bos = ("<bos>", made.token_to_id("<bos>"))
        made.post_processor = template([bos], [])
        return made, {"eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    if kind == "word":
        words = sorted({word for text in TEXT for word in text.split()} | {"<bos>", "<eos>"})
        made = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return made, {"eos_token": "<eos>", "unk_token": "<unk>", "bos_token": "<bos>"}
    made = Tokenizer.from_file(str(shared("models/stories15M") / "tokenizer.json"))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.post_processor = template([("<s>", 1)], [])
    return made, {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}


KINDS = {  # kind -> its bos under auto
    "gpt2": None,
    "gemma": "<bos>",
    "unigram": "<bos>",
    "word": None,
    "llama2": "<s>",
}


def fast(kind: str) -> PreTrainedTokenizerFast:
    made, names = trained(kind)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, clean_up_tokenization_spaces=False, **names
    )


@pytest.fixture(scope="module", params=[(kind, bos) for kind in KINDS for bos in ("auto", "none")])
def tokenizer(request, tmp_path_factory):
    """The tokenizer of a prepared model, with the bos that it adds by itself, or without."""
    kind, bos = request.param
    folder = tmp_path_factory.mktemp(kind)
    fast(kind).save_pretrained(folder / "source")
    source = {"kind": "pretrained", "source": str(folder / "source")}
    make_tokenizer(source, None, folder / "model", 1, bos)
    tokenizer = load_tokenizer(folder / "model")
    expected = KINDS[kind] if bos == "auto" else None
    special = special_tokens(tokenizer)
    assert special.eos_id == tokenizer.eos_token_id
    assert special.bos_id == (expected and tokenizer.convert_tokens_to_ids(expected))
    return tokenizer


def tiny(tokenizer, context: int = 4096, **settings) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=max(tokenizer.get_vocab().values()) + 1,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=context,
        **{"eos_token_id": tokenizer.eos_token_id} | settings,
    )
    return LlamaForCausalLM(config).eval()


def test_three_paths_give_the_same_ids_and_no_text_is_a_special_token(tokenizer, tmp_path):
    special = special_tokens(tokenizer)
    begin = [] if special.bos_id is None else [special.bos_id]
    rng = random.Random(0)
    parts = [*HOSTILE[:-2], *SPECIALS, "a", " ", ")", "\r", "\n", "\n\n", "<extra>", "the "]
    texts = HOSTILE + ["".join(rng.choices(parts, k=rng.randrange(9))) for _ in range(200)]
    ids = [row.tolist() for row in encode(texts, tokenizer)]
    unknown = tokenizer.unk_token_id  # an unknown character is no special token of the text
    forbidden = {tokenizer.convert_tokens_to_ids(name) for name in SPECIALS} - {unknown, None}
    forbidden &= set(tokenizer.all_special_ids)
    assert forbidden and not forbidden & {token for row in ids for token in row}

    assert [next(encode([text], tokenizer)).tolist() for text in texts] == ids
    assert encode_with_offsets(texts, tokenizer)[0] == ids
    assert _encode(tokenizer, texts, None) == [begin + row for row in ids]
    assert [row.tolist() for row in document_sequences(texts, tokenizer)] == ids
    pack(texts, tokenizer, 1, tmp_path / "text.bin")
    packed = TokenBlocks(tmp_path / "text.bin").tokens_NT.flatten().tolist()
    assert packed == [token for row in ids for token in [*begin, *row, special.eos_id]]

    pairs = [(text.rstrip(), " the cat") for text in texts if text.strip()]
    for (context, ending), (before, after) in zip(
        pairs, encode_pairs(pairs, tokenizer, special.first_id), strict=True
    ):
        whole = next(encode([context + ending], tokenizer)).tolist()
        alone = next(encode([context], tokenizer)).tolist()
        assert (before, after) == (begin + alone, whole[len(alone) :])
    [(before, after)] = encode_pairs([("", "the cat")], tokenizer, special.first_id)
    assert before == [special.first_id] and after == next(encode(["the cat"], tokenizer)).tolist()


def test_text_without_names_of_special_tokens_is_read_as_the_tokenizer_reads_it(tokenizer):
    texts = [text for text in HOSTILE if not any(name in text for name in SPECIALS)]
    texts += ["one <extra> and\n\n\n<extra>two", "<extra>"]
    alone = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert [row.tolist() for row in encode(texts, tokenizer)] == alone


def test_a_long_document_is_read_as_it_would_be_whole(tokenizer, monkeypatch):
    rng = random.Random(1)
    parts = ["a)\r\n", ")\r ", ") \r\n", "x\x1c\n", ")\x1c ", "the cat ", "\n\n", "<extra> ", "▁ b"]
    parts += ["unbroken" * 30, "  \n  ", "!!\n\n", "日本"]
    texts = ["".join(rng.choices(parts, k=200)) for _ in range(5)]
    whole = [row.tolist() for row in encode(texts, tokenizer)]
    for most in (1, 7, 50):
        monkeypatch.setattr(encoding, "PIECE_CHARACTERS", most)
        assert [row.tolist() for row in encode(texts, tokenizer)] == whole


def test_requests_of_the_model_class_begin_with_bos_once(tokenizer):
    special, model = special_tokens(tokenizer), tiny(tokenizer, 24)
    lm = HarnessModel(model, tokenizer, 4)
    ids_BT, mask_BT = lm.tok_batch_encode(["the cat sat", "", "the " * 40], left_truncate_len=12)
    rows = [row[mask > 0].tolist() for row, mask in zip(ids_BT, mask_BT, strict=True)]
    assert rows[1] == [special.first_id] and len(rows[2]) == 12
    assert lm.tok_encode("the cat") == next(encode(["the cat"], tokenizer)).tolist()
    short, long = ("the cat sat", " on"), ("q z j k " * 30, " the")
    encoded = encode_pairs([short, long], tokenizer, special.first_id)
    read = []
    model.base_model.register_forward_pre_hook(
        lambda _m, _a, options: read.extend(options["input_ids"].flatten().tolist()),
        with_kwargs=True,
    )
    lm._loglikelihood_tokens([(short, *encoded[0]), (long, *encoded[1])])
    assert lm.truncated == {long}
    if special.bos_id is not None:
        assert rows[0][0] == rows[2][0] == special.bos_id
        assert read.count(special.bos_id) == 1  # a prefix that both requests share
    else:
        assert special.eos_id not in read


def test_texts_of_a_shard_hold_no_bos(tokenizer):
    special = special_tokens(tokenizer)
    [prompt] = _encode(tokenizer, ["the cat sat"], None)
    new = [*next(encode([" on the mat"], tokenizer)).tolist(), special.eos_id]
    texts = _texts(tokenizer, prompt, new, special)
    assert tokenizer.bos_token not in texts["prompt"] + texts["completion"]
    assert texts["prompt"].strip() == "the cat sat"
    assert texts["completion"].strip() == "on the mat"
    assert _encode(tokenizer, [prompt], None) == [prompt]  # token ids that begin with bos
    assert _encode(tokenizer, [prompt], 2) == [prompt[:2]]


# The decision


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], [], None),
        (["<bos>"], [], "<bos>"),
        (["<bos>"], ["<eos>"], "<bos>"),
        ([], ["<eos>"], None),
        (["<eos>"], [], "<eos>"),
        (["a"], ["<bos>"], "adds a before and <bos> after"),
        (["<bos>", "a"], [], "adds <bos> a before and nothing after"),
    ],
)
def test_auto_takes_what_the_tokenizer_adds(before, after, expected):
    tokenizer = fast("word")
    made = tokenizer.backend_tokenizer
    made.post_processor = template(
        *([(name, made.token_to_id(name)) for name in names] for names in (before, after))
    )
    if expected and " " in expected:
        with pytest.raises(ValueError, match=f"models.m.bos: the tokenizer {expected}"):
            decide_bos("auto", tokenizer, "models.m.bos")
        decide_bos("none", tokenizer, "models.m.bos")
        assert special_tokens(tokenizer).bos_id is None
    else:
        decide_bos("auto", tokenizer, "models.m.bos")
        assert tokenizer.init_kwargs.get(BOS_KEY) == expected


def test_a_token_can_be_chosen_and_is_kept_by_whoever_starts_from_the_folder(tmp_path):
    fast("word").save_pretrained(tmp_path / "source")
    chain = ["source", "first", "second", "third"]
    found = []
    for source, name, bos in zip(chain, chain[1:], ["<bos>", "auto", "none"], strict=False):
        spec = {"kind": "pretrained", "source": str(tmp_path / source)}
        make_tokenizer(spec, None, tmp_path / name, 1, bos)
        tokenizer = load_tokenizer(tmp_path / name)
        found.append(special_tokens(tokenizer).bos_id)
    bos_id = tokenizer.convert_tokens_to_ids("<bos>")
    assert found == [bos_id, bos_id, None]
    digests = {vocabulary_id(load_tokenizer(tmp_path / name)) for name in chain[1:]}
    assert len(digests) == 2  # readers with another bos read the text again
    with pytest.raises(ValueError, match=r"models.new.bos: '<boss>' is not a token"):
        make_tokenizer(spec, None, tmp_path / "new", 1, "<boss>")
    assert not (tmp_path / "new").exists()


def test_bos_at_the_end_of_text_too(tmp_path):
    """OPT: one token begins and ends a text."""
    tokenizer = fast("word")
    decide_bos("<eos>", tokenizer, "models.m.bos")
    special, the = special_tokens(tokenizer), tokenizer.convert_tokens_to_ids("the")
    eos = special.eos_id
    pack(["the the", "", "the"], tokenizer, 1, tmp_path / "text.bin")
    packed = TokenBlocks(tmp_path / "text.bin").tokens_NT.flatten()
    assert packed.tolist() == [eos, the, the, eos, eos, eos, eos, the, eos]
    assert special.scored(packed).tolist() == [True, True, True, False, False, False, True, True]
    assert special.text([eos, the, eos]) == [the, eos]


# End of text


def written(folder: Path, tokenizer, config_ends, generation_ends) -> list[int] | int:
    source = folder / "source"
    model = tiny(tokenizer, eos_token_id=config_ends)
    model.generation_config.eos_token_id = generation_ends
    model.save_pretrained(source)
    spec = {"pretrained": str(source), "context_tokens": 16}
    write_blueprint(spec, tokenizer, folder / "model")
    return json.loads((folder / "model" / "config.json").read_text())["eos_token_id"]


def test_the_models_ends_of_text_hold_the_tokenizers(tmp_path):
    tokenizer = fast("word")
    eos, the, cat = (tokenizer.convert_tokens_to_ids(word) for word in ("<eos>", "the", "cat"))
    cases = [
        (eos, None, eos),
        ([eos, the], None, [eos, the]),
        ([the, eos], eos, [the, eos]),
        (None, None, eos),
        (the, [the, eos], [the, eos]),
        (eos, [eos, cat], [eos, cat]),
    ]
    for number, (config, generation, expected) in enumerate(cases):
        assert written(tmp_path / str(number), tokenizer, config, generation) == expected
    for number, ends in enumerate((the, [the, cat])):
        with pytest.raises(ValueError, match=rf"models.model.pretrained: .*id {eos}.*id {the}"):
            written(tmp_path / f"wrong{number}", tokenizer, ends, None)
    with pytest.raises(ValueError, match="its generation_config.json does not say"):
        written(tmp_path / "text", tokenizer, eos, "eos")
    with pytest.raises(ValueError, match=r"models.model.pretrained: .*id 9999.* no embedding"):
        written(tmp_path / "outside", tokenizer, [eos, 9999], None)
    spec = {"pretrained": None, "architecture": "llama", "context_tokens": 16}
    small = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8}
    with pytest.raises(ValueError, match="models.m.settings.eos_token_id"):
        write_blueprint(
            spec | {"settings": small | {"eos_token_id": the}}, tokenizer, tmp_path / "m"
        )
    decide_bos("<bos>", tokenizer, "models.m.bos")
    (tmp_path / "m").mkdir(exist_ok=True)
    write_blueprint(spec | {"settings": small}, tokenizer, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["bos_token_id"] == tokenizer.convert_tokens_to_ids("<bos>")
    assert config["eos_token_id"] == eos


@pytest.mark.parametrize("decoding", ["greedy", "sample", "beam"])
def test_a_completion_ends_at_any_end_of_the_model(decoding):
    tokenizer = fast("word")
    eos, the, cat = (tokenizer.convert_tokens_to_ids(word) for word in ("<eos>", "the", "cat"))
    settings = {
        "decoding": decoding,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "num_beams": 3,
        "repetition_penalty": 1.0,
        "max_new_tokens": 20,
        "min_new_tokens": 0,
        "batch_size": 12,
    }
    prompts = [[the, cat], [cat], [the], [cat, cat, the]]
    model = tiny(tokenizer)
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(6)
    plain = list(complete(model, prompts, [1, 2, 3, 4], settings, eos))
    other = next(token for row in plain for token in row[3:] if token != eos)
    model.config.eos_token_id = [other, eos]
    ended = list(complete(model, prompts, [1, 2, 3, 4], settings, eos))
    assert ended != plain and not any(other in row for row in ended)
    late = list(complete(model, prompts, [1, 2, 3, 4], settings | {"min_new_tokens": 8}, eos))
    assert min(map(len, late)) > 8 and not any(other in row for row in late)
    if decoding == "sample":
        cut = [[*row[: row.index(other)], eos] if other in row else row for row in plain]
        assert ended == cut
        return
    for prompt, row in zip(prompts, ended, strict=True):
        expected = model.generate(
            torch.tensor([prompt]),
            do_sample=False,
            num_beams=3 if decoding == "beam" else 1,
            max_new_tokens=20,
            eos_token_id=[other, eos],
            pad_token_id=eos,
        )[0, len(prompt) :].tolist()
        ends = [n for n, token in enumerate(expected) if token in (other, eos)]
        expected = [*expected[: ends[0]], eos] if ends else expected
        assert row == expected


# What a model trained with bos makes of it


def test_a_model_that_was_trained_with_bos_is_scored_with_it(tmp_path):
    """A model learns each text's first word from bos; without it, texts are unlikely."""
    tokenizer = fast("word")
    decide_bos("<bos>", tokenizer, "models.m.bos")
    special = special_tokens(tokenizer)
    texts = ["the cat sat on the mat .", "a line and an line here"] * 3
    model, rows = tiny(tokenizer, 16), [special.document(ids) for ids in encode(texts, tokenizer)]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(60):
        for row in rows[:2]:
            ids = torch.from_numpy(row)[None]
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    documents = document_sequences(texts, tokenizer)
    right = perplexity(model, documents, 4, special.eos_id, special.bos_id)
    wrong = perplexity(model, documents, 4, special.eos_id)
    assert right.tokens.tolist() == wrong.tokens.tolist()
    assert summarize(right)["perplexity"] < 1.3 < 1.5 < summarize(wrong)["perplexity"]

    pack(texts, tokenizer, 5, tmp_path / "text.bin")
    blocks = TokenBlocks(tmp_path / "text.bin")
    frame = perplexity(model, blocks, 4, special.eos_id, special.bos_id)
    targets = blocks.tokens_NT[:, 1:]
    assert frame.tokens.tolist() == (targets != special.bos_id).sum(1).tolist()
    assert frame.tokens.sum() < targets.size
    rows = list(special.blocks(blocks.tokens_NT))
    assert {row[0] for row in rows} == {special.bos_id}
    compared, _ = disagreement([model, tiny(tokenizer, 16)], rows, 4, special=special)
    assert compared.tokens.tolist() == frame.tokens[frame.tokens > 0].tolist()

    settings = {"decoding": "greedy", "max_new_tokens": 6, "batch_size": 2}
    table = continue_prompts(model, tokenizer, [("p", "the"), ("q", "a")], settings, 1)
    assert table.completion[0].split() == ["cat", "sat", "on", "the", "mat", "."]
    assert table.prompt.tolist() == ["the", "a"]
