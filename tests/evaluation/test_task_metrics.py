"""Every number of lm-eval's templates is that of lm-eval's own run with HFLM."""

import json
import logging
import re
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pollination.core import artifacts
from pollination.core.questions import read_answers
from pollination.evaluation import answers as answering
from pollination.evaluation.answers import evaluate_tasks
from pollination.evaluation.requests import write_requests
from pollination.evaluation.tasks import stage_task
from pollination.evaluation.template_source import task_root
from pollination.evaluation.templates import SPLIT_KEYS

EVALUATE, SEED, CONTEXT, N = {"batch_size": 4}, 1234, 512, 6
RESAMPLES = 60  # of lm-eval's bootstrap, both here and there
THINGS = ("harbour", "bridge", "tower", "garden", "market", "museum", "river")
COLOURS = ("red", "blue", "green", "white", "black")


def thing(i: int) -> str:
    return THINGS[i % len(THINGS)]


def colour(i: int) -> str:
    return COLOURS[(i * i + i) % len(COLOURS)]


def four(i: int) -> list[str]:
    """Four different answers of different lengths."""
    return [f"{colour(i)} {'very ' * j}old {COLOURS[(i + j) % 5]}" for j in range(4)]


def spans(i: int, *texts: str) -> dict:
    return {"number": "", "date": {"day": "", "month": "", "year": ""}, "spans": list(texts)}


