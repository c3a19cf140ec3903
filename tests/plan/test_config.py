"""Configs: defaults, merging, replicates, and one clear line for every mistake."""

import copy
import re
from pathlib import Path

import pytest
import yaml

from pollination.core.seeds import derive_seed
from pollination.core.settings import lean
from pollination.plan.config import reference
from pollination.plan.config.paths import data_files
from pollination.plan.config.resolve import ConfigError, check_files, resolve
from pollination.plan.config.schema import merge, schema
from pollination.plan.measuring import measures
from pollination.plan.plan import Plan
from tests.conftest import ROOT, study_a


@pytest.fixture
def demo() -> dict:
    return study_a()


def mistake(raw: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(raw, "my.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("my.yaml: ")
    return lines[0]


def test_every_shipped_config_is_valid():
    for path in sorted((ROOT / "config").rglob("*.yaml")):
        config = resolve(yaml.safe_load(path.read_text()), str(path))
        assert config["experiments"] or config["theory"] or config["fingerprint"], path


def test_defaults_are_merged_under_each_experiment_and_replicates_are_named(demo):
    config = resolve(demo)
    line = config["experiments"]["line.s123"]
    assert (line["seed"], line["population"], line["generate"]["top_p"]) == (123, 1, 0.9)
    assert line["generate"]["tokens"] == demo["defaults"]["generate"]["tokens"]
    chosen = {"task": "knowledge", "k": 2, "rule": "truncation"}
    assert config["experiments"]["population"]["select"] == chosen
    roles = {"population": ["population"], "line": ["line.s42", "line.s123", "line.s456"]}
    texts = {"text": "world/test", "distribution_text": "world/test"}
    empty = {"controls": {}, "ecosystems": {}, "comparisons": {}, "paper": {}}
    assert config["figures"] == roles | texts | empty


def test_a_name_that_snakemake_takes_for_a_cycle_is_refused(demo):
    demo["experiments"]["x" + 20 * "ab"] = demo["experiments"].pop("population")
    demo["figures"] = {}
    assert "ends in a text that repeats 20 times or more" in mistake(demo)
    demo["experiments"]["x" + 19 * "ab"] = demo["experiments"].pop("x" + 20 * "ab")
    resolve(demo)


def test_the_config_that_a_run_has_saved_is_no_config_file(demo):
    saved = lean(resolve(demo), schema())
    assert "the resolved config that a run has saved, and no config file" in mistake(saved)


def test_single_lines_of_all_founders_are_the_line_whatever_comes_first(demo):
    alone = {"population": 4, "weights": "own", "text": "own", "mutate": {"scale": 0}}
    given = {"lines": alone} | {"population": demo["experiments"]["population"]}
    given["once"] = given["population"] | {"select": {"task": "knowledge", "rule": "once"}}
    demo["experiments"] = given
    demo["figures"] = {"controls": {"chosen once": "once"}}
    figures = resolve(demo)["figures"]
    assert (figures["population"], figures["line"]) == (["population"], ["lines"])
    assert figures["controls"] == {"chosen once": ["once"]}
    demo["experiments"]["lines"] = alone | {"text": "pool"}  # members read each other's text
    figures = resolve(demo)["figures"]
    assert (figures["population"], figures["line"]) == (["lines"], [])
    demo["figures"] = {"controls": ["onec"]}
    with pytest.raises(
        ConfigError, match="figures.controls: 'onec' is not in experiments .did you"
    ):
        resolve(demo)


def test_further_runs_have_founders_and_seeds_of_their_own(demo):
    single = resolve(demo)
    demo["experiments"]["population"]["replicates"] = [7, 8]
    demo["evaluate"]["perplexity"][0]["founders"] = ["human"]
    config = resolve(demo)
    runs = {name: one for name, one in config["experiments"].items() if "population" in name}
    assert runs["population"] == single["experiments"]["population"]
    assert {name: (one["seed"], one["founders"]) for name, one in runs.items()} == {
        "population": (42, "human"),
        "population.s7": (7, "human.s7"),
        "population.s8": (8, "human.s8"),
    }
    assert config["founders"]["human.s8"] == config["founders"]["human"]
    assert list(config["founders"]) == ["human", "human.s7", "human.s8"]
    assert config["figures"]["population"] == list(runs)
    # what is measured on the founders of NAME is measured on those of its further runs
    assert config["evaluate"]["perplexity"][0]["founders"] == list(config["founders"])
    plan = Plan(config, "r")
    assert plan.pool_sizes == dict.fromkeys(config["founders"], 4)
    places = [f"founders/{pool}" for pool in config["founders"]]
    seeds = {derive_seed("founder", place.split("/")[1], 0) for place in places}
    assert len(seeds) == 3 and len(measures(plan, places[2], 0)["perplexity"]) == len(
        measures(plan, places[0], 0)["perplexity"]
    )


@pytest.mark.parametrize(
    "change, said",
    [
        ({"replicates": [42]}, "[42] contains 42, the seed of population itself"),
        ({"seeds": [1], "replicates": [2]}, "[2] excludes seeds: [1]"),
    ],
)
def test_further_runs_need_seeds_of_their_own(demo, change, said):
    demo["experiments"]["population"] |= change
    assert f"experiments.population.replicates: {said}" in mistake(demo)


def test_a_mistake_that_replicates_share_is_named_once(demo):
    demo["experiments"]["population"] |= {"replicates": [7, 8], "population": 5}
    assert "experiments.population.population: 5 must equal k*k" in mistake(demo)


def test_another_order_of_keys_is_no_other_setting(demo):
    def reverse(value):
        return (
            {key: reverse(value[key]) for key in reversed(value)}
            if isinstance(value, dict)
            else value
        )

    for section in ("corpora", "models", "founders", "tasks", "evaluate"):
        one, other = resolve(demo)[section], resolve(reverse(demo))[section]
        assert {name: str(entry) for name, entry in one.items()} == {
            name: str(entry) for name, entry in other.items()
        }
    assert str(resolve(demo)["experiments"]["line.s42"]) == str(
        resolve(reverse(demo))["experiments"]["line.s42"]
    )


def test_merge_leaves_its_inputs_alone():
    base, change = {"a": {"b": 1, "c": [1, 2]}}, {"a": {"c": [3]}}
    assert merge(base, change) == {"a": {"b": 1, "c": [3]}}
    assert base == {"a": {"b": 1, "c": [1, 2]}}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (
            "defaults.generat",
            {},
            ["defaults.generat", "unknown key", "did you mean 'generate'", "allowed: "],
        ),
        (
            "experiments.population.select.task",
            "knowlege",
            ["'knowlege'", "did you mean 'knowledge'"],
        ),
        (
            "experiments.population.select.rule",
            "truncaton",
            ["select.rule: 'truncaton'", "did you mean 'truncation'", "path/to/file.py:function"],
        ),
        (
            "experiments.line.select",
            {"rule": "own.py:f"},
            ["'own.py:f' has no effect without selection"],
        ),
        (
            "evaluate.measures",
            {"length": "own.py"},
            ["evaluate.measures.length: 'own.py'", "allowed: path/to/file.py:function"],
        ),
        ("experiments.population.population", 5, ["population: 5", "k*k = 4", "a square"]),
        ("experiments.population.select.k", 3, ["population: 4", "k = 3"]),
        ("experiments.population.founders", "humans", ["'humans'", "did you mean 'human'"]),
        ("experiments.line.text", "parent", ["'parent' needs selection"]),
        ("experiments.population.text", "own", ["'own' with selection", "only parents write"]),
        ("experiments.population.weights", "own", ["'own' with selection cannot be mutated"]),
        ("experiments.tasks", {}, []),
        ("device", "gpu", ["device", "'gpu'", "allowed: auto, cpu, cuda"]),
        ("founders.human.train.learning_rate", "1e-3", ["'1e-3'", "1.0e-3"]),
        (
            "founders.human.train.gpus",
            4096,
            ["founders.human.train.gpus: 4096 exceeds founders.human.train.batch_size", "allowed"],
        ),
        (
            "founders.human.train.parallel",
            "fsdp",
            ["founders.human.train.parallel: 'fsdp' has no effect with gpus: 1", "2 or more"],
        ),
        (
            "experiments.line.train",
            {"gpus": 2, "parallel": "fsdp", "compile": True},
            ["experiments.line.train.compile: true is not possible", "allowed: auto, false, null"],
        ),
        ("founders.human.train.tokens", None, ["founders.human.train.tokens", "missing"]),
        ("corpora.world.kind", "file", ["'file'", "did you mean 'files'"]),
        ("corpora.more", {"kind": "files"}, ["corpora.more.path", "missing"]),
        ("corpora.world.held_out", {"test": 0.99}, ["corpora.world.held_out", "add up"]),
        ("models.tiny.pretrained", "gpt2", ["either 'architecture'"]),
        ("models.tiny.pretrained", "", ["models.tiny.pretrained"]),
        ("tasks.knowledge.corpus", "word", ["'word'", "did you mean 'world'"]),
        ("evaluate.perplexity", [{"corpus": "wrld"}], ["'wrld'", "did you mean 'world'"]),
        (
            "evaluate.semantics",
            {"encoder": "tfidf", "experiments": ["populatio"]},
            ["evaluate.semantics.experiments", "did you mean 'population'"],
        ),
        ("evaluate.semantics", {}, ["evaluate.semantics", "'encoder' is missing"]),
        ("evaluate.samples.num_prompts", 1, ["evaluate.samples.num_prompts", "2 or more"]),
        ("evaluate.samples.texts", {"a b": "x"}, ["'a b' is not a valid name"]),
        ("defaults.generate.decoding", "beam", ["one completion per prompt"]),
        ("figures", {"line": "lin"}, ["figures.line", "did you mean 'line'"]),
        ("founders.human.model", "tinny", ["'tinny'", "did you mean 'tiny'"]),
        (
            "founders.human.validation",
            ["world"] * 3 + ["wrold"],
            ["founders.human.validation", "did you mean 'world'"],
        ),
        (
            "founders.human.corpus",
            ["world"],
            ["population: 4", "4 exceeds the 1 entries of founders.human.corpus"],
        ),
        (
            "evaluate.perplexity",
            [{"corpus": "world", "split": "segment"}, {"corpus": "own"}],
            ["evaluate.perplexity.0.split: segment", "set corpus: own"],
        ),
        (
            "evaluate.perplexity",
            [{"corpus": "own", "split": "segment", "sequences": "documents"}, {"corpus": "own"}],
            ["evaluate.perplexity.0.sequences", "set sequences: blocks"],
        ),
        (
            "evaluate.perplexity",
            [{"corpus": "own", "split": "segment", "generations": [-1, 0]}, {"corpus": "own"}],
            ["evaluate.perplexity.0.generations: -1", "remove -1"],
        ),
        (
            "evaluate",
            {
                "perplexity": [{"corpus": "own", "split": "segment"}],
                "samples": {"max_new_tokens": 8},
                "quality": True,
            },
            ["evaluate.quality", "held-out text of 'world'", "split: test"],
        ),
        ("defaults.train.dropout", 1.0, ["defaults.train.dropout: 1.0", "allowed: < 1"]),
        ("defaults.train.determinism", "on", ["'on'", "allowed: auto, strict, off, false"]),
        ("founders.human.train.dropout", "on", ["'on'", "own, or a number from 0 to below 1"]),
        ("founders.human.num_segments", 2, ["population: 4", "num_segments is 2"]),
        ("founders.human.segments", [0, "x"], ["founders.human.segments"]),
        ("experiments.line.weights", "base", ["'base' needs a pretrained model"]),
        ("experiments.line.text_of", "population", ["'population' needs text: pool"]),
        (
            "experiments.line.human",
            {"accumulate": "all", "fraction": 0.1},
            ["human.accumulate", "fraction: 0"],
        ),
        (
            "corpora.both",
            {"kind": "union", "corpora": ["world", "wrold"]},
            ["'wrold'", "did you mean 'world'"],
        ),
        (
            "corpora.more",
            {"kind": "files", "splits": {"train": "a"}},
            ["corpora.more.splits", "train, validation and test"],
        ),
        (
            "figures",
            {"ecosystems": {"tiny": ["line", "poplation"]}},
            ["figures.ecosystems.tiny", "did you mean 'population'"],
        ),
        (
            "figures",
            {"comparisons": {"both": {"one": "lin"}}},
            ["figures.comparisons.both", "did you mean 'line'"],
        ),
        (
            "figures",
            {"comparisons": {"both": ["line", "population:4"]}},
            ["population:4", "allowed: members 0 to 3"],
        ),
        (
            "figures",
            {"ecosystems": {"both": ["line", "population:1"]}},
            ["population:1 names one member", "write population"],
        ),
        ("figures", {"text": "world/tst"}, ["figures.text", "did you mean 'world/test'"]),
        (
            "evaluate.disagreement",
            {"corpus": "wrld"},
            ["evaluate.disagreement.corpus", "did you mean 'world'"],
        ),
        ("run", "a/b", ["run", "'a/b'", "not a valid name"]),
        ("defaults.generate.top_p", 1.5, ["top_p", "1.5", "<= 1"]),
        # the quotient of logits would be infinite, as if the weights were broken
        ("defaults.generate.temperature", 1e-40, ["temperature: 1e-40", ">= 1e-30"]),
        ("evaluate.samples.temperature", 1e-40, ["temperature: 1e-40", ">= 1e-30"]),
        ("defaults.generate.repetition_penalty", 1e40, ["1e+40", "<= 1e+30"]),
    ],
)
def test_a_mistake_is_one_line_with_key_value_allowed_and_fix(demo, path, value, words):
    raw = copy.deepcopy(demo)
    if path == "experiments.tasks":  # a name that is a folder of every run
        raw["experiments"]["tasks"] = raw["experiments"].pop("line")
        assert "choose another name" in mistake(raw)
        return
    node = raw
    *parents, last = path.split(".")
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = value
    if path == "defaults.generate.decoding":
        del raw["experiments"]["line"]
    line = mistake(raw)
    for word in words:
        assert word in line, line


