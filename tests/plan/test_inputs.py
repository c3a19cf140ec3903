"""The plan: which files an experiment consists of and what each step reads."""

import pytest
import yaml

from pollination.cli.runs.planned import build_dag, loaded
from pollination.plan import embedding, inputs, layout, measuring, outputs, report, synthetic
from pollination.plan.config.resolve import resolve
from pollination.plan.embedding import embedded_groups, embedded_models
from pollination.plan.inputs import (
    child_inputs,
    corpus_settings,
    corpus_sources,
    founder_inputs,
    parent_inputs,
    prompt_inputs,
    read_corpora,
    removed_questions,
    staged_files,
    starting_weights,
)
from pollination.plan.jobs import jobs
from pollination.plan.layout import member_folder, model_files, pretrained_from
from pollination.plan.measuring import evaluation_inputs
from pollination.plan.plan import Plan
from pollination.plan.report import figure_inputs
from pollination.plan.semantics import embeddings_file, encoder_files, semantics_settings
from pollination.plan.synthetic import all_shards, synthetic_text, writers
from tests.conftest import ROOT, TOY, TOY_PLAN, study_a


def plan(**experiments) -> Plan:
    raw = study_a()
    raw["experiments"] = experiments
    return Plan(resolve(raw), "r")


FULL = {
    "population": 9,
    "select": {"task": "social"},
    "mutate": {"scale": 0.01},
    "generate": {"shards": 2},
}


def test_child_takes_weights_of_parent_i_and_text_of_parent_j():
    p = plan(full=FULL)
    assert child_inputs(p, "full", 3, 5) == {
        "weights": ["r/full/gen2/parent1/model.safetensors"],
        "text": ["r/full/gen2/synthetic2/shard0.parquet", "r/full/gen2/synthetic2/shard1.parquet"],
    }
    pairs = {
        (starting_weights(p, "full", 1, m)[0], synthetic_text(p, "full", 1, m)[0]) for m in range(9)
    }
    assert len(pairs) == 9


def test_generation_0_is_the_pool_and_a_smaller_population_takes_a_prefix():
    p = plan(full=FULL, small={**FULL, "population": 4})
    assert p.pool_sizes == {"human": 9}
    assert (
        member_folder(p, "small", 0, 3)
        == member_folder(p, "full", 0, 3)
        == "r/founders/human/member3"
    )
    assert len(outputs.evaluations(p, "scores.json")) == 9 + 4 * 9 + 4 * 4


def test_whoever_may_hold_a_rank_is_an_input_of_what_the_rank_does():
    given = parent_inputs(plan(full=FULL), "full", 1, 2)
    assert given["selection"] == ["r/full/gen1/selection.json"]
    assert given["members"] == [f"r/full/gen1/member{m}/model.safetensors" for m in range(9)]


def test_operators_without_selection_use_slots():
    line = {"population": 3, "weights": "own", "text": "own"}
    p = plan(
        own=line,
        fresh={**line, "weights": "fresh"},
        back={**line, "weights": "founder"},
        noisy={**line, "mutate": {"scale": 0.1}},
    )
    assert child_inputs(p, "own", 2, 1) == {
        "weights": ["r/own/gen1/member1/model.safetensors"],
        "text": ["r/own/gen1/synthetic1/shard0.parquet"],
    }
    assert starting_weights(p, "fresh", 2, 1) == []
    assert starting_weights(p, "back", 2, 1) == ["r/founders/human/member1/model.safetensors"]
    assert starting_weights(p, "noisy", 2, 1) == ["r/noisy/gen1/parent1/model.safetensors"]
    assert parent_inputs(p, "own", 1, 2) == {"members": ["r/own/gen1/member2/model.safetensors"]}


