"""The plan: which files an experiment consists of and what each step reads."""

import subprocess
import sys

import yaml

from pollination.config import resolve
from pollination.workflow import Plan
from tests.conftest import ROOT


def plan(**experiments) -> Plan:
    raw = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    raw["experiments"] = experiments
    return Plan(resolve(raw), "r")


FULL = {"population": 9, "select": {"task": "social"}, "mutate": {"scale": 0.01}, "generate": {"shards": 2}}


def test_child_takes_weights_of_parent_i_and_text_of_parent_j():
    p = plan(full=FULL)
    assert p.child_inputs("full", 3, 5) == {
        "weights": ["r/full/gen2/parent1/model.safetensors"],
        "text": ["r/full/gen2/synthetic2/shard0.parquet", "r/full/gen2/synthetic2/shard1.parquet"],
    }
    pairs = {(p.weights("full", 1, m)[0], p.text("full", 1, m)[0]) for m in range(9)}
    assert len(pairs) == 9


def test_generation_0_is_the_pool_and_a_smaller_population_takes_a_prefix():
    p = plan(full=FULL, small={**FULL, "population": 4})
    assert p.pool_sizes == {"human": 9}
    assert p.member("small", 0, 3) == p.member("full", 0, 3) == "r/founders/human/member3"
    assert len(p.evaluations("scores.json")) == 9 + 4 * 9 + 4 * 4


def test_whoever_may_hold_a_rank_is_an_input_of_what_the_rank_does():
    inputs = plan(full=FULL).parent_inputs("full", 1, 2)
    assert inputs["selection"] == ["r/full/gen1/selection.json"]
    assert inputs["members"] == [f"r/full/gen1/member{m}/model.safetensors" for m in range(9)]


def test_operators_without_selection_use_slots():
    line = {"population": 3, "weights": "own", "text": "own"}
    p = plan(own=line, fresh={**line, "weights": "fresh"}, back={**line, "weights": "founder"}, noisy={**line, "mutate": {"scale": 0.1}})
    assert p.child_inputs("own", 2, 1) == {
        "weights": ["r/own/gen1/member1/model.safetensors"],
        "text": ["r/own/gen1/synthetic1/shard0.parquet"],
    }
    assert p.weights("fresh", 2, 1) == []
    assert p.weights("back", 2, 1) == ["r/founders/human/member1/model.safetensors"]
    assert p.weights("noisy", 2, 1) == ["r/noisy/gen1/parent1/model.safetensors"]
    assert p.parent_inputs("own", 1, 2) == {"members": ["r/own/gen1/member2/model.safetensors"]}


def test_pool_deals_everybodys_text():
    p = plan(ecosystem={"population": 3, "weights": "own", "text": "pool", "human": {"fraction": 0.1}})
    inputs = p.child_inputs("ecosystem", 1, 2)
    assert inputs["text"] == ["r/ecosystem/gen0/deal2/text.parquet"]
    assert inputs["human"] == ["r/tokens/tiny/world/train.bin"]
    assert p.all_shards("ecosystem", 0) == [f"r/ecosystem/gen0/synthetic{m}/shard0.parquet" for m in range(3)]


def test_best_on_validation_reads_validation_text():
    assert plan(best={**FULL, "train": {"keep": "best"}}).child_inputs("best", 1, 0)["validation"] == ["r/tokens/tiny/world/validation.bin"]


def test_the_rules_floor_imports_nothing_heavy():
    heavy = ["torch", "transformers", "datasets", "lm_eval", "pandas", "matplotlib"]
    code = f"import sys, pollination.workflow, pollination.config; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


ECOSYSTEM = {"population": 2, "generations": 3, "weights": "own", "text": "pool", "founders": "pair"}


def ecosystems(pool: dict, models: dict | None = None, **experiments) -> Plan:
    """Experiments on a pool `pair` of segments; "student" starts from the demo's founder 0 of pool "human"."""
    raw = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    raw["models"] |= {"student": {"pretrained": {"founders": "human"}, "context_tokens": 64}} | (models or {})
    raw["corpora"]["other"] = {"kind": "microworld", "people": 8}
    raw["founders"]["pair"] = {"model": "student", "corpus": "world", "of": 2, "train": {}} | pool
    raw["experiments"] = experiments
    return Plan(resolve(raw), "r")


def test_a_model_may_start_from_a_founder_of_the_run_and_the_untouched_one_is_generation_minus_1():
    p = ecosystems({}, eco=ECOSYSTEM, anew={**ECOSYSTEM, "weights": "base"})
    assert p.pool_sizes == {"human": 1, "pair": 2} and p.bases == ["student"]
    assert p.pretrained_from("student")[0] == "r/founders/human/member0/model.safetensors"
    assert p.founder_inputs("pair", 1)["weights"] == p.weights("anew", 2, 1) == ["r/models/student/model.safetensors"]
    assert "r/base/student/member0/scores.json" in p.evaluations("scores.json")
    assert p.model_files("base/student", 0)[0] == "r/models/student/model.safetensors"
    assert p.staged() == []  # nothing of it comes from a hub


def test_models_and_corpora_may_be_lists_by_member():
    p = ecosystems(
        {"model": ["student", "tiny"], "corpus": ["world", "other"], "validation": "world", "train": {"keep": "best"}}, eco=ECOSYSTEM
    )
    assert p.founder_inputs("pair", 1) == {
        "blocks": ["r/tokens/tiny/other/train.bin"],
        "validation": ["r/tokens/tiny/world/validation.bin"],
    }
    assert p.evaluation_inputs("eco/gen2", 0)["overlap"] == ["r/corpora/world/overlap.json"]
    assert p.evaluation_inputs("eco/gen2", 1)["overlap"] == ["r/corpora/other/overlap.json"]
    assert p.blueprint("eco/gen1", 1) == "r/models/tiny"