@pytest.mark.parametrize(
    ("change", "shards"),
    [
        ({}, 1),
        ({"tokens": 50_000_000, "budget_counts": "text"}, 1),
        ({"tokens": 50_000_001, "budget_counts": "text"}, 2),
        ({"tokens": 1_000_000_000, "budget_counts": "text"}, 20),
        ({"tokens": 1_000_000_000, "max_prompt_tokens": 16}, 30),
        ({"tokens": 1_000_000_000}, 40),  # prompts: half of 64 tokens
    ],
)
def test_auto_keeps_a_shard_in_memory_whatever_counts_towards_the_budget(demo, change, shards):
    for model in demo["models"].values():
        model["context_tokens"] = 64
    demo["defaults"]["generate"] |= {"shards": "auto", "max_new_tokens": 32} | change
    experiments = resolve(demo)["experiments"].values()
    assert {experiment["generate"]["shards"] for experiment in experiments} == {shards}


def test_auto_shards_need_a_budget(demo):
    demo["experiments"]["line"]["generate"] = {"shards": "auto", "tokens": None}
    said = "line.generate.shards: 'auto' needs a token budget, but generate.tokens is null"
    assert said in mistake(demo)
    demo["experiments"]["line"]["generate"] = {"shards": "many"}
    assert "shards: 'many' is not a valid name; allowed: auto, or a whole" in mistake(demo)


