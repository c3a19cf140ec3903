"""The two measuring jobs from files to files, on tiny untrained models: what they read, what they
write, and when they refuse.
"""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from snakemake.iocontainers import Wildcards

from pollination.core import artifacts
from pollination.core.artifacts import digest
from pollination.core.job import Params
from pollination.data.corpora import build_corpus, read_documents
from pollination.data.microworld import World
from pollination.data.segments import cut
from pollination.data.tokens import TokenBlocks, make_tokenizer, pack, vocabulary_id
from pollination.evaluation import disagreement, quality
from pollination.evaluation.member import read_text, score_text
from pollination.evaluation.perplexity import summarize
from pollination.evolution.reading import training_blocks, training_of
from pollination.models.checkpoint import (
    create_model,
    load_member,
    load_tokenizer,
    save_model,
    write_blueprint,
)

CONTEXT = 32


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A world, its tokens, a blueprint, and two untrained members."""
    folder = tmp_path_factory.mktemp("made")
    sizes = {"people": 6, "numbers": 8, "objects": 5, "roles": 3, "documents": 300}
    build_corpus({"kind": "microworld"} | sizes, 1, folder / "corpus")
    make_tokenizer({"kind": "word"}, folder / "corpus", folder / "model", 1)
    tokenizer = load_tokenizer(folder / "model")
    settings = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    write_blueprint(
        {
            "architecture": "llama",
            "context_tokens": CONTEXT,
            "pretrained": None,
            "settings": settings,
        },
        tokenizer,
        folder / "model",
    )
    for split in ("train", "test"):
        pack(
            (text for _, text in read_documents(folder / "corpus", split)),
            tokenizer,
            CONTEXT,
            folder / f"{split}.bin",
        )
    spec = {"pool": "human", "tokens": 640, "segments": "distinct", "num_segments": None}
    cut(folder / "train.bin", spec, 0, 1, folder / "segment.bin", folder / "segment.parquet")
    for m in range(2):
        save_model(create_model(folder / "model", m), folder / f"member{m}")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(folder / "model" / name, folder / f"member{m}" / name)
    return folder


class FakeJob(SimpleNamespace):
    """As much of a Job as measuring asks for."""

    stop = log = None

    def files(self, name: str) -> list[Path]:
        return self.input.get(name, [])

    def file(self, name: str) -> Path | None:
        return next(iter(self.files(name)), None)

    optional_file = file

    def key(self, seed: int) -> str:
        return str(seed)

    def claim(self, name: str, key: str, at_once: bool) -> Path:
        return Path()

    def note_hardware(self, resumes: bool) -> None:
        assert not resumes


def job(made: Path, out: Path, place: str, inputs: dict, training: dict) -> FakeJob:
    entry = {"corpus": "world", "split": "test", "max_tokens": 300}
    params = {
        "training": {"text": "parent"} | training,
        "entry": entry,
        "sequences": "documents",
        "batch_size": 8,
        "seed": 1,
        "data_seed": 1,
        "separator": "eos",
    }
    inputs = {
        "blueprint": [made / "model/config.json"],
        "held_out": [made / "corpus/test.parquet"],
    } | inputs
    return FakeJob(
        input=inputs | {"after": [made / "member0/model.safetensors"]},
        output=SimpleNamespace(quality=out / "quality.json"),
        params=Params(**params, cpu_threads=1),
        device="cpu",
        wildcards=Wildcards(fromdict={"place": place, "member": "0"}),
    )


TRAIN = {"tokens": 640, "include_prompt": False}


def test_a_founder_starts_far_from_the_truth_and_reads_text_that_is_near(made, tmp_path):
    inputs = {"segment": [made / "segment.bin"], "world": [made / "corpus/world.json"]}
    quality.measure(job(made, tmp_path, "founders/human", inputs, {"train": TRAIN}))
    found = artifacts.read_json(tmp_path / "quality.json")
    for name in ("sentences", "next_token"):
        one = found["distances"][name]
        assert (
            one["before"] > 0.9
            and one["delta"] == pytest.approx(one["text"] - one["before"])
            and one["delta"] < 0
        )
        assert (
            abs(one["text"] - one["text_floor"]) < 6 * one["text_floor_sd"] + 0.03
        )  # human text: no farther than its size makes it
    assert found["kind"] == "truth" and found["outside"]["text"] == pytest.approx(0, abs=1e-9)
    performance = found["performance"]
    change = performance["nll_per_token_after"] - performance["nll_per_token_before"]
    assert (
        performance["change"]
        == pytest.approx(change)
        == pytest.approx(
            performance["excess_nats_per_token_after"] - performance["excess_nats_per_token_before"]
        )
    )


def shard(made: Path, path: Path, documents: list[str], prompt_words: int) -> Path:
    tokenizer = load_tokenizer(made / "model")
    rows = [
        {"token_ids": tokenizer(text)["input_ids"], "prompt_tokens": prompt_words}
        for text in documents
    ]
    artifacts.write_table(path, pd.DataFrame(rows).assign(vocabulary=vocabulary_id(tokenizer)))
    return path


def test_a_child_is_measured_by_what_it_trains_on(made, tmp_path):
    """Half of the blocks human: garbage is half of the text, and prompts are none of it."""
    path = shard(
        made,
        tmp_path / "text.parquet",
        ["anna plus plus plus . anna lives two ." for _ in range(200)],
        0,
    )
    inputs = {
        "text": [path],
        "weights": [made / "member1/model.safetensors"],
        "world": [made / "corpus/world.json"],
    }
    training = {
        "train": TRAIN | {"tokens": None},
        "human": {"fraction": 0.0, "accumulate": "none"},
        "seed": 42,
    }
    quality.measure(job(made, tmp_path, "m4/gen3", inputs, training))
    bad = artifacts.read_json(tmp_path / "quality.json")
    assert bad["outside"]["text"] == pytest.approx(1) and bad["sentences"] == 400
    task = job(
        made,
        tmp_path,
        "m4/gen3",
        inputs | {"human": [made / "train.bin"]},
        training | {"human": {"fraction": 0.5, "accumulate": "none"}},
    )
    (rows, kept), (human, _) = quality.training_text(
        training_of(task), load_tokenizer(made / "model")
    )
    blocks = 200 * (9 + 1) // CONTEXT
    assert kept == 0.5 and len(rows) == 200 and len(human) == round(blocks / 2)
    quality.measure(task)
    mixed = artifacts.read_json(tmp_path / "quality.json")
    assert 0.2 < mixed["outside"]["text"] < 0.8
    again = job(
        made,
        tmp_path,
        "m4/gen3",
        {"segment": [made / "segment.bin"]},
        training | {"text": "human"},
    )
    (own, share), *more = quality.training_text(training_of(again), None)
    assert (len(own), share, more) == (
        TRAIN["tokens"] // CONTEXT,
        1.0,
        [],
    )  # its founder's segment, and nothing else


def test_the_measured_blocks_of_a_segment_are_those_of_the_founders_training(made, tmp_path):
    inputs = {"segment": [made / "segment.bin"]}
    training = training_of(job(made, tmp_path, "founders/human", inputs, {"train": TRAIN}))
    read = training_blocks(training, None, 0, CONTEXT, tmp_path)
    trained = read.blocks(np.arange(len(read))).tolist()
    entry = {"corpus": "world", "split": "segment", "max_tokens": 160}
    model, tokenizer = load_member(made / "member0")
    measured = read_text(model, tokenizer, entry, "blocks", made / "segment.bin")
    assert measured.blocks(np.arange(len(measured))).tolist() == trained[: 160 // CONTEXT]
    whole = TokenBlocks(made / "train.bin")  # `split: train` measures other blocks
    assert [block for block in whole.blocks(np.arange(5)).tolist() if block not in trained]
    world = World.from_json(artifacts.read_json(made / "corpus/world.json"))
    frame = score_text(model, tokenizer, entry, "blocks", made / "segment.bin", world, 8)
    assert frame.truth_nll.isna().all() and "excess_nats_per_token" not in summarize(frame)


def test_real_text_has_a_proxy_by_samples_of_equal_size(made, tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "PROXY_TOKENS", 600)
    human = TokenBlocks(made / "train.bin").blocks(np.arange(40)).tolist()
    path = tmp_path / "text.parquet"
    artifacts.write_table(
        path,
        pd.DataFrame(
            {
                "token_ids": human,
                "prompt_tokens": 0,
                "vocabulary": vocabulary_id(load_tokenizer(made / "model")),
            }
        ),
    )
    inputs = {
        "text": [path],
        "weights": [made / "member1/model.safetensors"],
        "train": [made / "train.bin"],
        "reference": [made / "test.bin"],
    }
    task = job(
        made,
        tmp_path,
        "m4/gen1",
        inputs | {"prompts": [made / "corpus/prompts.parquet"]},
        {"train": TRAIN, "human": {"fraction": 0.0, "accumulate": "none"}, "seed": 42},
    )
    quality.measure(task)
    found = artifacts.read_json(tmp_path / "quality.json")
    one = found["distances"]["bigrams"]
    assert (
        found["kind"] == "proxy"
        and found["tokens"] <= 600
        and "excess_nats_per_token_after" not in found["performance"]
    )
    assert one["before"] > 0.95 and abs(one["text"] - one["text_floor"]) < 0.2 and one["delta"] < 0


def test_disagreement_is_written_with_its_pairs_and_only_within_a_tokenizer(made, tmp_path):
    weights = [made / f"member{m}/model.safetensors" for m in (0, 1, 0)]
    tokenizers, text = (
        [made / f"member{m}/tokenizer.json" for m in (0, 1, 0)],
        [made / "test.bin"] * 3,
    )
    digests = {str(path): digest(path) for path in (*tokenizers, *text)}
    entry = {"corpus": "world", "split": "test", "max_tokens": 200}
    task = FakeJob(
        input={"weights": weights, "tokenizers": tokenizers, "text": text},
        digests=digests,
        output=SimpleNamespace(table=tmp_path / "d.parquet", disagreement=tmp_path / "d.json"),
        params=Params(disagreement=entry, sequences="blocks", batch_size=4, cpu_threads=1),
        device="cpu",
    )
    disagreement.measure(task)
    found = artifacts.read_json(tmp_path / "d.json")
    pairs = np.array(found["pairwise"])
    assert (
        pairs[0, 2] == pytest.approx(0, abs=1e-6) and pairs[0, 1] > 0 and (pairs == pairs.T).all()
    )
    assert found["groups"][0]["tokens"] == 200 // CONTEXT * (CONTEXT - 1)
    assert 1 < found["effective_models"] < 2
    assert found["js"] == pytest.approx(found["groups"][0]["js"], rel=1e-12)
    assert artifacts.read_table(tmp_path / "d.parquet").num_rows == 200 // CONTEXT
    task.digests = digests | {str(tokenizers[1]): "another"}
    disagreement.measure(task)
    found = artifacts.read_json(tmp_path / "d.json")
    assert (
        found["pairwise"][0][1] is None
        and found["pairwise"][1][1] == 0
        and found["groups"][0]["members"] == [0, 2]
    )
    task.digests = {key: key for key in digests}
    task.input["tokenizers"] = [
        made / f"{name}/tokenizer.json" for name in ("member0", "member1", "model")
    ]
    task.digests |= {str(path): str(path) for path in task.input["tokenizers"]}
    with pytest.raises(ValueError, match="no two members"):
        disagreement.measure(task)