# template -> (YAML file, split, a question's columns, extra keys of the task)
TEMPLATES = {
    "arc_easy": (
        "arc/arc_easy.yaml",
        "test",
        lambda i: {
            "question": f"which is the {thing(i)}",
            "choices": {"text": four(i), "label": list("ABCD")},
            "answerKey": "ABCD"[i % 4],
        },
    ),
    "hellaswag": (
        "hellaswag/hellaswag.yaml",
        "validation",
        lambda i: {
            "ctx_a": f"the {thing(i)}",
            "ctx_b": "is",
            "activity_label": thing(i + 1),
            "endings": four(i),
            "label": str(i % 4),
        },
    ),
    "piqa": (
        "piqa/piqa.yaml",
        "validation",
        lambda i: {"goal": thing(i), "sol1": four(i)[0], "sol2": four(i)[2], "label": i % 2},
    ),
    "winogrande": (
        "winogrande/default.yaml",
        "validation",
        lambda i: {
            "sentence": f"the {thing(i)} and _ are {colour(i)}",
            "option1": thing(i + 1),
            "option2": thing(i + 2),
            "answer": "12"[i % 2],
        },
    ),
    "openbookqa": (
        "openbookqa/openbookqa.yaml",
        "test",
        lambda i: {
            "question_stem": f"the {thing(i)} is",
            "choices": {"text": four(i), "label": list("ABCD")},
            "answerKey": "ABCD"[(i + 1) % 4],
        },
    ),
    "sciq": (
        "sciq/sciq.yaml",
        "test",
        lambda i: {
            "support": f"{thing(i)} is {colour(i)}",
            "question": thing(i),
            **{f"distractor{j + 1}": four(i)[j] for j in range(3)},
            "correct_answer": four(i)[3],
        },
    ),
    "commonsense_qa": (
        "commonsense_qa/default.yaml",
        "validation",
        lambda i: {
            "question": thing(i),
            "choices": {"text": [*four(i), "none"]},
            "answerKey": "ABCDE"[i % 5],
        },
    ),
    "boolq": (
        "super_glue/boolq/default.yaml",
        "validation",
        lambda i: {"passage": f"a {thing(i)}", "question": colour(i), "label": i % 2},
    ),
    "cola": (
        "glue/cola/default.yaml",
        "validation",
        lambda i: {"sentence": f"{thing(i)} is {colour(i)}", "label": int(i in (1, 2, 5))},
    ),
    "mrpc": (
        "glue/mrpc/default.yaml",
        "validation",
        lambda i: {"sentence1": thing(i), "sentence2": thing(i + i % 2), "label": 1 - i % 2},
    ),
    "cb": (
        "super_glue/cb/default.yaml",
        "validation",
        lambda i: {"premise": thing(i), "hypothesis": colour(i), "label": i % 3},
    ),
    "copa": (
        "super_glue/copa/default.yaml",
        "validation",
        lambda i: {
            "premise": f"the {thing(i)} is {colour(i)}.",
            "question": ("cause", "effect")[i % 2],
            "choice1": four(i)[0],
            "choice2": four(i)[1],
            "label": i % 2,
        },
    ),
    "multirc": (
        "super_glue/multirc/default.yaml",
        "validation",
        lambda i: {
            "paragraph": f"the {thing(i)} is {colour(i)}",
            "question": thing(i),
            "answer": colour(i),
            "label": i % 2,
        },
    ),
    "truthfulqa_mc1": (
        "truthfulqa/truthfulqa_mc1.yaml",
        "validation",
        lambda i: {
            "question": thing(i),
            "mc1_targets": {"choices": four(i), "labels": [1, 0, 0, 0]},
        },
    ),
    "truthfulqa_mc2": (
        "truthfulqa/truthfulqa_mc2.yaml",
        "validation",
        lambda i: {
            "question": thing(i),
            "mc1_targets": {"choices": four(i), "labels": [1, 0, 0, 0]},
            "mc2_targets": {"choices": four(i), "labels": [1, 1, 0, 0]},
        },
    ),
    "webqs": (
        "webqs/webqs.yaml",
        "test",
        lambda i: {"question": thing(i), "answers": [colour(i), f"old {thing(i)}"]},
    ),
    "crows_pairs_english": (
        "crows_pairs/crows_pairs_english.yaml",
        "test",
        lambda i: {"sent_more": f"{thing(i)} is {colour(i)}", "sent_less": f"{thing(i + 1)} is"},
    ),
    "lambada_openai": (
        "lambada/lambada_openai.yaml",
        "test",
        lambda i: {"text": f"the {thing(i)} is very {colour(i)}"},
    ),
    "asdiv": (
        "asdiv/default.yaml",
        "validation",
        lambda i: {"body": thing(i), "question": "how many", "answer": f"{i} (old)"},
    ),
    "wikitext": (
        "wikitext/wikitext.yaml",
        "test",
        lambda i: {"page": " ".join(f"the {thing(i * j)} is {colour(j)} ." for j in range(1 + i))},
    ),
    "gsm8k": (
        "gsm8k/gsm8k.yaml",
        "test",
        lambda i: {"question": f"how many {thing(i)}", "answer": f"two #### {i}"},
        {"num_fewshot": 2},
    ),
    "triviaqa": (
        "triviaqa/default.yaml",
        "validation",
        lambda i: {"question": thing(i), "answer": {"aliases": [colour(i), thing(i + 3)]}},
    ),
    "nq_open": (
        "nq_open/nq_open.yaml",
        "validation",
        lambda i: {"question": thing(i), "answer": [colour(i)]},
    ),
    "drop": (
        "drop/default.yaml",
        "validation",
        lambda i: {
            "query_id": str(i),
            "passage": f"the {thing(i)}",
            "question": colour(i),
            "answer": spans(i, f"{thing(i)} old"),
            "validated_answers": {
                "number": [""],
                "date": [{"day": "", "month": "", "year": ""}],
                "spans": [[f"very {colour(i)}"]],
            },
        },
    ),
    "anagrams1": (
        "unscramble/anagrams1.yaml",
        "validation",
        lambda i: {"context": thing(i)[::-1], "completion": thing(i)},
    ),
    "truthfulqa_gen": (
        "truthfulqa/truthfulqa_gen.yaml",
        "validation",
        lambda i: {
            "question": thing(i),
            "correct_answers": [f"the {thing(i)} is old", f"very {colour(i)}"],
            "incorrect_answers": [f"{thing(i + 1)} is {colour(i + 1)}"],
        },
    ),
    "wmt16-en-de": (
        "translation/wmt16_en-de.yaml",
        "test",
        lambda i: {"translation": {"en": f"the {thing(i)}", "de": f"very old {thing(i)}"}},
    ),
    "hendrycks_math_algebra": (
        "hendrycks_math/hendrycks_math_algebra.yaml",
        "test",
        lambda i: {"problem": thing(i), "solution": f"so $\\boxed{{{i}}}$"},
    ),
}


@pytest.fixture(scope="module")
def tiny():
    """A random Llama whose next token depends strongly on all tokens before."""
    words = "<eos> <unk> the is old very and none two how many which Question : Answer Q A . , # $"
    words = [*words.split(), *THINGS, *COLOURS, *map(str, range(10)), "True", "False", "Neither"]
    words += ["yes", "no", *"BCDE"]
    ids = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    torch.manual_seed(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words),
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=CONTEXT,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(30)
    return model, PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>"
    )