def test_founders_cannot_read_what_their_own_descendants_write(demo):
    demo["corpora"]["wrote"] = {"kind": "synthetic", "experiment": "population", "generation": 1}
    demo["founders"]["human"]["corpus"] = "wrote"
    assert "starts from founders 'human', which read this corpus" in mistake(demo)


def test_a_missing_section_is_named():
    assert "the key 'corpora' is missing" in mistake(
        {
            "run": "x",
            "models": {"a": {}},
            "founders": {"b": {"model": "a", "corpus": "c"}},
            "experiments": {"e": {}},
        }
    )


def test_missing_data_is_named_before_anything_runs(demo, tmp_path):
    demo["corpora"]["text"] = {"kind": "files", "path": str(tmp_path / "nothing.parquet")}
    demo["tasks"]["quiz"] = {
        "kind": "lm_eval",
        "template": "mmlu",
        "data": {"test": str(tmp_path / "quiz.parquet")},
    }
    with pytest.raises(ConfigError) as caught:
        check_files(resolve(demo), "my.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "corpora.text.path" in lines[0] and "tasks.quiz.data.test" in lines[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["there is no file", "correct the path"]),
        (
            "def chose(members, k, rng): pass\n",
            ["does not define a function 'choose'", "did you mean 'chose'"],
        ),
        ("x = (\n", ["own.py, line 1: ", "correct the file"]),
        ("raise SystemExit\nfrom mine import one as choose\n", []),
        ("from mine import *\n", []),
    ],
)
def test_a_function_that_is_not_there_is_named_before_anything_runs(demo, tmp_path, text, words):
    path = tmp_path / "own.py"
    if text is not None:
        path.write_text(text)
    demo["experiments"]["population"]["select"]["rule"] = f"{path}:choose"
    demo["experiments"]["population"]["seeds"] = [1, 2]
    demo["evaluate"]["measures"] = {"length": f"{path}:choose"}
    config = resolve(demo)
    if not words:
        return check_files(config)
    with pytest.raises(ConfigError) as caught:
        check_files(config, "my.yaml")
    (line,) = str(caught.value).splitlines()
    assert line.startswith("my.yaml: evaluate.measures.length: ") and str(path) in line
    assert all(word in line for word in words), line


