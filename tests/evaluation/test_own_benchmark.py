"""A user's own benchmark, a folder in lm-eval's format: scored as lm-eval scores it, or refused."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from pollination.core import artifacts
from pollination.evaluation.answers import evaluate_tasks
from pollination.evaluation.requests import write_requests
from pollination.evaluation.tasks import load_tasks, stage_task
from pollination.plan.benchmark_folder import benchmark_files
from tests.conftest import ROOT

EVALUATE = {"batch_size": 4}
BASE = """\
dataset_path: json
dataset_kwargs: {data_files: {test: questions.json, train: examples.json}}
output_type: multiple_choice
test_split: test
fewshot_split: train
process_docs: !function utils.process_docs
doc_to_text: "Question: {{question}} Answer:"
doc_to_choice: !function utils.choices
doc_to_target: right
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
HARD = "include: base.yaml\ntask: harbours\nnum_fewshot: 2\ndescription: 'Of harbours . '\n"
UTILS = """\
def process_docs(dataset):
    return dataset.map(lambda doc: {"right": doc["options"].index(doc["solution"])})

def choices(doc):
    return [option + " ." for option in doc["options"]]
"""
PLACES = ("Oslo", "Rome", "a quiet bay", "Paris")


def questions(n: int, first: int = 0) -> list[dict]:
    return [
        {
            "question": f"where is harbour {i} ?",
            "options": [PLACES[(i + j) % 4] for j in range(2 + i % 3)],
            "solution": PLACES[(i + i % 2) % 4],
        }
        for i in range(first, first + n)
    ]


@pytest.fixture
def folder(tmp_path):
    """Two YAML files, one including the other, Python code, and two JSON files of questions."""
    place = tmp_path / "bench"
    place.mkdir()
    (place / "base.yaml").write_text(BASE)
    (place / "harbours.yaml").write_text(HARD)
    (place / "utils.py").write_text(UTILS)
    (place / "questions.json").write_text(json.dumps(questions(9)))
    (place / "examples.json").write_text(json.dumps(questions(5, 20)))
    return place