def peer(model, tokenizer) -> HFLM:
    return HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=EVALUATE["batch_size"],
        max_length=CONTEXT,
        add_bos_token=False,
        prefix_token_id=tokenizer.eos_token_id,
        softmax_dtype=torch.float32,
    )


def by_lm_eval(tiny, loaded: dict) -> dict:
    """lm-eval's own results of its task dict."""
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(SEED)
        if task.config.num_fewshot is None:
            task.set_config("num_fewshot", 0)
    torch.manual_seed(SEED)
    return evaluator.evaluate(
        lm=peer(*tiny), task_dict=loaded, bootstrap_iters=RESAMPLES, log_samples=True
    )


@pytest.fixture
def lonely(monkeypatch, tmp_path):
    """lm-eval in this process, silent, with a cache of its own."""
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    monkeypatch.setattr(answering, "BOOTSTRAP", RESAMPLES)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    logging.getLogger("lm_eval").setLevel(logging.CRITICAL)


def assert_same(metrics: dict, theirs: dict, higher: dict) -> None:
    """Each value, standard error and direction is lm-eval's."""
    found = {key for key in theirs if "," in key and "_stderr," not in key}
    assert set(metrics) == found and found
    for key, entry in metrics.items():
        metric, _, name = key.partition(",")
        stderr = theirs[f"{metric}_stderr,{name}"]
        assert entry["value"] == pytest.approx(theirs[key], rel=1e-5, abs=1e-9), key
        expected = None if stderr == "N/A" else pytest.approx(stderr, rel=1e-4, abs=1e-9)
        assert entry["stderr"] == expected, key
        assert entry["higher_is_better"] == higher.get(metric), key


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_number_is_lm_evals(name, tiny, tmp_path, lonely):
    path, split, columns, *extra = TEMPLATES[name]
    config = load_yaml(task_root() / path) | dict(*extra)
    shots = config.get("num_fewshot") or 0
    needed = [split, config.get("fewshot_split")] if shots else [split]
    data = {}
    for part in dict.fromkeys(needed):
        data[part] = str(tmp_path / f"{part}.parquet")
        pd.DataFrame([columns(i) for i in range(N)]).to_parquet(data[part])
    gone = {key: None for key in SPLIT_KEYS if config.get(key) not in data}
    config |= gone | {"dataset_path": "parquet", "dataset_name": None}
    config["dataset_kwargs"] = {"data_files": data}
    results = by_lm_eval(tiny, TaskManager(include_defaults=False).load([config]))
    theirs, samples = results["results"][name], results["samples"][name]

    spec = {"kind": "lm_eval", "template": name, "data": data, "num_fewshot": shots}
    stage_task(spec, tmp_path / "task", SEED)
    folders = {name: tmp_path / "task"}
    scores, answers = evaluate_tasks(*tiny, folders, EVALUATE, SEED)
    mine = scores[name]
    assert_same(mine["metrics"], theirs, results["higher_is_better"][name])
    assert mine["questions"] == N == len(answers)
    json.dumps(scores, allow_nan=False)
    metric, _, filtered = mine["metric"].partition(",")
    mine_filter = filtered or "none"
    main = mine["metrics"][f"{metric},{mine_filter}"]
    assert mine["score"] == pytest.approx(main["value"], rel=1e-9, abs=1e-12)
    values = [sample[metric] for sample in samples if sample["filter"] == mine_filter]
    if "accuracy" in mine:
        assert "unfit" not in mine and main["higher_is_better"] is True
        np.testing.assert_allclose(answers["score"], np.array(values, float), rtol=1e-5)
        assert mine["accuracy"] == mine["score"] == pytest.approx(np.mean(values), rel=1e-5)
        assert mine["stderr"] == pytest.approx(main["stderr"], rel=1e-6, abs=1e-12)
    else:
        assert mine["unfit"] and answers["score"].isna().all() and answers["correct"].isna().all()
        assert mine["stderr"] == main["stderr"]

    write_requests(tmp_path / "task", tiny[1], SEED, tmp_path / "t.parquet")
    tables = {name: tmp_path / "t.parquet"}
    again, same = evaluate_tasks(*tiny, folders, EVALUATE, SEED, requests=tables)
    assert again == scores
    pd.testing.assert_frame_equal(answers, same, check_exact=True)


def test_the_templates_are_of_all_types_and_differ():
    assert len(TEMPLATES) >= 25
    kinds = {load_yaml(task_root() / path)["output_type"] for path, *_ in TEMPLATES.values()}
    assert len(kinds) == 4