def test_data_files_takes_a_file_a_folder_a_glob_and_a_list(tmp_path):
    for name in ("a.parquet", "b.txt", "c.jsonl", "d.md"):
        (tmp_path / name).write_text("x")

    def names(paths):
        return [Path(path).name for path in paths]

    assert names(data_files(str(tmp_path))) == ["a.parquet", "b.txt", "c.jsonl"]
    assert names(data_files(str(tmp_path / "*.txt"))) == ["b.txt"]
    assert names(data_files([str(tmp_path / "a.parquet"), str(tmp_path / "*.t*")])) == [
        "a.parquet",
        "b.txt",
    ]


def test_the_documentation_has_every_key_as_the_schema_has_it():
    text = reference.PAGE.read_text()
    assert reference.page(text) == text, "run `make docs`"
    sections = [schema(), *schema()["$defs"].values(), schema()["properties"]["figures"]]
    keys = {key for section in sections for key in section.get("properties", {})}
    assert keys == set(re.findall(r"(?m)^- `([a-z_]+)` \(", text))
    assert max(map(len, text.splitlines())) <= 100


def test_the_smallest_config_of_the_documentation_is_valid():
    example = re.search(r"(?s)## A minimal config.*?```yaml\n(.*?)```", reference.PAGE.read_text())
    assert set(resolve(yaml.safe_load(example[1]))["experiments"]) == {"population", "line"}


