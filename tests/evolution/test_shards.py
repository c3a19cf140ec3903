"""Shards: dropped rows, budgets, bit-identical repeats, resumes after a stop, and errors."""

import logging

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig, PreTrainedTokenizerFast

from pollination.core.artifacts import digest
from pollination.core.job import Stopped
from pollination.core.seeds import derive_seed
from pollination.evolution import shards
from pollination.evolution.shards import shard_budget, write_shard
from pollination.models import paths, refill, static_decoder
from pollination.models.completion import continue_prompts, prompt_limit
from pollination.models.sampling import Decoding, sample
from tests.conftest import shared
from tests.models.test_sampling import CONTEXT, EOS, VOCABULARY, tiny_model

LOG = logging.getLogger("test")
SETTINGS = {
    "decoding": "nucleus",
    "top_p": 0.9,
    "temperature": 1.0,
    "top_k": 0,
    "num_beams": 3,
    "repetition_penalty": 1.0,
    "max_new_tokens": 20,
    "min_new_tokens": 0,
    "min_completion_tokens": 10,
    "tokens": 600,
    "budget_counts": "completion",
    "shards": 1,
    "batch_size": 8,
    "max_prompt_tokens": None,
}
PROMPTS = [
    (f"doc{n}", " ".join(f"w{3 + (n * 7 + i) % 90}" for i in range(1 + n % 11))) for n in range(23)
]


