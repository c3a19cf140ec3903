"""Study B's operators in a real run: two families on segments of one budget, block prompts, a dealt
pool, and what reads it.
"""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from pollination.core import artifacts
from pollination.data.tokens import TokenBlocks, vocabulary_id
from pollination.models.checkpoint import load_tokenizer
from pollination.plan.config.resolve import resolve
from pollination.plan.jobs import jobs
from pollination.plan.plan import Plan
from tests.conftest import ROOT, planned, snakemake

CONFIG = ROOT / "config/test/ecosystem.yaml"
TARGETS = [
    "reader/gen2/member0/model.safetensors",
    "again/gen1/member0/model.safetensors",
    "heap/gen2/member1/model.safetensors",
]
TARGETS += ["alone/gen1/member0/model.safetensors", "line/gen1/member0/model.safetensors"]
MEASURED = [
    "base/student/member0/scores.json",
    "founders/families/member1/scores.json",
    "heap/gen2/member1/quality.json",
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("eco")
    snakemake(
        folder, "--", *(f"results/eco/{path}" for path in TARGETS + MEASURED), configfile=CONFIG
    )
    return folder / "results/eco"


def rows(path: Path) -> list[dict]:
    return artifacts.read_table(path).to_pylist()


def test_the_whole_plan_is_known_and_status_counts_it(tmp_path):
    plan = planned(snakemake(tmp_path, "-n", configfile=CONFIG))
    assert plan["train_founder"] == 1 + 2 and plan["train_child"] == 2 * (2 + 2 + 1 + 1) + 2
    assert (
        plan["generate_shard"] == 2 * 2 * 2 + 2 and plan["deal_pool"] == 2 * (2 + 2 + 1) + 1
    )  # `again` and `reader` write nothing
    counted = len(list(jobs(Plan(resolve(yaml.safe_load(CONFIG.read_text())), "results/eco"))))
    assert counted == plan["total"] - plan["all"] - plan["write_config"]


def test_each_writer_continues_every_block_of_its_own_segment_by_as_many_tokens(run):
    prompts = []
    for member, model in enumerate(("student", "other")):
        blocks = TokenBlocks(run / f"tokens/{model}/world/train.bin").tokens_NT
        written = rows(run / f"families/gen1/synthetic{member}/shard0.parquet")
        assert len(written) == 50  # half of 1,600 tokens in blocks of 16
        for row in written:
            assert (
                row["token_ids"][:16]
                == blocks[int(row["prompt_id"].removeprefix("block"))].tolist()
            )
            assert (len(row["token_ids"]), row["prompt_tokens"]) == (32, 16)
        assert written == sorted(
            written, key=lambda row: [r["prompt_id"] for r in written].index(row["prompt_id"])
        )
        assert [r["prompt_id"] for r in written] == [
            r["prompt_id"] for r in rows(run / f"families/gen0/synthetic{member}/shard0.parquet")
        ]
        prompts.append({row["prompt_id"] for row in written})
    assert all(len(one) == 50 for one in prompts)


def test_what_a_founder_reads_is_its_segment_and_its_descendants_are_measured_on_it(run):
    record = artifacts.read_json(run / "founders/families/member1/run.json")
    read = [path for path in record["inputs"] if path.endswith(".bin")]
    assert sorted(read) == [
        "results/eco/segments/families/member1.bin",
        "results/eco/tokens/other/world/validation.bin",
    ]
    scores = artifacts.read_json(run / "founders/families/member1/scores.json")["perplexity"]
    assert scores["own/segment"]["sequences"] == 50
    assert not {"excess_nats_per_token", "entropy_per_token"} & scores["own/segment"].keys()


def test_a_pool_of_two_families_is_dealt_equally_and_read_whole_by_another_experiment(run):
    ids = {
        model: vocabulary_id(load_tokenizer(run / f"models/{model}"))
        for model in ("student", "other")
    }
    dealt = [rows(run / f"heap/gen0/deal{m}/text.parquet") for m in (0, 1)]
    assert [len(part) for part in dealt] == [50, 50]
    assert Counter(row["vocabulary"] for part in dealt for row in part) == dict.fromkeys(
        ids.values(), 50
    )
    assert all(len({row["vocabulary"] for row in part}) == 2 for part in dealt)
    whole = rows(run / "reader/gen1/deal0/text.parquet")
    written = [
        row for m in (0, 1) for row in rows(run / f"families/gen1/synthetic{m}/shard0.parquet")
    ]
    assert sorted(map(str, whole)) == sorted(map(str, written))


def test_an_ecosystem_of_one_is_the_recursive_baseline_bit_for_bit(run):
    for file in ("model.safetensors", "train.jsonl"):
        alone, line = (
            artifacts.digest(run / f"{name}/gen1/member0/{file}") for name in ("alone", "line")
        )
        assert alone == line != artifacts.digest(run / f"again/gen1/member0/{file}")
    assert rows(run / "alone/gen0/deal0/text.parquet") == rows(
        run / "line/gen0/synthetic0/shard0.parquet"
    )


def steps(run: Path, member: str) -> int:
    return json.loads((run / member / "train.jsonl").read_text().splitlines()[-2])["step"]


def test_children_read_what_their_operators_say(run):
    def epoch(blocks):
        return -(-blocks // 8)

    assert steps(run, "again/gen1/member0") == 2 * epoch(50)  # its own human segment again
    record = artifacts.read_json(run / "heap/gen2/member1/run.json")
    assert [path.split("/")[3] for path in record["inputs"] if "/deal" in path] == ["gen0", "gen1"]
    assert steps(run, "heap/gen2/member1") >= 2 * epoch(
        120
    )  # 50 blocks of human text and two rounds of about as many
    start = artifacts.read_json(run / "reader/gen2/member0/run.json")["inputs"]
    assert "results/eco/models/student/model.safetensors" in start


def test_the_untouched_model_is_measured_as_generation_minus_1(run):
    assert list(artifacts.read_json(run / "base/student/member0/scores.json")["perplexity"]) == [
        "own/test",
        "wrote/train",
    ]
    assert list(
        artifacts.read_json(run / "founders/families/member1/scores.json")["perplexity"]
    ) == ["own/segment", "own/test", "world/train"]
    assert artifacts.digest(run / "models/student/model.safetensors") == artifacts.digest(
        run / "founders/teachers/member0/model.safetensors"
    )


def test_text_of_all_rounds_and_of_another_family_is_held_against_the_truth(run):
    found = artifacts.read_json(run / "heap/gen2/member1/quality.json")
    assert found["kind"] == "truth" and found["sentences"] > 100
    assert 0 < found["distances"]["next_token"]["text"] < 1