def test_a_share_of_probability_is_not_a_right_answer(tiny, tmp_path):
    """TruthfulQA's mc2: no answer is right or wrong, and half of it is not all of it."""
    _, split, columns = TEMPLATES["truthfulqa_mc2"]
    path = tmp_path / "v.parquet"
    pd.DataFrame([columns(i) for i in range(N)]).to_parquet(path)
    spec = {"kind": "lm_eval", "template": "truthfulqa_mc2", "data": {split: str(path)}}
    stage_task(spec, tmp_path / "task", SEED)
    scores, answers = evaluate_tasks(*tiny, {"t": tmp_path / "task"}, EVALUATE, SEED)
    shares = []
    for likelihoods in answers["loglikelihoods"]:
        odds = np.exp(likelihoods)
        shares.append(odds[:2].sum() / odds.sum())
    assert scores["t"]["accuracy"] == pytest.approx(np.mean(shares)) and min(shares) > 0
    assert max(shares) < 1
    assert answers["correct"].isna().all() and answers["chance"].isna().all()
    artifacts.write_table(tmp_path / "answers.parquet", answers)
    np.testing.assert_allclose(read_answers(tmp_path / "answers.parquet", {}, 0)["t"].score, shares)


OWN = {
    "task": "own",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "questions.json"}},
    "test_split": "test",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["."], "max_gen_toks": 8},
    "output_type": "generate_until",
}


def own(folder: Path, code: str = "", **keys) -> dict:
    """A user's own benchmark with these keys; `!f name` is a function of its Python file."""
    folder.mkdir(exist_ok=True)
    rows = [{"question": f"the {thing(i)} is", "answer": colour(i), "n": i} for i in range(N)]
    (folder / "questions.json").write_text("\n".join(map(json.dumps, rows)))
    (folder / "utils.py").write_text(code)
    text = yaml.safe_dump(OWN | keys, sort_keys=False)
    text = re.sub(r"'?!f (\w+)'?", r"!function utils.\1", text)
    (folder / "own.yaml").write_text(text)
    return {"kind": "lm_eval", "template": "own", "include_path": str(folder)}


SHARE = """\
def score(doc, results):
    return {"share": doc["n"] / 5 * SCALE, "other": 1.0}

def spread(items):
    return max(items) - min(items)

def close(references, predictions):
    return 0.25 + (references[0] in predictions[0]) / 2
"""


@pytest.mark.parametrize(
    ("keys", "metric", "accuracy"),
    [
        ({"process_results": "!f score", "metric_list": ["share", "other"]}, "share", 0.5),
        (
            {
                "metric_list": ["!f close"],
                "repeats": 3,
                "filter_list": [
                    {
                        "name": "vote",
                        "filter": [{"function": "majority_vote"}, {"function": "take_first"}],
                    },
                    {"name": "first", "filter": [{"function": "take_first"}]},
                ],
            },
            "close,vote",
            None,
        ),
    ],
)
def test_a_users_own_metric_equals_lm_evals(
    keys, metric, accuracy, tiny, tmp_path, lonely, monkeypatch
):
    listed = [
        {"metric": name, "aggregation": "mean", "higher_is_better": True}
        for name in keys["metric_list"]
    ]
    spec = own(tmp_path / "own", SHARE.replace("SCALE", "1"), **keys | {"metric_list": listed})
    stage_task(spec, tmp_path / "task", SEED)
    scores, answers = evaluate_tasks(*tiny, {"own": tmp_path / "task"}, EVALUATE, SEED)
    with monkeypatch.context() as inside:
        inside.chdir(tmp_path / "own")
        loaded = TaskManager(include_path=".", include_defaults=False).load(["own"])
    results = by_lm_eval(tiny, loaded)
    assert_same(
        scores["own"]["metrics"], results["results"]["own"], results["higher_is_better"]["own"]
    )
    assert scores["own"]["metric"] == metric
    if accuracy is not None:
        assert scores["own"]["accuracy"] == pytest.approx(accuracy)
    assert set(answers["score"]) <= {0.25, 0.75} or accuracy is not None