@pytest.fixture(scope="module")
def tokenizer():
    words = {("<eos>" if n == EOS else f"w{n}"): n for n in range(VOCABULARY)}
    core = Tokenizer(models.WordLevel(words, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", unk_token="w0")


@pytest.fixture(scope="module")
def model():
    return tiny_model("gpt2", seed=2)


def write(
    model,
    tokenizer,
    folder,
    name="shard0.parquet",
    shard=0,
    prompts=PROMPTS,
    seed=7,
    stop=None,
    work=None,
    key="k",
    **changes,
):
    out = folder / name
    counts = write_shard(
        model, tokenizer, prompts, SETTINGS | changes, seed, shard, out, LOG, stop, work, key
    )
    return counts, pq.read_table(out).to_pylist(), out


def test_short_completions_are_dropped_and_replaced_until_the_budget_is_met(
    model, tokenizer, tmp_path
):
    counts, rows, _ = write(model, tokenizer, tmp_path)
    new = [row["token_ids"][row["prompt_tokens"] :] for row in rows]
    assert sum(map(len, new)) == counts["tokens"] == counts["completion_tokens"]
    assert (
        600 <= counts["tokens"] < 600 + 21 and counts["tokens"] - len(new[-1]) < 600
    )  # no more rows than needed
    assert counts["rows_kept"] == len(rows) < counts["rows_drawn"]
    assert all(len(ids) - (ids[-1] == EOS) >= 10 for ids in new)
    texts = dict(PROMPTS)
    for row, ids in zip(rows, new, strict=True):
        assert row["prompt"] == texts[row["prompt_id"]]
        assert row["token_ids"][: row["prompt_tokens"]] == tokenizer(row["prompt"])["input_ids"]
        assert tokenizer(row["completion"])["input_ids"] == (ids[:-1] if ids[-1] == EOS else ids)
    seeds = [derive_seed(7, "row", 0, n) for n in range(counts["rows_drawn"])]
    assert [row["seed"] for row in rows] == [
        seed for seed in seeds if seed in {row["seed"] for row in rows}
    ]
    assert len({row["prompt_id"] for row in rows}) > 15


def test_any_row_can_be_written_again_from_its_prompt_and_seed(model, tokenizer, tmp_path):
    _, rows, _ = write(model, tokenizer, tmp_path)
    row = rows[11]
    prompt, new = row["token_ids"][: row["prompt_tokens"]], row["token_ids"][row["prompt_tokens"] :]
    assert (
        next(sample(model, [prompt], [row["seed"]], Decoding.from_settings(SETTINGS), EOS, 1))
        == new
    )


def test_steps_of_fixed_shapes_write_the_same_shard_and_samples(
    model, tokenizer, tmp_path, monkeypatch
):
    """They ask for more rows at once. Before a model is scored, its room is released."""
    counts, _, out = write(model, tokenizer, tmp_path)
    samples = continue_prompts(model, tokenizer, PROMPTS[:5], SETTINGS, 1)
    monkeypatch.setattr(paths, "STATIC_DEVICES", ("cpu",))
    monkeypatch.setattr(refill, "ROWS", 16)
    found = write(model, tokenizer, tmp_path, name="fixed.parquet")
    assert found[0] == counts and digest(found[2]) == digest(out)
    assert static_decoder._rooms[model].rows == SETTINGS["batch_size"]
    pd.testing.assert_frame_equal(
        continue_prompts(model, tokenizer, PROMPTS[:5], SETTINGS, 1), samples
    )
    assert not static_decoder._rooms


def test_a_shard_repeats_bit_for_bit_and_does_not_depend_on_batches(model, tokenizer, tmp_path):
    counts, rows, out = write(model, tokenizer, tmp_path, tokens=250)
    assert digest(write(model, tokenizer, tmp_path, "again.parquet", tokens=250)[2]) == digest(out)
    for batch_size in (1, 3, 64):
        assert write(
            model, tokenizer, tmp_path, "other.parquet", tokens=250, batch_size=batch_size
        )[:2] == (counts, rows)
    assert write(model, tokenizer, tmp_path, "seed.parquet", tokens=250, seed=8)[1] != rows


def test_shards_split_the_budget_and_differ(model, tokenizer, tmp_path):
    assert [shard_budget(1000, 3, shard) for shard in range(3)] == [334, 333, 333]
    one, first, _ = write(model, tokenizer, tmp_path, shards=3, shard=0)
    two, second, _ = write(model, tokenizer, tmp_path, shards=3, shard=1)
    assert one["budget_tokens"] == two["budget_tokens"] == 200
    assert not {row["seed"] for row in first} & {row["seed"] for row in second}
    assert [row["prompt_id"] for row in first] != [row["prompt_id"] for row in second]


def test_the_budget_may_count_prompts(model, tokenizer, tmp_path):
    counts, rows, _ = write(model, tokenizer, tmp_path, budget_counts="text")
    assert (
        counts["tokens"]
        == sum(len(row["token_ids"]) for row in rows)
        == counts["prompt_tokens"] + counts["completion_tokens"]
    )


def test_a_long_prompt_is_cut_and_an_empty_one_continues_an_end_of_text(model, tokenizer, tmp_path):
    prompts = [("long", " ".join(["w5", "w9"] * 60)), ("empty", "")]
    _, rows, _ = write(
        model, tokenizer, tmp_path, prompts=prompts, tokens=None, min_completion_tokens=0
    )
    assert [row["prompt_tokens"] for row in rows] == [CONTEXT // 2, 0]
    assert rows[0]["prompt"] == " ".join(["w5", "w9"] * 16) and rows[1]["prompt"] == ""
    seed = derive_seed(7, "row", 0, 1)
    assert rows[1]["token_ids"] == next(
        sample(model, [[EOS]], [seed], Decoding.from_settings(SETTINGS), EOS, 1)
    )
    assert prompt_limit(model, SETTINGS | {"max_new_tokens": 50}) == CONTEXT - 50
    assert prompt_limit(model, SETTINGS | {"max_prompt_tokens": 44}) == 44
    with pytest.raises(
        ValueError,
        match=(
            r"max_prompt_tokens: 45 and max_new_tokens 20 exceed the model's context of 64 .* at "
            r"most 44"
        ),
    ):
        write(model, tokenizer, tmp_path, max_prompt_tokens=45)
    with pytest.raises(ValueError, match="max_new_tokens: 64 leaves no room"):
        write(model, tokenizer, tmp_path, max_new_tokens=64)


def test_a_degenerated_model_is_named_and_leaves_nothing(tokenizer, tmp_path):
    silent = tiny_model("opt")
    with torch.no_grad():
        silent.lm_head.weight.zero_()
        silent.lm_head.weight[EOS] = 1.0
        silent.model.decoder.final_layer_norm.bias.fill_(5.0)
    with pytest.raises(
        ValueError, match=r"min_completion_tokens: 10: the model has degenerated: only 0 of 400"
    ) as error:
        write(silent, tokenizer, tmp_path)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="degenerated: only 0 of 23"):
        write(silent, tokenizer, tmp_path, tokens=None)
    counts, rows, _ = write(
        silent, tokenizer, tmp_path, min_completion_tokens=0, tokens=50
    )  # end-of-text tokens count, so this ends
    assert counts["tokens"] == len(rows) == 50 and {row["completion"] for row in rows} == {""}


def test_min_tokens_that_cannot_be_reached(model, tokenizer, tmp_path):
    with pytest.raises(
        ValueError, match="min_completion_tokens: 30 exceeds max_new_tokens.*at most 20"
    ):
        write(model, tokenizer, tmp_path, min_completion_tokens=30)


@pytest.mark.parametrize("decoding", ["greedy", "beam"])
def test_repeatable_decoding_gives_each_prompt_one_completion(model, tokenizer, tmp_path, decoding):
    common = {"decoding": decoding, "min_new_tokens": 20, "shards": 2, "batch_size": 36}
    shards = [
        write(model, tokenizer, tmp_path, f"{s}.parquet", shard=s, tokens=None, **common)[1]
        for s in (0, 1)
    ]
    assert [row["prompt_id"] for row in shards[0]] == [f"doc{n}" for n in range(0, 23, 2)]
    assert [row["prompt_id"] for row in shards[1]] == [f"doc{n}" for n in range(1, 23, 2)]
    counts, rows, _ = write(model, tokenizer, tmp_path, tokens=200, **common)
    assert counts["tokens"] == 100 and len({row["prompt_id"] for row in rows}) == 5
    with pytest.raises(
        ValueError,
        match=(
            rf"the 12 prompts of shard 0 gave 240 of 300 tokens, and {decoding} decoding would "
            r"only repeat"
        ),
    ):
        write(model, tokenizer, tmp_path, tokens=600, **common)


def test_an_architecture_without_faster_paths_is_named_once(model, tokenizer, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    other = AutoModelForCausalLM.from_config(
        BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=1, n_head=2)
    ).eval()
    few = {
        "decoding": "beam",
        "tokens": None,
        "min_completion_tokens": 0,
        "max_new_tokens": 3,
        "prompts": PROMPTS[:4],
    }
    write(model, tokenizer, tmp_path, **few)
    assert "decoding is slower" not in caplog.text
    write(other, tokenizer, tmp_path, **few)
    assert (
        sum("decoding is slower: beams that share" in message for message in caplog.messages) == 1
    )


def test_more_shards_than_prompts(model, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="shard 4 of 5 gets none of the 3 prompts"):
        write(model, tokenizer, tmp_path, shard=4, shards=5, prompts=PROMPTS[:3], tokens=None)


class StopAfter:
    """A stop request that is false in the first `looks` checks."""

    reason, may_save = "SIGTERM", True

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def __bool__(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@pytest.mark.parametrize("looks", [0, 100, 200])
def test_a_stopped_shard_goes_on_to_the_same_file(model, tokenizer, tmp_path, looks):
    whole = write(model, tokenizer, tmp_path, "whole.parquet", batch_size=2, tokens=300)
    work = tmp_path / "work"
    with pytest.raises(Stopped, match="shard 0: stopped by SIGTERM; .* run the same command"):
        write(
            model,
            tokenizer,
            tmp_path,
            "part.parquet",
            batch_size=2,
            tokens=300,
            work=work,
            stop=StopAfter(looks),
        )
    assert not (tmp_path / "part.parquet").exists() and work.exists() == (looks > 0)
    resumed = write(model, tokenizer, tmp_path, "part.parquet", batch_size=2, tokens=300, work=work)
    assert digest(resumed[2]) == digest(whole[2]) and resumed[:2] == whole[:2] and not work.exists()


def test_work_of_other_settings_is_not_gone_on_with(model, tokenizer, tmp_path):
    work = tmp_path / "work"
    with pytest.raises(Stopped):
        write(model, tokenizer, tmp_path, batch_size=2, work=work, stop=StopAfter(100))
    assert list(work.iterdir())
    rows = write(model, tokenizer, tmp_path, tokens=200, work=work, key="another")[1]
    assert rows == write(model, tokenizer, tmp_path, tokens=200)[1]


def test_progress_lines_tell_tokens_rate_and_time(model, tokenizer, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(shards, "PROGRESS_S", 0)
    with caplog.at_level(logging.INFO):
        write(model, tokenizer, tmp_path)
    assert (
        "of 600 tokens" in caplog.messages[-1]
        and "about 0 s left" in caplog.messages[-1]
        and len(caplog.messages) > 10
    )


def test_samples_continue_every_prompt_once(model, tokenizer):
    settings = {"max_new_tokens": 12, "top_p": 0.9, "temperature": 1.0}
    table = continue_prompts(model, tokenizer, PROMPTS[:5], settings, seed=3)
    assert list(table.columns) == ["prompt_id", "prompt", "completion", "seed"]
    assert list(zip(table.prompt_id, table.prompt, strict=True)) == PROMPTS[:5]
    assert table.equals(continue_prompts(model, tokenizer, PROMPTS[:5], settings, seed=3))
    assert not table.equals(continue_prompts(model, tokenizer, PROMPTS[:5], settings, seed=4))
    named = continue_prompts(model, tokenizer, PROMPTS[:5], settings, seed=3, by_name=True)
    assert (
        named.iloc[3:]
        .reset_index(drop=True)
        .equals(continue_prompts(model, tokenizer, PROMPTS[3:5], settings, seed=3, by_name=True))
    )
    assert not any("<eos>" in text for text in table.completion)


def test_a_real_model_writes_english(tmp_path):
    folder = shared("models/stories15M")
    story_model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompts = [("a", "Once upon a time there was a little dog"), ("b", "Tom and Lily went to")]
    _, rows, _ = write(
        story_model,
        AutoTokenizer.from_pretrained(folder),
        tmp_path,
        prompts=prompts,
        tokens=100,
        max_new_tokens=30,
        temperature=0.7,
    )
    assert len(rows) >= 3 and all(row["prompt"] in dict(prompts).values() for row in rows)
    assert any(" the " in row["completion"] for row in rows) and not any(
        "</s>" in row["completion"] for row in rows
    )