def test_files_of_own_functions_are_inputs_of_the_jobs_that_call_them():
    mine = {**FULL, "select": {"task": "social", "rule": "models/own.py:choose"}, "seed": 7}
    p = plan(full=FULL, mine=mine)
    given = inputs.selection_inputs(p, "full", 1)
    assert sorted(given) == ["answers", "scores"] and len(given["scores"]) == 9
    assert inputs.selection_inputs(p, "mine", 1)["rule"] == ["models/own.py"]
    full = {"task": "social", "k": 3, "splits": {"social": "half"}}
    assert inputs.selection_settings(p, "full") == full
    chosen = full | {"rule": "models/own.py:choose", "seed": 7, "code": {}}
    chosen["splits"] = dict.fromkeys(p.config["tasks"], "half")  # its rule sees all tasks
    assert inputs.selection_settings(p, "mine") == chosen
    without = evaluation_inputs(p, "mine/gen1", 0), measuring.measures(p, "mine/gen1", 0)
    assert without[0]["measures"] == [] and "measures" not in without[1]
    before = [(work.group, work.output) for work in jobs(p)]
    own = {"a": "models/own.py:a", "b": "models/own.py:b", "c": "c.py:c"}
    p.config["evaluate"]["measures"] = own
    assert evaluation_inputs(p, "mine/gen1", 0)["measures"] == ["models/own.py", "c.py"]
    assert measuring.measures(p, "mine/gen1", 0) == without[1] | {"measures": own, "code": {}}
    assert [(work.group, work.output) for work in jobs(p)] == before


def test_pool_deals_everybodys_text():
    p = plan(
        ecosystem={"population": 3, "weights": "own", "text": "pool", "human": {"fraction": 0.1}}
    )
    given = child_inputs(p, "ecosystem", 1, 2)
    assert given["text"] == ["r/ecosystem/gen0/deal2/text.parquet"]
    assert given["human"] == ["r/tokens/tiny/world/train.bin"]
    assert all_shards(p, "ecosystem", 0) == [
        f"r/ecosystem/gen0/synthetic{m}/shard0.parquet" for m in range(3)
    ]


def test_best_on_validation_reads_validation_text():
    assert child_inputs(plan(best={**FULL, "train": {"checkpoint": "best"}}), "best", 1, 0)[
        "validation"
    ] == ["r/tokens/tiny/world/validation.bin"]


ECOSYSTEM = {
    "population": 2,
    "generations": 3,
    "weights": "own",
    "text": "pool",
    "founders": "pair",
}


def ecosystems(
    pool: dict, models: dict | None = None, texts: list | None = None, **experiments
) -> Plan:
    """Experiments on a pool `pair` of segments; "student" starts from the demo's founder 0 of pool
    "human".
    """
    raw = study_a()
    raw["models"] |= {"student": {"pretrained": {"founders": "human"}, "context_tokens": 64}} | (
        models or {}
    )
    raw["corpora"]["other"] = {"kind": "microworld", "people": 8}
    raw["founders"]["pair"] = {
        "model": "student",
        "corpus": "world",
        "num_segments": 2,
        "train": {},
    } | pool
    raw["experiments"] = experiments
    raw["evaluate"]["perplexity"] = texts or raw["evaluate"]["perplexity"]
    return Plan(resolve(raw), "r")


def test_a_model_may_start_from_a_founder_of_the_run_and_the_untouched_one_is_generation_minus_1():
    p = ecosystems({}, eco=ECOSYSTEM, anew={**ECOSYSTEM, "weights": "base"})
    assert p.pool_sizes == {"human": 1, "pair": 2} and p.bases == ["student"]
    assert pretrained_from(p, "student")[0] == "r/founders/human/member0/model.safetensors"
    assert (
        founder_inputs(p, "pair", 1)["weights"]
        == starting_weights(p, "anew", 2, 1)
        == ["r/models/student/model.safetensors"]
    )
    assert "r/base/student/member0/scores.json" in outputs.evaluations(p, "scores.json")
    assert model_files(p, "base/student", 0)[0] == "r/models/student/model.safetensors"
    assert staged_files(p) == []  # nothing of it comes from a hub


def test_models_and_corpora_may_be_lists_by_member():
    p = ecosystems(
        {
            "model": ["student", "tiny"],
            "corpus": ["world", "other"],
            "validation": "world",
            "train": {"checkpoint": "best"},
        },
        eco=ECOSYSTEM,
    )
    assert founder_inputs(p, "pair", 1) == {
        "segment": ["r/segments/pair/member1.bin"],
        "validation": ["r/tokens/tiny/world/validation.bin"],
    }
    assert inputs.segment_source(p, "pair", 1) == "r/tokens/tiny/other/train.bin"
    assert evaluation_inputs(p, "eco/gen2", 0)["overlap"] == ["r/corpora/world/overlap.json"]
    assert evaluation_inputs(p, "eco/gen2", 1)["overlap"] == ["r/corpora/other/overlap.json"]
    assert layout.blueprint(p, "eco/gen1", 1) == "r/models/tiny"