@pytest.fixture(scope="module")
def tiny():
    """A random GPT-2 with a word tokenizer for the questions."""
    words = " ".join([*PLACES, "Question: Answer: Of harbours . ? where is harbour"]).split()
    words = ["<eos>", *dict.fromkeys([*words, *map(str, range(30))])]
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<eos>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    size = {"vocab_size": len(words), "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0)).eval()
    return model, PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def own(folder, **extra) -> dict:
    return {"kind": "lm_eval", "template": "harbours", "include_path": str(folder)} | extra


def staged(spec: dict, place) -> dict:
    stage_task(spec, place, 1234)
    return json.loads((place / "task.json").read_text())


def refused(spec: dict, place) -> str:
    with pytest.raises(ValueError) as caught:
        stage_task(spec, place, 1234)
    assert "\n" not in str(caught.value) and not (place / "task.json").exists()
    return str(caught.value)


def edit(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_scores_equal_plain_lm_eval_with_the_same_folder(folder, tiny, tmp_path, monkeypatch):
    """lm-eval's own loading of the folder, HFLM and evaluate: same choices, same likelihoods."""
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    model, tokenizer = tiny
    with monkeypatch.context() as inside:
        inside.chdir(folder)  # lm-eval takes data_files relative to where it is started
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        loaded = manager.load(["harbours"])
    loaded["tasks"]["harbours"].set_fewshot_seed(1234)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, add_bos_token=False)
    theirs = evaluator.evaluate(lm=lm, task_dict=loaded, bootstrap_iters=0)

    entry = staged(own(folder), tmp_path / "task")
    shutil.rmtree(folder)  # an evaluation needs the staged task alone
    scores, answers = evaluate_tasks(
        model, tokenizer, {"harbours": tmp_path / "task"}, EVALUATE, 1234
    )
    assert (entry["questions"], entry["shots"]) == (9, 2)
    assert scores["harbours"]["accuracy"] == theirs["results"]["harbours"]["acc,none"]
    assert scores["harbours"]["accuracy_norm"] == theirs["results"]["harbours"]["acc_norm,none"]
    assert 0 < scores["harbours"]["accuracy"] < 1
    for row, sample in zip(answers.itertuples(), theirs["samples"]["harbours"], strict=True):
        expected = [response[0] for response in sample["filtered_resps"]]
        np.testing.assert_allclose(row.loglikelihoods, expected, rtol=1e-5)
        assert row.correct == bool(sample["acc"])


def test_requests_and_written_answers_of_an_own_benchmark(folder, tiny, tmp_path):
    model, tokenizer = tiny
    spec = own(folder, method="generate", answer_tokens=4, questions=6, num_fewshot=1)
    entry = staged(spec, tmp_path / "task")
    assert (entry["questions"], entry["questions_available"], entry["shots"]) == (6, 9, 1)
    scores, answers = evaluate_tasks(model, tokenizer, {"t": tmp_path / "task"}, EVALUATE, 1234)
    write_requests(tmp_path / "task", tokenizer, 1234, tmp_path / "t.parquet")
    requests = {"t": tmp_path / "t.parquet"}
    again = evaluate_tasks(
        model, tokenizer, {"t": tmp_path / "task"}, EVALUATE, 1234, requests=requests
    )
    assert again[0] == scores and scores["t"]["method"] == "generate"
    pd.testing.assert_frame_equal(answers, again[1], check_exact=True)


def test_the_files_that_matter_are_inputs_and_no_others(folder, tmp_path):
    (folder / "notes.txt").write_text("nothing")
    (folder / "another.yaml").write_text("task: another\noutput_type: generate_until\n")
    names = {
        os.path.relpath(path, folder) for path in benchmark_files(own(folder) | {"data": None})
    }
    assert names == {
        "base.yaml",
        "harbours.yaml",
        "utils.py",
        "questions.json",
        "examples.json",
    }
    before = staged(own(folder), tmp_path / "before")
    edit(folder / "utils.py", '" ."', '" !"')
    after = staged(own(folder), tmp_path / "after")
    assert before["splits"] == after["splits"] and before != after  # task.json holds the code
    task = load_tasks({"t": tmp_path / "before"}, 1234)["tasks"]["t"]
    assert task.doc_to_choice(task.eval_docs[0])[0].endswith(" .")


def test_staging_an_own_benchmark_is_bit_identical(folder, tmp_path):
    edit(folder / "utils.py", "def choices", "import random\n\n\ndef choices")
    edit(folder / "utils.py", '{"right":', '{"noise": random.random(), "right":')
    for name in ("a", "b"):
        staged(own(folder), tmp_path / name)
    for name in ("task.json", "splits/test.parquet", "questions.parquet"):
        assert artifacts.digest(tmp_path / "a" / name) == artifacts.digest(tmp_path / "b" / name)


def test_the_configs_data_takes_the_place_of_the_templates(folder, tmp_path):
    for split in ("test", "train"):
        pd.DataFrame(questions(4, 40)).to_parquet(tmp_path / f"{split}.parquet")
    data = {split: str(tmp_path / f"{split}.parquet") for split in ("test", "train")}
    for name in ("questions.json", "examples.json"):
        (folder / name).unlink()
    entry = staged(own(folder, data=data), tmp_path / "task")
    assert (entry["questions"], entry["data"]) == (4, data)


def test_a_template_may_include_one_of_lm_evals_files(folder, tmp_path):
    rows = [
        {
            "question": f"where is {i} ?",
            "choices": {"text": ["Oslo", "Rome"], "label": ["A", "B"]},
            "answerKey": "AB"[i % 2],
        }
        for i in range(4)
    ]
    (folder / "arc.json").write_text("\n".join(map(json.dumps, rows)))
    (folder / "arc.yaml").write_text(
        "include: arc/arc_easy.yaml\ntask: my_arc\ndataset_path: json\ndataset_name: null\n"
        "dataset_kwargs: {data_files: {test: arc.json}}\ntraining_split: null\n"
        "validation_split: null\n"
    )
    entry = staged(own(folder, template="my_arc"), tmp_path / "task")
    assert entry["questions"] == 4 and list(entry["files"]) == ["arc.yaml"]
    task = load_tasks({"t": tmp_path / "task"}, 1234)["tasks"]["t"]
    assert task.doc_to_text(task.eval_docs[0]) == "Question: where is 0 ?\nAnswer:"


def test_a_group_is_scored_by_its_tasks(folder, tiny, tmp_path):
    (folder / "easy.yaml").write_text("include: base.yaml\ntask: easy\ntag: both\n")
    edit(folder / "harbours.yaml", "num_fewshot", "tag: both\nnum_fewshot")
    (folder / "group.yaml").write_text(
        "group: places\ntask: [easy, {task: harbours, description: 'Here . '}]\nnum_fewshot: 1\n"
        "aggregate_metric_list: {metric: acc, weight_by_size: true}\n"
    )
    entry = staged(own(folder, template="places"), tmp_path / "task")
    assert [leaf["name"] for leaf in entry["tasks"]] == ["easy", "harbours"]
    assert [leaf["rows"]["test"] for leaf in entry["tasks"]] == [[0, 9], [9, 18]]
    tasks = load_tasks({"p": tmp_path / "task"}, 1234)["tasks"]
    assert {task.config.num_fewshot for task in tasks.values()} == {1}
    assert tasks["p/harbours"].config.description == "Here . "
    scores, _ = evaluate_tasks(*tiny, {"p": tmp_path / "task"}, EVALUATE, 1234)
    assert scores["p"]["questions"] == 18
    tagged = staged(own(folder, template="both", num_fewshot=0), tmp_path / "tagged")
    assert [leaf["name"] for leaf in tagged["tasks"]] == ["easy", "harbours"]
    differing = staged(own(folder, template="both"), tmp_path / "differing")
    assert [leaf["config"]["num_fewshot"] for leaf in differing["tasks"]] == [0, 2]
    edit(folder / "group.yaml", "weight_by_size: true", "aggregation: median")
    assert "aggregate_metric_list: aggregation 'median' of 'acc' is not supported" in refused(
        own(folder, template="places"), tmp_path / "other"
    )


CHANGES = {  # file, old, new, what the message names
    "another output": (
        "base.yaml",
        "multiple_choice",
        "generate_until",
        "metric_list: metric 'acc' is not supported for output_type generate_until; allowed: exact",
    ),
    "another metric": (
        "base.yaml",
        "metric: acc_norm,",
        "metric: rouge,",
        "metric 'rouge' is not supported for output_type multiple_choice; allowed: acc, ",
    ),
    "another aggregation": (
        "base.yaml",
        "metric: acc, aggregation: mean",
        "metric: acc, aggregation: harmonic",
        "aggregation 'harmonic' of 'acc' is not supported; allowed: mean, ",
    ),
    "a metric twice": ("base.yaml", "metric: acc,", "metric: acc_norm,", "is listed twice"),
    "a metric that is downloaded": (
        "base.yaml",
        "metric: acc,",
        "metric: acc, hf_evaluate: true,",
        "hf_evaluate of 'acc' is not supported, because it downloads code",
    ),
    "a type that lm-eval does not know": (
        "base.yaml",
        "multiple_choice",
        "chat",
        "output_type 'chat' is not supported; allowed: multiple_choice, loglikelihood, ",
    ),
    "own scores": (
        "base.yaml",
        "metric_list:",
        "process_results: !function utils.choices\nmetric_list:",
        "bench/harbours.yaml: TypeError: choices() takes 1 positional argument but 2 were given",
    ),
    "no function's file": (
        "base.yaml",
        "utils.choices",
        "helpers.choices",
        "base.yaml: !function helpers.choices: there is no helpers.py beside it",
    ),
    "code from elsewhere": (
        "base.yaml",
        "utils.choices",
        "../utils.choices",
        "base.yaml: !function '../utils.choices' is not allowed; write FILE.FUNCTION",
    ),
    "no function": (
        "base.yaml",
        "utils.choices",
        "utils.options",
        "bench/harbours.yaml: AttributeError: Module 'BENCH/utils.py' has no function 'options'",
    ),
    "code that cannot be loaded": (
        "utils.py",
        "def choices(doc):",
        "def choices(doc:",
        "bench/harbours.yaml: SyntaxError: ",
    ),
    "code that fails early": (
        "utils.py",
        'doc["solution"])',
        'doc["result"])',
        "bench/harbours.yaml: template 'harbours' cannot process data.test (KeyError: 'result')",
    ),
    "code that fails late": (
        "utils.py",
        "    return [option",
        "    assert 'harbour 7' not in doc['question'], 'not\\nthis'\n    return [option",
        "bench/harbours.yaml: AssertionError: not this",
    ),
    "prompts that fail": (
        "base.yaml",
        "{{question}}",
        "{{query}}",
        (
            "bench/harbours.yaml: task 'harbours': its data does not fit the template 'harbours' "
            "(UndefinedError: 'query' is undefined)"
        ),
    ),
    "no data": (
        "base.yaml",
        "questions.json",
        "answers.json",
        "harbours.yaml: data_files: 'BENCH/answers.json': there is no such file; correct the path",
    ),
    "damaged data": (
        "questions.json",
        '"options"',
        "options",
        "bench/harbours.yaml: data_files: BENCH/questions.json: not readable as json (",
    ),
    "a split that is not there": (
        "base.yaml",
        "test_split: test",
        "test_split: dev",
        "harbours' is evaluated on split 'dev', but there are files only for: test, train",
    ),
    "no YAML": ("base.yaml", "test_split: test", "test_split: [", "base.yaml: not readable as YA"),
    "an include from elsewhere": (
        "harbours.yaml",
        "include: base.yaml",
        "include: ../base.yaml",
        "include '../base.yaml' is neither a file of 'BENCH' nor one of lm-eval's tasks",
    ),
    "a loop": (
        "base.yaml",
        "dataset_path",
        "include: harbours.yaml\ndataset_path",
        "included twice",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_cannot_be_scored_is_refused_in_one_line(folder, tmp_path, change):
    (tmp_path / "base.yaml").write_text(BASE)
    file, old, new, message = CHANGES[change]
    edit(folder / file, old, new)
    assert message.replace("BENCH", str(folder)) in refused(own(folder), tmp_path / "task")


def test_a_fault_of_truthfulqa_is_not_repeated(folder, tmp_path):
    """Several right answers are fine for log-likelihoods, and refused for written answers."""
    edit(folder / "utils.py", '["options"].index(doc["solution"])', '["options"] and [0, 1]')
    assert staged(own(folder, num_fewshot=0), tmp_path / "task")["questions"] == 9
    message = refused(own(folder, num_fewshot=0, method="generate"), tmp_path / "other")
    assert "several right answers, which method generate does not score" in message


def test_the_example_of_the_documentation_works(tmp_path, monkeypatch):
    section = (ROOT / "config/README.md").read_text().split("### Your own benchmark")[1]
    files = re.findall(r"(?m)^`(quiz/\S+)`:\n\n```\w+\n(.*?)```", section, re.DOTALL)
    entry = re.search(r"under `tasks`:\n\n```yaml\n(.*?)```", section, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    for name, text in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    staged(yaml.safe_load(entry)["quiz"], tmp_path / "task")
    task = load_tasks({"t": tmp_path / "task"}, 1234)["tasks"]["t"]
    assert [task.doc_to_target(doc) for doc in task.eval_docs] == [0, 1]


def test_planning_reads_a_folder_without_lm_eval_and_runs_no_code(folder):
    (folder / "utils.py").write_text("raise SystemExit('it ran')\n")
    code = (
        "import sys; from pollination.plan.benchmark_folder import benchmark_files;"
        f"print(len(benchmark_files({own(folder)!r})), 'lm_eval' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert process.stdout.split() == ["5", "False"], process.stderr