@pytest.mark.parametrize(
    ("code", "entry", "reason"),
    [
        (SHARE.replace("SCALE", "2"), {}, "question 3 has the value 1.2, outside 0 to 1"),
        (SHARE.replace("SCALE", "float('nan') ** 0 * -1"), {}, "question 1 has the value -0.2, "),
        (
            SHARE.replace('doc["n"] / 5 * SCALE', '(0.1, doc["n"])'),
            {"aggregation": "weighted_perplexity"},
            "it is a statistic of all questions",
        ),
        (SHARE.replace("SCALE", "1"), {"aggregation": "!f spread"}, "it is a statistic of all"),
        (SHARE.replace("SCALE", "1"), {"higher_is_better": False}, "lower values are better"),
        (SHARE.replace("SCALE", "1"), {"higher_is_better": None}, "does not say whether higher"),
    ],
)
def test_what_cannot_rank_is_reported_and_named(code, entry, reason, tiny, tmp_path):
    listed = {"metric": "share", "aggregation": "mean", "higher_is_better": True} | entry
    listed = {key: value for key, value in listed.items() if value is not None}
    spec = own(tmp_path / "own", code, process_results="!f score", metric_list=[listed])
    stage_task(spec, tmp_path / "task", SEED)
    scores, answers = evaluate_tasks(*tiny, {"own": tmp_path / "task"}, EVALUATE, SEED)
    assert "accuracy" not in scores["own"] and reason in scores["own"]["unfit"]
    assert np.isfinite(scores["own"]["score"]) and answers["score"].isna().all()


MEANS = """\
def f1(references, predictions):
    return 0.5

def odd(items):
    return items['x']
"""


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "metric_list: 'f1' has no aggregation; add aggregation: mean"),
        ({"aggregation": "!f odd"}, "own.yaml: TypeError: list indices must be integers"),
    ],
)
def test_an_aggregation_that_fails_is_refused_before_any_training(entry, said, tmp_path):
    """lm-eval's own F1 of all questions cannot read the values of a function named f1."""
    spec = own(tmp_path / "own", MEANS, metric_list=[{"metric": "!f f1"} | entry])
    with pytest.raises(ValueError, match=re.escape(said)):
        stage_task(spec, tmp_path / "task", SEED)


def test_a_value_that_is_not_finite_is_refused(tiny, tmp_path):
    code = SHARE.replace("SCALE", "float('nan')")
    listed = [{"metric": "share", "aggregation": "mean", "higher_is_better": True}]
    spec = own(tmp_path / "own", code, process_results="!f score", metric_list=listed)
    stage_task(spec, tmp_path / "task", SEED)
    with pytest.raises(ValueError, match="'own': metric 'share,none' is not a finite number"):
        evaluate_tasks(*tiny, {"own": tmp_path / "task"}, EVALUATE, SEED)


def test_the_config_names_the_metric_and_its_filter(tiny, tmp_path):
    _, split, columns, _ = TEMPLATES["gsm8k"]
    path = tmp_path / "t.parquet"
    pd.DataFrame([columns(i) for i in range(N)]).to_parquet(path)
    spec = {"kind": "lm_eval", "template": "gsm8k", "data": {split: str(path)}, "num_fewshot": 0}
    for asked in ("exact_match,flexible-extract", "exact_match"):
        stage_task(spec | {"metric": asked}, tmp_path / "task", SEED)
        scores, _ = evaluate_tasks(*tiny, {"t": tmp_path / "task"}, EVALUATE, SEED)
        expected = asked if "," in asked else "exact_match,strict-match"
        assert scores["t"]["metric"] == expected
        assert scores["t"]["accuracy"] == scores["t"]["metrics"][expected]["value"]
    for asked, said in {
        "acc": "metric 'acc' is not one of the task; allowed: exact_match",
        "exact_match,loose": "'loose' of metric 'exact_match' is not one of the task; allowed: st",
    }.items():
        with pytest.raises(ValueError, match=re.escape(said)):
            stage_task(spec | {"metric": asked}, tmp_path / "other", SEED)