def with_text(**change) -> Plan:
    """The toy config with a corpus of local text, changed."""
    raw = yaml.safe_load(TOY.read_text())
    raw["corpora"]["text"] = {"kind": "files", "path": "text.txt"}
    raw["tasks"]["mmlu"] = {"kind": "lm_eval", "template": "mmlu"}
    for path, value in change.items():
        node = raw
        *parents, last = path.split("__")
        for key in parents:
            node = node[key]
        node[last] = value
    return Plan(resolve(raw), "r")


def test_every_corpus_whose_text_reaches_a_model_is_searched_for_questions():
    assert read_corpora(with_text(), "line/gen1", 0) == ["world"]
    prompted = with_text(defaults__generate__prompt_corpus="text")
    assert read_corpora(prompted, "line/gen1", 0) == ["world", "text"]
    assert "r/corpora/text/overlap.json" in evaluation_inputs(prompted, "line/gen1", 0)["overlap"]
    assert any(work.output == "r/corpora/text/overlap.json" for work in jobs(prompted))
    chosen = with_text(
        founders__human__validation="text", founders__human__train__checkpoint="best"
    )
    assert read_corpora(chosen, "founders/human", 0) == ["world", "text"]
    taught = ecosystems({"corpus": "other"}, eco=ECOSYSTEM)
    assert set(read_corpora(taught, "founders/pair", 0)) == {
        "other",
        "world",
    }  # its base read world


def test_a_corpus_waits_for_the_questions_only_if_it_drops_documents():
    assert removed_questions(with_text(), "text") == []
    removing = with_text(corpora__text__on_overlap="remove", founders__human__corpus="text")
    assert removed_questions(removing, "text") == ["r/tasks/mmlu/questions.parquet"]
    with pytest.raises(ValueError, match="corpora.world.on_overlap: 'remove' is not allowed"):
        with_text(corpora__world__on_overlap="remove")


def test_downloads_and_microworlds_of_earlier_versions_do_not_run_again():
    plan = with_text()
    later = {"passages", "on_overlap"}
    assert not later & set(corpus_settings(plan, "world"))
    assert not later & set(corpus_settings(plan, "text", is_download=True))
    assert corpus_settings(plan, "text")["passages"] == "auto"
    grammar = {"numbers": 8, "objects": 5, "roles": 3, "exceptions": 0}
    shares = {"knowledge": 0.55, "arithmetic": 0.2, "coreference": 0.1, "social": 0.15}
    default = with_text(corpora__world={"kind": "microworld"})
    assert {*grammar, "shares"} <= set(corpus_settings(default, "world"))
    assert not {*grammar, "shares"} & set(corpus_settings(plan, "text"))
    assert corpus_settings(plan, "text")["people"] == 48  # as these versions recorded it
    before = {f"corpora__world__{key}": value for key, value in grammar.items()}
    earlier = with_text(corpora__world__shares=shares, **before)
    assert not {*grammar, "shares"} & set(corpus_settings(earlier, "world"))


def test_text_of_human_again_of_all_rounds_and_of_another_experiment():
    p = ecosystems(
        {},
        eco=ECOSYSTEM,
        again={**ECOSYSTEM, "text": "human"},
        heap={**ECOSYSTEM, "human": {"accumulate": "all"}},
        reader={**ECOSYSTEM, "population": 1, "weights": "base", "text_of": "eco"},
        mixed={**ECOSYSTEM, "human": {"fraction": 0.1}},
    )
    human = ["r/segments/pair/member1.bin"]
    mixed = child_inputs(p, "mixed", 2, 1)  # new human text each time, so of the whole corpus
    assert "segment" not in mixed and mixed["human"] == ["r/tokens/student/world/train.bin"]
    assert (
        child_inputs(p, "again", 2, 1)["segment"] == human
        and "human" not in child_inputs(p, "again", 2, 1)
        and child_inputs(p, "again", 2, 1)["text"] == []
    )
    assert (
        not writers(p, "again", 0)
        and not writers(p, "reader", 0)
        and writers(p, "eco", 1)
        and not writers(p, "eco", 2)
    )
    given = child_inputs(p, "heap", 2, 1)
    assert (
        given["text"] == ["r/heap/gen0/deal1/text.parquet", "r/heap/gen1/deal1/text.parquet"]
        and given["segment"] == human
        and "human" not in given
    )
    assert child_inputs(p, "reader", 2, 0)["text"] == ["r/reader/gen1/deal0/text.parquet"]
    assert synthetic.pooled(p, "reader", 1) == all_shards(p, "eco", 1)