def test_a_wrapped_description_begins_no_line_with_a_list_marker():
    node = {"properties": {"key": {"type": "integer", "description": "n - 1 + 2 " * 40}}}
    lines = reference.bullets(node).splitlines()
    assert len(lines) > 3
    assert not any(re.match(r" *([-+*] |\d+[.)] )", line) for line in lines[1:])


@pytest.mark.parametrize(
    "path, new",
    [
        ("tasks.knowledge.shots", "num_fewshot"),
        ("defaults.train.clip_norm", "max_grad_norm"),
        ("founders.human.train.batch_sequences", "batch_size"),
        ("defaults.train.micro_batch_sequences", "micro_batch_size"),
        ("defaults.train.final_learning_rate", "min_lr_ratio"),
        ("defaults.train.keep", "checkpoint"),
        ("founders.human.of", "num_segments"),
        ("defaults.generate.beams", "num_beams"),
        ("defaults.generate.min_tokens", "min_completion_tokens"),
        ("defaults.generate.prompts", "prompt_corpus"),
        ("evaluate.samples.prompts", "num_prompts"),
        ("models.tiny.tokenizer.vocabulary", "vocab_size"),
        ("twin", "overlay"),
    ],
)
def test_a_key_of_an_earlier_version_is_refused_with_its_name_today(demo, path, new):
    raw = copy.deepcopy(demo)
    node = raw
    *parents, last = path.split(".")
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = 1
    assert mistake(raw) == f"my.yaml: {path}: this key is now called {new!r}; rename it"