def test_tasks_of_a_group_may_differ_in_all_ways(tiny, tmp_path, lonely, monkeypatch):
    """Another output type, split, columns and metric each; every leaf as lm-eval scores it."""
    folder = tmp_path / "own"
    own(folder)
    (folder / "more.json").write_text(
        "\n".join(
            json.dumps({"q": f"a {thing(i)} is", "c": ["old", "very old"], "a": i % 2})
            for i in range(4)
        )
    )
    (folder / "choice.yaml").write_text(
        "task: choice\ndataset_path: json\ndataset_kwargs: {data_files: {dev: more.json}}\n"
        "output_type: multiple_choice\nvalidation_split: dev\ndoc_to_text: q\n"
        "doc_to_choice: c\ndoc_to_target: a\nmetric_list: [{metric: acc}]\n"
    )
    (folder / "both.yaml").write_text("group: both\ntask: [choice, own]\n")
    spec = {"kind": "lm_eval", "template": "both", "include_path": str(folder)}
    stage_task(spec, tmp_path / "task", SEED)
    write_requests(tmp_path / "task", tiny[1], SEED, tmp_path / "t.parquet")
    scores, answers = evaluate_tasks(
        *tiny, {"b": tmp_path / "task"}, EVALUATE, SEED, requests={"b": tmp_path / "t.parquet"}
    )
    with monkeypatch.context() as inside:
        inside.chdir(folder)
        loaded = TaskManager(include_path=".", include_defaults=False).load(["choice", "own"])
    results = by_lm_eval(tiny, loaded)
    for leaf in ("choice", "own"):
        mine = {
            key.removeprefix(f"{leaf}/"): entry
            for key, entry in scores["b"]["metrics"].items()
            if key.startswith(f"{leaf}/")
        }
        assert_same(mine, results["results"][leaf], results["higher_is_better"][leaf])
    assert answers["doc_id"].tolist() == list(range(4 + N))
    assert scores["b"]["metric"] == "acc, exact_match"
    assert scores["b"]["accuracy"] == pytest.approx(answers["score"].mean())


@pytest.mark.parametrize("weighted", [True, False])
def test_a_group_is_aggregated_as_lm_eval_does(weighted, tiny, tmp_path, lonely, monkeypatch):
    folder = tmp_path / "own"
    own(folder)
    for name, count in (("few", 3), ("many", 8)):
        (folder / f"{name}.json").write_text(
            "\n".join(
                json.dumps({"q": f"a {thing(i)} is", "c": four(i), "a": i % 4})
                for i in range(count)
            )
        )
        (folder / f"{name}.yaml").write_text(
            f"task: {name}\ndataset_path: json\n"
            f"dataset_kwargs: {{data_files: {{test: {name}.json}}}}\n"
            "output_type: multiple_choice\ntest_split: test\ndoc_to_text: q\n"
            "doc_to_choice: c\ndoc_to_target: a\nmetric_list: [{metric: acc}]\n"
        )
    (folder / "both.yaml").write_text(
        "group: both\ntask: [few, many]\n"
        f"aggregate_metric_list: [{{metric: acc, weight_by_size: {str(weighted).lower()}}}]\n"
    )
    spec = {"kind": "lm_eval", "template": "both", "include_path": str(folder)}
    stage_task(spec, tmp_path / "task", SEED)
    scores, answers = evaluate_tasks(*tiny, {"b": tmp_path / "task"}, EVALUATE, SEED)
    with monkeypatch.context() as inside:
        inside.chdir(folder)
        loaded = TaskManager(include_path=".", include_defaults=False).load(["both"])
    theirs = by_lm_eval(tiny, loaded)["results"]["both"]
    mine = scores["b"]["metrics"]["acc,none"]
    assert mine["value"] == pytest.approx(theirs["acc,none"])
    assert mine["stderr"] == pytest.approx(theirs["acc_stderr,none"])
    assert scores["b"]["score"] == pytest.approx(theirs["acc,none"])
    assert ("accuracy" in scores["b"]) == weighted == bool(answers["score"].notna().all())


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("humaneval", "unsafe_code is not supported"),
        ("squadv2", "class is not supported"),
        ("ifeval", "needs a package that is not installed, or a network (ModuleNotFoundError"),
        ("ruler_cwe", "custom_dataset is not supported"),
    ],
)
def test_what_lm_eval_cannot_score_here_is_refused_by_name(template, said, tmp_path):
    pd.DataFrame({"x": [1, 2, 3]}).to_parquet(tmp_path / "t.parquet")
    data = {split: str(tmp_path / "t.parquet") for split in ("test", "validation", "train")}
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        stage_task({"kind": "lm_eval", "template": template, "data": data}, tmp_path / "task", SEED)
    assert template in str(caught.value) and "\n" not in str(caught.value)


def test_an_answer_that_fills_the_context_is_refused(tiny, tmp_path):
    spec = own(tmp_path / "own", generation_kwargs={"until": ["."], "max_gen_toks": CONTEXT})
    stage_task(spec, tmp_path / "task", SEED)
    with pytest.raises(ValueError, match="up to 512 tokens leaves no room for a question"):
        evaluate_tasks(*tiny, {"own": tmp_path / "task"}, EVALUATE, SEED)