def test_text_of_human_again_of_all_rounds_and_of_another_experiment():
    p = ecosystems(
        {},
        eco=ECOSYSTEM,
        again={**ECOSYSTEM, "text": "human"},
        heap={**ECOSYSTEM, "human": {"accumulate": "all"}},
        reader={**ECOSYSTEM, "population": 1, "weights": "base", "text_of": "eco"},
    )
    human = ["r/tokens/student/world/train.bin"]
    assert p.child_inputs("again", 2, 1)["human"] == human and p.child_inputs("again", 2, 1)["text"] == []
    assert not p.writes("again", 0) and not p.writes("reader", 0) and p.writes("eco", 1) and not p.writes("eco", 2)
    inputs = p.child_inputs("heap", 2, 1)
    assert inputs["text"] == ["r/heap/gen0/deal1/text.parquet", "r/heap/gen1/deal1/text.parquet"] and inputs["human"] == human
    assert p.child_inputs("reader", 2, 0)["text"] == ["r/reader/gen1/deal0/text.parquet"]
    assert p.pooled("reader", 1) == p.all_shards("eco", 1)


def test_a_writer_is_prompted_by_its_own_segment():
    p = ecosystems({"corpus": ["world", "other"]}, eco={**ECOSYSTEM, "generate": {"prompt": "blocks", "tokens": None}})
    assert p.prompt_inputs("eco", 1, 1) == {"blocks": ["r/tokens/student/other/train.bin"]}
    assert p.segment("pair") == {"pool": "pair", "tokens": None, "segments": "distinct", "of": 2}


def test_texts_are_measured_in_the_generations_that_they_name():
    raw = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    raw["evaluate"]["perplexity"] = [{"corpus": "world"}, {"corpus": "world", "split": "train", "generations": [0, 4]}]
    p = Plan(resolve(raw), "r")
    splits = {
        place: [entry["split"] for entry in p.measures(place, 0)["perplexity"]]
        for place in ("base/x", "founders/human", "line.s42/gen3", "line.s42/gen4")
    }
    assert splits == {
        "base/x": ["test"],
        "founders/human": ["test", "train"],
        "line.s42/gen3": ["test"],
        "line.s42/gen4": ["test", "train"],
    }


def test_own_is_each_members_own_corpus():
    raw = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    raw["corpora"]["other"] = {"kind": "microworld", "people": 8}
    raw["founders"]["human"]["corpus"] = ["world", "other", "other", "world"]
    raw["evaluate"]["perplexity"] = [{"corpus": "own"}]
    p = Plan(resolve(raw), "r")
    assert p.evaluation_inputs("population/gen2", 1)["text"] == ["r/corpora/other/test.parquet"]
    assert [(e["corpus"], e["name"]) for m in (0, 1) for e in p.measures("founders/human", m)["perplexity"]] == [
        ("world", "own"),
        ("other", "own"),
    ]


def test_what_an_experiment_wrote_is_a_corpus_for_the_untouched_model():
    raw = {"kind": "synthetic", "experiment": "eco", "generation": 2, "held_out": {"validation": 0, "test": 0, "prompts": 0}}
    p = ecosystems({}, eco=ECOSYSTEM)
    p.config["corpora"]["wrote"] = raw
    assert p.corpus_sources("wrote") == p.all_shards("eco", 2) and p.writes("eco", 2)  # the last generation, which nobody else reads
    entry = {"corpus": "wrote", "split": "train", "sequences": "blocks", "max_tokens": None, "generations": [-1], "founders": ["pair"]}
    p.config["evaluate"]["perplexity"].append(entry)
    assert p.evaluation_inputs("base/student", 0)["text"][-1] == "r/tokens/student/wrote/train.bin"
    assert "r/tokens/student/wrote/train.bin" not in p.evaluation_inputs("founders/pair", 0)["text"]


def sampled(**change) -> Plan:
    raw = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    raw["evaluate"] |= change
    return Plan(resolve(raw), "r")


def test_samples_are_embedded_of_those_who_play_a_role_or_are_named():
    p = sampled()
    assert p.embedded() == ["population", "line.s42", "line.s123", "line.s456"] and p.embeddings == "r/semantics/tfidf.embeddings.parquet"
    assert p.embedded_groups()[1] == {"group": "line", "experiments": ["line.s42", "line.s123", "line.s456"], "population": 1}
    assert len(p.embedded_models()) == 4 + 4 * 4 + 3 * 4  # founders once
    assert p.figure_inputs("semantics") == {"embeddings": [p.embeddings]} and p.encoder == []
    named = sampled(semantics={"encoder": "{data}/roberta", "experiments": ["line"]})
    assert named.embedded() == ["line.s42", "line.s123", "line.s456"]
    assert named.semantics["encoder"] == "./roberta" and "r/semantics/encoder/model.safetensors" in named.staged()
    without = sampled(semantics=None)
    assert not {"semantics", "semantic_diversity"} & set(without.figures()) and "degeneration" in without.figures()
    assert without.figure_inputs("continuations")["vocabulary"] == ["r/corpora/world/vocabulary.parquet"]


def test_measuring_something_else_beside_the_scores_evaluates_nobody_again():
    assert sampled().measures("line.s42/gen1", 0) == sampled(semantics=None, quality=True).measures("line.s42/gen1", 0)