def test_a_writer_is_prompted_by_its_own_segment():
    p = ecosystems(
        {"corpus": ["world", "other"]},
        eco={**ECOSYSTEM, "generate": {"prompt": "blocks", "tokens": None}},
    )
    assert prompt_inputs(p, "eco", 1, 1) == {
        "blocks": ["r/segments/pair/member1.bin"],
        "numbers": ["r/segments/pair/member1.parquet"],
    }
    assert inputs.segment(p, "pair") == {
        "pool": "pair",
        "tokens": None,
        "segments": "distinct",
        "num_segments": 2,
    }


def test_texts_are_measured_in_the_generations_that_they_name():
    raw = study_a()
    raw["evaluate"]["perplexity"] = [
        {"corpus": "world"},
        {"corpus": "world", "split": "train", "generations": [0, 4]},
    ]
    p = Plan(resolve(raw), "r")
    splits = {
        place: [entry["split"] for entry in measuring.measures(p, place, 0)["perplexity"]]
        for place in ("base/x", "founders/human", "line.s42/gen3", "line.s42/gen4")
    }
    assert splits == {
        "base/x": ["test"],
        "founders/human": ["test", "train"],
        "line.s42/gen3": ["test"],
        "line.s42/gen4": ["test", "train"],
    }


def test_a_segment_is_the_text_that_the_founder_of_the_slot_has_read():
    """In blocks, also in a microworld; an untouched model has read none."""
    p = ecosystems(
        {"corpus": ["world", "other"]},
        texts=[{"corpus": "own", "split": "segment", "max_tokens": 99}, {"corpus": "own"}],
        eco=ECOSYSTEM,
    )
    for place in ("founders/pair", "eco/gen2"):
        assert evaluation_inputs(p, place, 1)["text"] == [
            "r/segments/pair/member1.bin",
            "r/corpora/other/test.parquet",
        ]
        assert measuring.measured_sequences(p, place, 1) == ["blocks", "documents"]
    assert founder_inputs(p, "pair", 1)["segment"] == ["r/segments/pair/member1.bin"]
    untouched = measuring.measures(p, "base/student", 0)["perplexity"]
    assert [entry["split"] for entry in untouched] == ["test"]
    assert measuring.quality_entry(p, "eco/gen2", 1)["split"] == "test"
    assert p.config["figures"]["text"] == "own/test"


def test_no_founder_reads_a_packed_corpus():
    p = ecosystems({}, eco=ECOSYSTEM)
    for member in range(2):
        paths = sum(founder_inputs(p, "pair", member).values(), [])
        assert not [path for path in paths if path.endswith("/train.bin")]


def test_own_is_each_members_own_corpus():
    raw = study_a()
    raw["corpora"]["other"] = {"kind": "microworld", "people": 8}
    raw["founders"]["human"]["corpus"] = ["world", "other", "other", "world"]
    raw["evaluate"]["perplexity"] = [{"corpus": "own"}]
    p = Plan(resolve(raw), "r")
    assert evaluation_inputs(p, "population/gen2", 1)["text"] == ["r/corpora/other/test.parquet"]
    assert [
        (e["corpus"], e["name"])
        for m in (0, 1)
        for e in measuring.measures(p, "founders/human", m)["perplexity"]
    ] == [
        ("world", "own"),
        ("other", "own"),
    ]


