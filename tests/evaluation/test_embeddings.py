"""Encoders: mean pooling beside a direct computation, batches, what is refused; TF-IDF by hand."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

from pollination.core import artifacts
from pollination.evaluation import embeddings
from pollination.evaluation.embeddings import encode, stage_encoder, tfidf

WORDS = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    *[
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "mat",
        "and",
        "then",
        "it",
        "went",
        "home",
        "to",
        "see",
        "more",
        "of",
        "this",
    ],
]
TEXTS = [
    "the cat sat",
    "",
    "then it went home to see more of this and then it went home",
    "a mat",
    "zebra <pad> cat",
    "the cat sat",
]
SIZES = {
    "vocab_size": len(WORDS),
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "pad_token_id": 1,
}
CPU = torch.device("cpu")


def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """Tiny random models, saved as the hub has them: RoBERTa with the head that it was trained
    with.
    """
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(5)
    made = {
        "roberta": RobertaForMaskedLM(
            RobertaConfig(hidden_size=16, max_position_embeddings=14, **SIZES)
        ),
        "bert": BertModel(BertConfig(hidden_size=16, max_position_embeddings=14, **SIZES)),
        "decoder": BertModel(BertConfig(hidden_size=16, is_decoder=True, **SIZES)),
        "gpt2": GPT2LMHeadModel(
            GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=16)
        ),
        "t5": T5ForConditionalGeneration(
            T5Config(vocab_size=len(WORDS), d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)
        ),
    }
    for name, model in made.items():
        model.save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize(("name", "positions"), [("roberta", 12), ("bert", 14)])
def test_an_encoder_gives_the_mean_of_its_last_hidden_states_in_any_batch(
    sources, tmp_path, name, positions
):
    stage_encoder(str(sources / name), None, tmp_path)
    found = encode(tmp_path, TEXTS, 512, 4, CPU)
    model, reads = (
        AutoModel.from_pretrained(sources / name).eval(),
        AutoTokenizer.from_pretrained(sources / name),
    )
    for text, vector in zip(TEXTS, found, strict=True):
        ids = reads(text, return_tensors="pt", truncation=True, max_length=positions)["input_ids"]
        with torch.no_grad():
            expected = (
                model(input_ids=ids, attention_mask=torch.ones_like(ids))
                .last_hidden_state[0]
                .mean(0)
            )
        assert np.allclose(vector, expected, atol=1e-6)
    assert np.array_equal(found[0], found[5]) and not np.allclose(found[0], found[3])
    for batch_size in (1, 3, 64):
        assert np.abs(encode(tmp_path, TEXTS, 512, batch_size, CPU) - found).max() <= 1e-6
    assert np.array_equal(encode(tmp_path, TEXTS, 512, 4, CPU), found)
    assert not np.allclose(encode(tmp_path, TEXTS, 5, 4, CPU)[2], found[2])  # cut sooner


def test_an_encoder_that_gives_no_numbers_is_refused(sources, tmp_path):
    stage_encoder(str(sources / "roberta"), None, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if name.endswith("LayerNorm.bias"))
    save_file(
        weights | {name: torch.full_like(weights[name], torch.inf)},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(ValueError, match="values that are not finite"):
        encode(tmp_path, TEXTS, 512, 4, CPU)


def test_staging_again_gives_the_same_files(sources, tmp_path):
    for folder in ("one", "other"):
        stage_encoder(str(sources / "roberta"), None, tmp_path / folder)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert all(
        (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()
        for file in files
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpt2", "(gpt2) is not an encoder-only model"),
        ("t5", "(t5) is not an encoder-only model"),
        ("decoder", "(bert) is not an encoder-only model"),
        ("/nowhere/encoder", "there is no such folder"),
        ("pickle", "cannot be loaded"),
        ("code", "cannot be loaded"),
        ("halved", "lacks weights of its encoder"),
    ],
)
def test_what_is_no_safe_encoder_is_one_line(sources, tmp_path, name, words):
    source = sources / name
    if name == "pickle":
        source = shutil.copytree(sources / "bert", tmp_path / "pickle")
        (source / "model.safetensors").unlink()
        torch.save(
            AutoModel.from_pretrained(sources / "bert").state_dict(), source / "pytorch_model.bin"
        )
    if name == "code":
        source = shutil.copytree(sources / "bert", tmp_path / "code")
        config = json.loads((source / "config.json").read_text()) | {
            "model_type": "own",
            "auto_map": {"AutoConfig": "own.Config"},
        }
        (source / "config.json").write_text(json.dumps(config))
        (source / "own.py").write_text("raise SystemExit('ran')")
    if name == "halved":
        source = shutil.copytree(sources / "bert", tmp_path / "halved")
        config = json.loads((source / "config.json").read_text()) | {"num_hidden_layers": 3}
        (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="evaluate.semantics.encoder: ") as caught:
        stage_encoder(str(source), None, tmp_path / "staged")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_tfidf_by_hand():
    texts = ["cat cat dog", "cat", "", "zebra"]
    found = tfidf(texts, ["cat cat dog", "cat"])
    idf = 1 + np.log(3 / 2)  # of dog, in one of two texts; of cat 1 + log(3 / 3) = 1
    assert np.allclose(found[0], np.array([2, idf, 0]) / np.hypot(2, idf)) and np.allclose(
        found[1], [1, 0, 0]
    )
    assert np.array_equal(found[2], [0, 0, 1]) and np.array_equal(
        found[3], [0, 0, 1]
    )  # words of none: alike, and unlike all others
    assert tfidf(["", ""], ["", " "]).tolist() == [[1], [1]]


def test_texts_are_embedded_once_and_stand_in_every_place(tmp_path):
    for member, said in (("a", ["the cat", "", "own"]), ("b", ["a mat", "the cat", "own"])):
        rows = {"prompt_id": ["p0", "p1", "fantasy"], "prompt": "", "completion": said, "seed": 0}
        artifacts.write_table(tmp_path / f"{member}.parquet", pd.DataFrame(rows))
    job = SimpleNamespace(
        params=SimpleNamespace(
            models=["a", "b"],
            texts=["fantasy"],
            places=[["x", 0, 0, "a"], ["x", 1, 0, "b"], ["y", 0, 0, "a"]],
        ),
        output=SimpleNamespace(embeddings=tmp_path / "embeddings.parquet"),
        files=lambda name: (
            [tmp_path / "a.parquet", tmp_path / "b.parquet"] if name == "samples" else []
        ),
        log=SimpleNamespace(info=print),
    )
    embeddings.embed(job)
    table = artifacts.read_table(tmp_path / "embeddings.parquet").to_pandas()
    assert [
        (row.experiment, row.generation, row.model, row.prompt_id) for row in table.itertuples()
    ] == [
        ("x", 0, "a", "p0"),
        ("x", 0, "a", "p1"),
        ("x", 1, "b", "p0"),
        ("x", 1, "b", "p1"),
        ("y", 0, "a", "p0"),
        ("y", 0, "a", "p1"),
    ]
    assert np.array_equal(table.embedding[0], table.embedding[3]) and np.array_equal(
        table.embedding[0], table.embedding[4]
    )
    assert not np.array_equal(table.embedding[0], table.embedding[1])