@pytest.mark.parametrize(
    "task, key",
    [
        ({"kind": "microworld", "corpus": "world", "benchmark": "social"}, "include_path"),
        ({"kind": "microworld", "corpus": "world", "benchmark": "social"}, "template"),
        ({"kind": "lm_eval", "template": "mmlu"}, "benchmark"),
    ],
)
def test_a_key_that_a_kind_of_task_does_not_read_is_refused(demo, task, key):
    raw = copy.deepcopy(demo)
    raw["tasks"]["extra"] = task | {key: "social"}
    assert mistake(raw).startswith(f"my.yaml: tasks.extra.{key}: a task of kind {task['kind']}")


@pytest.mark.parametrize("key", ["generate", "evaluate.samples"])
def test_a_completion_that_fills_the_context_is_refused(demo, key):
    context = demo["models"]["tiny"]["context_tokens"]
    node = demo["defaults"] if key == "generate" else demo["evaluate"]
    node.setdefault(key.split(".")[-1], {})["max_new_tokens"] = context
    with pytest.raises(ConfigError) as caught:
        resolve(demo)
    said = str(caught.value)
    assert f"{key}.max_new_tokens: {context} leaves no room for a prompt" in said
    assert f"allowed: 1 to {context - 1}" in said


def test_an_experiment_that_writes_nothing_needs_no_room(demo):
    demo["defaults"]["generate"]["max_new_tokens"] = demo["models"]["tiny"]["context_tokens"]
    demo["experiments"] = {
        "again": {"population": 1, "weights": "own", "text": "human"},
        "founders_only": {"population": 1, "weights": "own", "text": "own", "generations": 1},
    }
    resolve(demo)


@pytest.mark.parametrize("setting", ["max_position_embeddings", "n_positions"])
def test_positions_that_the_settings_choose_are_left_to_the_job(demo, setting):
    model = demo["models"]["tiny"]
    model["settings"][setting] = "128"
    demo["defaults"]["generate"]["max_new_tokens"] = model["context_tokens"]
    resolve(demo)


def test_a_folder_of_a_model_that_is_not_there_is_no_hub_name(demo):
    tiny = demo["models"]["tiny"]
    demo["models"]["tiny"] = {"pretrained": "data/models/stories15M", "context_tokens": 32}
    with pytest.raises(ConfigError, match="Run `pollination data stories15M`") as said:
        check_files(resolve(demo | {"data": "data/"}))
    assert "models.tiny.pretrained: 'data/models/stories15M': there is no such folder" in str(
        said.value
    )
    demo["models"]["tiny"] = tiny | {"tokenizer": {"kind": "pretrained", "source": "./absent"}}
    with pytest.raises(ConfigError, match=r"models.tiny.tokenizer.source: './absent'"):
        check_files(resolve(demo))
    demo["models"]["tiny"] = {"pretrained": "openai-community/gpt2", "context_tokens": 32}
    check_files(resolve(demo))