def test_what_an_experiment_wrote_is_a_corpus_for_the_untouched_model():
    raw = {
        "kind": "synthetic",
        "experiment": "eco",
        "generation": 2,
        "held_out": {"validation": 0, "test": 0, "prompts": 0},
    }
    p = ecosystems({}, eco=ECOSYSTEM)
    p.config["corpora"]["wrote"] = raw
    assert corpus_sources(p, "wrote") == all_shards(p, "eco", 2) and writers(
        p, "eco", 2
    )  # the last generation, which nobody else reads
    entry = {
        "corpus": "wrote",
        "split": "train",
        "sequences": "blocks",
        "max_tokens": None,
        "generations": [-1],
        "founders": ["pair"],
    }
    p.config["evaluate"]["perplexity"].append(entry)
    assert evaluation_inputs(p, "base/student", 0)["text"][-1] == "r/tokens/student/wrote/train.bin"
    assert (
        "r/tokens/student/wrote/train.bin" not in evaluation_inputs(p, "founders/pair", 0)["text"]
    )


def sampled(**change) -> Plan:
    raw = study_a()
    raw["evaluate"] |= change
    return Plan(resolve(raw), "r")


def test_samples_are_embedded_of_those_who_play_a_role_or_are_named():
    p = sampled()
    assert (
        embedding.embedded(p) == ["population", "line.s42", "line.s123", "line.s456"]
        and embeddings_file(p) == "r/semantics/tfidf.embeddings.parquet"
    )
    assert embedded_groups(p)[1] == {
        "group": "line",
        "experiments": ["line.s42", "line.s123", "line.s456"],
        "population": 1,
    }
    assert len(embedded_models(p)) == 4 + 4 * 4 + 3 * 4  # founders once
    assert (
        figure_inputs(p, "semantics") == {"embeddings": [embeddings_file(p)]}
        and encoder_files(p) == []
    )
    named = sampled(semantics={"encoder": "{data}/roberta", "experiments": ["line"]})
    assert embedding.embedded(named) == ["line.s42", "line.s123", "line.s456"]
    assert semantics_settings(named)[
        "encoder"
    ] == "./roberta" and "r/semantics/encoder/model.safetensors" in staged_files(named)
    without = sampled(semantics=None)
    assert not {"semantics", "semantic_diversity"} & set(
        report.figures(without)
    ) and "degeneration" in report.figures(without)
    assert figure_inputs(without, "continuations")["vocabulary"] == [
        "r/corpora/world/vocabulary.parquet"
    ]


def test_measuring_something_else_beside_the_scores_evaluates_nobody_again():
    assert measuring.measures(sampled(), "line.s42/gen1", 0) == measuring.measures(
        sampled(semantics=None, quality=True), "line.s42/gen1", 0
    )


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_the_preflight_precedes_each_training_and_repeats_none(device, tmp_path, monkeypatch):
    """By Snakemake's DAG: one job without params, whose order the founders take as `ancient`."""
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load(TOY.read_text()) | {"device": device}
    config = resolve(raw)
    with loaded(Plan(config, f"results/{config['run']}"), deep=True) as workflow:
        dag = build_dag(workflow)
        (job,) = (job for job in dag.jobs if job.rule.name == "preflight")
        assert ("preflight" in workflow._localrules) == (device == "cpu") and not job.params
        readers = {reader.rule.name: files for reader, files in dag.depending[job].items()}
        assert readers.pop("train_founder") == {"results/toy/staged/complete"}
        assert set(readers) <= {"all"}
        founder = next(job for job in dag.jobs if job.rule.name == "train_founder")
        assert founder.input.staged.is_ancient
        # no other rule waits for it, and the inputs are those that runs before it have noted
        assert [str(path) for path in job.input] == staged_files(TOY_PLAN)


def test_the_evaluation_of_a_pretrained_model_waits_for_the_preflight(tmp_path, monkeypatch):
    """By Snakemake's DAG. A trained model has waited already, and its inputs stay as they were."""
    monkeypatch.chdir(tmp_path)
    config = resolve(yaml.safe_load((ROOT / "config/test/ecosystem.yaml").read_text()))
    results = f"results/{config['run']}"
    with loaded(Plan(config, results), deep=True) as workflow:
        evaluations = [j for j in build_dag(workflow).jobs if j.rule.name == "evaluate_member"]
    waits = {job.output.scores.removeprefix(f"{results}/"): job.input.staged for job in evaluations}
    base = {name: staged for name, staged in waits.items() if name.startswith("base/")}
    assert base and all(one == f"{results}/staged/complete" for one in base.values())
    assert all(one.is_ancient for one in base.values())
    assert len(waits) > len(base) and not any(waits[name] for name in waits if name not in base)
