"""Staged tasks are scored as lm-eval scores them, and as a model of known preferences must answer
them.
"""

import json
import logging

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from pollination.core import artifacts
from pollination.evaluation.answers import evaluate_tasks, match_answer
from pollination.evaluation.requests import write_requests
from pollination.evaluation.tasks import _draw, load_tasks, stage_task
from pollination.evaluation.template_data import fetch
from pollination.evaluation.template_source import task_root
from pollination.evaluation.templates import SPLIT_KEYS
from tests.conftest import shared

WORDS = ["<eos>", ".", "Anna", "Bob", "lives", "in", "Paris", "Rome", "Oslo", "old"]
LOGITS = np.array([0.0, 2.0, 0.5, 0.5, 0.1, 0.2, 1.0, 3.0, -1.0, 0.3])
LOGPROBS = dict(zip(WORDS, LOGITS - np.log(np.exp(LOGITS).sum()), strict=True))
EVALUATE = {"batch_size": 4}


@pytest.fixture(scope="module")
def word_tokenizer():
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<eos>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


@pytest.fixture
def unigram_model():
    """A GPT-2 whose every next-token distribution is softmax(LOGITS), whatever came before."""
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(WORDS),
            n_embd=8,
            n_layer=1,
            n_head=2,
            n_positions=24,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(torch.eye(8)[0])
        model.transformer.wte.weight[:, 0] = torch.from_numpy(LOGITS)
    return model.eval()


@pytest.fixture
def corpus(tmp_path):
    """A corpus folder with one benchmark: the unigram model answers Rome to all, right in 3 of 4
    test questions.
    """
    rows = [("Anna lives in", ["Paris .", "Rome ."], 1, "dev")] * 3
    rows += [
        ("Bob lives in", ["Paris .", "Rome ."], 1, "test"),
        ("Anna lives in", ["Rome .", "Oslo ."], 0, "test"),
    ]
    rows += [
        ("old Anna lives in", ["Oslo .", "Rome .", "Paris ."], 1, "test"),
        ("old Bob lives in", ["Rome .", "Oslo old ."], 1, "test"),
    ]
    folder = tmp_path / "corpus"
    artifacts.write_table(
        folder / "tasks" / "knowledge.parquet",
        pd.DataFrame(rows, columns=["question", "choices", "answer", "split"]),
    )
    return folder


def staged(spec, folder, corpus=None, seed=1234):
    stage_task(spec, folder, seed, corpus)
    return json.loads((folder / "task.json").read_text())


def microworld(**extra):
    return {"kind": "microworld", "corpus": "world", "benchmark": "knowledge"} | extra


# The microworld's tasks and a model whose answers are known


def test_known_model_gives_known_answers(tmp_path, corpus, unigram_model, word_tokenizer, capsys):
    staged(microworld(), tmp_path / "task", corpus)
    unigram_model.train()
    before = {name: tensor.clone() for name, tensor in unigram_model.state_dict().items()}
    scores, answers = evaluate_tasks(
        unigram_model, word_tokenizer, {"knowledge": tmp_path / "task"}, EVALUATE, 1234
    )
    assert scores["knowledge"] == {
        "accuracy": 0.75,
        "stderr": pytest.approx(np.sqrt(0.75 * 0.25 / 3)),
        "questions": 4,
        "questions_available": 4,
        "shots": 0,
        "method": "loglikelihood",
        "truncated": 0,
        "metric": "acc",
        "higher_is_better": True,
        "score": 0.75,
        "metrics": {
            "acc,none": {"value": 0.75, "stderr": pytest.approx(0.25), "higher_is_better": True}
        },
    }
    assert answers["score"].tolist() == answers["correct"].tolist()
    assert answers["chance"].tolist() == [1 / 2, 1 / 2, 1 / 3, 1 / 2]
    assert answers["doc_id"].tolist() == [0, 1, 2, 3]
    assert answers["choice"].tolist() == [1, 0, 1, 0] and answers["answer"].tolist() == [1, 0, 1, 1]
    assert answers["correct"].tolist() == [True, True, True, False]
    expected = [
        [LOGPROBS[word] + LOGPROBS["."] for word in ("Paris", "Rome")],
        [LOGPROBS[word] + LOGPROBS["."] for word in ("Rome", "Oslo")],
    ]
    np.testing.assert_allclose(answers["loglikelihoods"][0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(answers["loglikelihoods"][1], expected[1], rtol=1e-5)
    # nothing left behind: weights, mode, padding token, bars on the terminal
    assert unigram_model.training and word_tokenizer.pad_token is None
    assert all(
        torch.equal(before[name], tensor) for name, tensor in unigram_model.state_dict().items()
    )
    assert "%|" not in capsys.readouterr().err
    _, same = evaluate_tasks(
        unigram_model, word_tokenizer, {"knowledge": tmp_path / "task"}, EVALUATE, 1234
    )
    pd.testing.assert_frame_equal(answers, same, check_exact=True)


def test_shots_are_sentences_of_the_world(tmp_path, corpus):
    entry = staged(microworld(num_fewshot=2), tmp_path / "task", corpus)
    assert entry["shots"] == 2 and entry["tasks"][0]["rows"] == {"dev": [0, 3], "test": [0, 4]}
    task = load_tasks({"knowledge": tmp_path / "task"}, 1234)["tasks"]["knowledge"]
    task.build_all_requests(rank=0, world_size=1)
    assert task.instances[0].args == (
        "Anna lives in Rome . Anna lives in Rome . Bob lives in",
        " Paris .",
    )


def test_shots_get_their_full_stop_where_choices_have_none(tmp_path, corpus):
    frame = pd.read_parquet(corpus / "tasks" / "knowledge.parquet")
    frame["choices"] = [
        [choice.removesuffix(" .") for choice in choices] for choices in frame["choices"]
    ]
    artifacts.write_table(corpus / "tasks" / "knowledge.parquet", frame)
    staged(microworld(num_fewshot=1), tmp_path / "task", corpus)
    task = load_tasks({"knowledge": tmp_path / "task"}, 1234)["tasks"]["knowledge"]
    task.build_all_requests(rank=0, world_size=1)
    assert task.instances[0].args == ("Anna lives in Rome . Bob lives in", " Paris")


def test_prompts_beyond_the_context_are_counted(tmp_path, corpus, unigram_model, word_tokenizer):
    staged(microworld(num_fewshot=3), tmp_path / "task", corpus)
    unigram_model.config.n_positions = (
        19  # 3 examples of 5 tokens, then questions of 3 to 4 and choices of 2 to 3
    )
    scores, _ = evaluate_tasks(
        unigram_model, word_tokenizer, {"t": tmp_path / "task"}, EVALUATE, 1234
    )
    assert scores["t"]["truncated"] == 2 and scores["t"]["accuracy"] == 0.75
    unigram_model.config.n_positions = 2
    with pytest.raises(
        ValueError, match="choice of 3 tokens does not fit the model's context_tokens 2"
    ):
        evaluate_tasks(unigram_model, word_tokenizer, {"t": tmp_path / "task"}, EVALUATE, 1234)


def test_generated_answers(tmp_path, corpus, unigram_model, word_tokenizer):
    entry = staged(microworld(method="generate", answer_tokens=3), tmp_path / "task", corpus)
    assert entry["method"] == "generate"
    scores, answers = evaluate_tasks(
        unigram_model, word_tokenizer, {"t": tmp_path / "task"}, EVALUATE, 1234
    )
    assert set(answers["text"]) == {"Rome Rome Rome"}
    assert answers["choice"].tolist() == [1, 0, 1, 0] and set(answers["matched"]) == {"heuristic"}
    assert (
        scores["t"]["accuracy"] == 0.75
        and scores["t"]["unanswered"] == 0
        and scores["t"]["method"] == "generate"
    )


def test_a_damaged_model_is_refused(tmp_path, corpus, unigram_model, word_tokenizer):
    staged(microworld(), tmp_path / "task", corpus)
    unigram_model.transformer.ln_f.bias.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        evaluate_tasks(unigram_model, word_tokenizer, {"t": tmp_path / "task"}, EVALUATE, 1234)


def test_scores_do_not_depend_on_the_other_tasks(tmp_path, corpus, unigram_model, word_tokenizer):
    folders = {"a": tmp_path / "a", "b": tmp_path / "b"}
    staged(microworld(), folders["a"], corpus)
    staged(microworld(num_fewshot=2, questions=3), folders["b"], corpus)
    together = evaluate_tasks(unigram_model, word_tokenizer, folders, EVALUATE, 1234)
    alone = evaluate_tasks(unigram_model, word_tokenizer, {"b": folders["b"]}, EVALUATE, 1234)
    assert together[0]["b"] == alone[0]["b"] and list(together[0]) == ["a", "b"]
    both = together[1][together[1]["task"] == "b"].reset_index(drop=True)
    pd.testing.assert_frame_equal(both, alone[1], check_exact=True)


# Staging


def mmlu_files(folder):
    """A small MMLU: subjects of 40, 20 and 4 test questions, 5 examples each; 'mystery' is no
    subject of the group.
    """
    sizes = {"anatomy": 40, "virology": 20, "astronomy": 4, "mystery": 3}
    for split in ("dev", "test"):
        rows = [
            {
                "question": f"{subject} {split} {i}",
                "subject": subject,
                "choices": list("wxyz"),
                "answer": i % 4,
            }
            for subject, size in sizes.items()
            for i in range(5 if split == "dev" else size)
        ]
        artifacts.write_table(folder / f"{split}.parquet", pd.DataFrame(rows))
    return {split: str(folder / f"{split}.parquet") for split in ("dev", "test")}


def mmlu(folder, **extra):
    return {
        "kind": "lm_eval",
        "template": "mmlu",
        "data": mmlu_files(folder),
        "num_fewshot": 5,
    } | extra


def test_a_group_is_staged_by_subject(tmp_path):
    entry = staged(mmlu(tmp_path / "data", questions=16), tmp_path / "task")
    assert (entry["questions"], entry["questions_available"]) == (16, 64)
    assert {
        leaf["name"]: leaf["rows"]["test"][1] - leaf["rows"]["test"][0] for leaf in entry["tasks"]
    } == {
        "mmlu_anatomy": 10,
        "mmlu_astronomy": 1,
        "mmlu_virology": 5,
    }
    assert len(entry["subjects_without_data"]) == 54
    tasks = load_tasks({"mmlu": tmp_path / "task"}, 1234)["tasks"]
    assert sorted(tasks) == ["mmlu/mmlu_anatomy", "mmlu/mmlu_astronomy", "mmlu/mmlu_virology"]
    task = tasks["mmlu/mmlu_virology"]
    task.build_all_requests(rank=0, world_size=1)
    prompt = task.instances[0].args[0]
    assert prompt.startswith(
        "The following are multiple choice questions (with answers) about virology.\n\nvirology "
        "dev 0\nA. w"
    )
    assert (
        prompt.count("Answer:") == 6
        and "anatomy" not in prompt
        and prompt.split("Answer:")[-1] == ""
    )
    questions = pd.read_parquet(tmp_path / "task" / "questions.parquet")
    source = pd.read_parquet(tmp_path / "data" / "test.parquet")
    assert questions["doc_id"].tolist() == list(range(16))
    assert source["question"][questions["row"]].tolist() == questions["question"].tolist()


def test_a_subset_is_seeded_and_fair(tmp_path):
    files = mmlu_files(tmp_path / "data")
    rows = {}
    for seed in (1, 1, 2):
        staged(
            {
                "kind": "lm_eval",
                "template": "mmlu",
                "data": files,
                "num_fewshot": 0,
                "questions": 8,
            },
            tmp_path / "task",
            seed=seed,
        )
        rows.setdefault(seed, []).append(
            pd.read_parquet(tmp_path / "task" / "questions.parquet")["row"].tolist()
        )
    assert rows[1][0] == rows[1][1] != rows[2][0]
    drawn = np.zeros(64)
    for seed in range(3000):
        picked = _draw([40, 4, 20], 8, seed)
        assert sum(map(len, picked)) == 8 and len(picked[0]) == 5 and len(picked[2]) in (2, 3)
        drawn[
            np.concatenate([rows + first for rows, first in zip(picked, (0, 40, 44), strict=True)])
        ] += 1
    assert drawn.min() / 3000 > 0.09 and drawn.max() / 3000 < 0.16  # 8 / 64 = 0.125 each


def test_one_subject_of_the_group_takes_its_rows_of_the_common_file(tmp_path, caplog):
    entry = staged(
        mmlu(tmp_path / "data", template="mmlu_virology", questions=1000), tmp_path / "task"
    )
    assert (entry["questions"], entry["questions_available"]) == (20, 20)
    assert "questions 1000 exceeds the 20 questions of split 'test', so all are used" in caplog.text


def test_a_templates_own_processing_is_done_once(tmp_path):
    rows = [
        {
            "activity_label": "Cooking",
            "ctx_a": f"A man {i}",
            "ctx_b": "he",
            "endings": ["eats [x] it.", "runs."],
            "label": "1",
        }
        for i in range(4)
    ]
    artifacts.write_table(tmp_path / "validation.parquet", pd.DataFrame(rows))
    spec = {
        "kind": "lm_eval",
        "template": "hellaswag",
        "data": {"validation": str(tmp_path / "validation.parquet")},
        "questions": 2,
    }
    staged(spec, tmp_path / "task")
    task = load_tasks({"h": tmp_path / "task"}, 1234)["tasks"]["h"]
    row = pd.read_parquet(tmp_path / "task" / "questions.parquet")["row"][1]
    assert (
        task.config.process_docs is None
        and task.eval_docs[1]["query"] == f"Cooking: A man {row} He"
    )
    assert task.doc_to_choice(task.eval_docs[1]) == ["eats it.", "runs."]
    artifacts.write_table(tmp_path / "validation.parquet", pd.DataFrame(rows).drop(columns="ctx_b"))
    with pytest.raises(ValueError, match="cannot process data.validation .KeyError: 'ctx_b'"):
        staged(spec, tmp_path / "other")


def test_staging_is_bit_identical(tmp_path):
    spec = mmlu(tmp_path / "data", questions=10)
    for name in ("a", "b"):
        staged(spec, tmp_path / name)
    files = [
        path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()
    ]
    assert len(files) == 4  # the asked split, the examples, the questions, task.json
    for name in files:
        assert artifacts.digest(tmp_path / "a" / name) == artifacts.digest(tmp_path / "b" / name)


def test_answers_of_a_group_are_one_accuracy(tmp_path, unigram_model, word_tokenizer):
    staged(mmlu(tmp_path / "data", num_fewshot=0), tmp_path / "task")
    scores, answers = evaluate_tasks(
        unigram_model, word_tokenizer, {"mmlu": tmp_path / "task"}, EVALUATE, 1234
    )
    assert scores["mmlu"]["questions"] == 64 == len(answers) and answers["doc_id"].tolist() == list(
        range(64)
    )
    # letters are unknown words, all alike: the first is chosen, right in every fourth question
    assert scores["mmlu"]["accuracy"] == answers["correct"].mean() == 0.25


def test_hub_data_is_read_through_datasets(tmp_path):
    artifacts.write_table(
        tmp_path / "repository" / "test.parquet",
        pd.DataFrame({"question": ["a", "b"], "label": [0, 1]}),
    )
    table = fetch({"dataset_path": str(tmp_path / "repository")}, "test")
    assert table.column_names == ["question", "label", "__row__"] and len(table) == 2
    with pytest.raises(ValueError, match=r"cannot be downloaded .*data: \{train: file.parquet\}"):
        fetch({"dataset_path": str(tmp_path / "repository")}, "train")


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"data": {"dev": "dev.parquet", "test": "nowhere.parquet"}},
            "data.test: .*nowhere.parquet: the file does not exist",
        ),
        (
            {"data": {"dev": "dev.parquet", "test": "broken.parquet"}},
            "data.test: .*broken.parquet: not a readable parquet file",
        ),
        (
            {"data": {"dev": "dev.parquet", "test": "columns.parquet"}},
            "needs columns answer, choices, which data.test lacks; it has question, subject",
        ),
        (
            {"data": {"dev": "dev.parquet", "test": "subjects.parquet"}},
            "group's file needs column 'subject'; it has question",
        ),
        (
            {"data": {"dev": "dev.parquet", "test": "labels.parquet"}},
            "question 0 has no answer among its choices",
        ),
        ({"data": {"dev": "dev.parquet", "test": "empty.parquet"}}, "has none of the allowed"),
        ({"data": {"dev": "dev.parquet"}}, "on split 'test', but there are files only for: dev"),
        (
            {"data": {"test": "test.parquet"}},
            "takes its few-shot examples from split 'dev', but there are files only for: test",
        ),
        (
            {"num_fewshot": 6},
            "with num_fewshot 6 needs 6 examples in split 'dev' of 'mmlu_anatomy'; it has 5",
        ),
        (
            {"template": "gsm8k", "method": "generate"},
            "'gsm8k': method generate asks multiple-choice questions, but the task has output_type",
        ),
    ],
)
def test_wrong_input_is_named_and_leaves_nothing(tmp_path, change, message):
    spec = mmlu(tmp_path)
    test = pd.read_parquet(tmp_path / "test.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 cut short")
    for name, table in {
        "columns": test[["question", "subject"]],
        "subjects": test[["question"]],
        "labels": test.assign(answer=-1),
        "empty": test[:0],
    }.items():
        artifacts.write_table(tmp_path / f"{name}.parquet", table)
    spec |= (
        {"data": {split: str(tmp_path / name) for split, name in change.pop("data").items()}}
        if "data" in change
        else change
    )
    with pytest.raises(ValueError, match=message) as caught:
        stage_task(spec, tmp_path / "task", 1234)
    assert "\n" not in str(caught.value) and not (tmp_path / "task").exists()


def test_a_column_that_only_the_templates_functions_read_is_named(tmp_path):
    artifacts.write_table(
        tmp_path / "v.parquet",
        pd.DataFrame(
            {"sentence": ["Ann ran as _ hid ."] * 2, "option1": ["Ann"] * 2, "answer": ["1"] * 2}
        ),
    )
    spec = {
        "kind": "lm_eval",
        "template": "winogrande",
        "data": {"validation": str(tmp_path / "v.parquet")},
    }
    with pytest.raises(
        ValueError,
        match="'winogrande' .KeyError: 'option2'.; its columns are sentence, option1, answer",
    ):
        stage_task(spec, tmp_path / "task", 1234)


@pytest.mark.slow
def test_an_unknown_template_gets_its_nearest_names(tmp_path):
    with pytest.raises(
        ValueError,
        match="unknown task template 'winogrand'; nearest built-in names of lm-eval: .*winogrande",
    ):
        stage_task({"kind": "lm_eval", "template": "winogrand"}, tmp_path / "task", 1234)


def test_microworld_errors(tmp_path, corpus):
    with pytest.raises(ValueError, match="'algebra' is not in corpus 'world'; allowed: "):
        stage_task(microworld(benchmark="algebra"), tmp_path / "task", 1234, corpus)
    with pytest.raises(
        ValueError, match="num_fewshot 4 needs 4 examples in split 'dev' of 'knowledge'; it has 3"
    ):
        stage_task(microworld(num_fewshot=4), tmp_path / "task", 1234, corpus)
    artifacts.write_table(
        corpus / "tasks" / "social.parquet", pd.DataFrame({"question": ["a"], "split": ["test"]})
    )
    with pytest.raises(ValueError, match="needs columns choices, answer"):
        stage_task(microworld(benchmark="social"), tmp_path / "task", 1234, corpus)


# Answers in the model's own words


LETTERED = (list("ABCD"), ["the liver", "the heart", "a kidney", "3.5"])
PLAIN = (["go to the park", "stay at home", "call a friend"], None)


@pytest.mark.parametrize(
    "text, question, expected",
    [
        ("B", LETTERED, (1, "exact")),
        (" (c).\nQuestion: A", LETTERED, (2, "exact")),
        ("\n The Heart!", LETTERED, (1, "exact")),
        ("The answer is C", LETTERED, (2, "heuristic")),
        ("b) because", LETTERED, (1, "heuristic")),
        ("it is the liver", LETTERED, (0, "heuristic")),
        ("about 3.5 grams", LETTERED, (3, "heuristic")),
        ("about 3 grams", LETTERED, (-1, "none")),
        ("stay at home.", PLAIN, (1, "exact")),
        ("c", PLAIN, (2, "exact")),
        ("A friend came", PLAIN, (2, "heuristic")),
        ("they call a friend or stay at home", PLAIN, (2, "heuristic")),
        ("home, maybe", PLAIN, (1, "heuristic")),
        ("I do not know", PLAIN, (-1, "none")),
        ("", PLAIN, (-1, "none")),
        ("-2", (["2", "-2"], None), (1, "exact")),
        ("so -2 it is", (["2", "-2"], None), (1, "heuristic")),
    ],
)
def test_written_answers_are_matched(text, question, expected):
    assert match_answer(text, *question) == expected


# lm-eval's own results


@pytest.fixture(scope="module")
def stories():
    folder = shared("models/stories15M")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


BENCHMARKS = {
    "mmlu": (
        "mmlu/default/mmlu_anatomy.yaml",
        "mmlu_anatomy",
        {"dev": "mmlu/dev", "test": "mmlu/test"},
        5,
    ),
    "winogrande": (
        "winogrande/default.yaml",
        "winogrande",
        {"train": "winogrande/train", "validation": "winogrande/validation"},
        3,
    ),
    "mathqa": (
        "mathqa/mathqa.yaml",
        "mathqa",
        {"validation": "mathqa/validation", "test": "mathqa/test"},
        0,
    ),
    "social_iqa": ("siqa/siqa.yaml", "social_iqa", {"validation": "social_iqa/validation"}, 0),
}


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_scores_equal_plain_lm_eval_with_the_built_in_template(benchmark, stories, tmp_path):
    """The same slice of real data through lm-eval's own loading, HFLM and evaluate: same choices,
    same log-likelihoods.
    """
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    yaml, name, files, shots = BENCHMARKS[benchmark]
    data = {}
    for split, file in files.items():
        table = artifacts.read_table(shared(f"data/{file}.parquet")).to_pandas()
        table = table[table["subject"] == "anatomy"] if "subject" in table else table
        data[split] = str(tmp_path / f"{split}.parquet")
        artifacts.write_table(data[split], table[: 60 if split == "train" else 6])
    model, tokenizer = stories

    template = load_yaml(task_root() / yaml)
    absent = {key: None for key in SPLIT_KEYS if template.get(key) not in data}
    config = (
        template | absent | {"dataset_path": "parquet", "dataset_name": None, "num_fewshot": shots}
    )
    config["dataset_kwargs"] = {"data_files": data, "cache_dir": str(tmp_path / "cache")}
    loaded = TaskManager(include_defaults=False).load([config])
    loaded["tasks"][name].set_fewshot_seed(1234)
    theirs = evaluator.evaluate(
        lm=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4),
        task_dict=loaded,
        bootstrap_iters=0,
    )

    staged(
        {"kind": "lm_eval", "template": name, "data": data, "num_fewshot": shots}, tmp_path / "task"
    )
    scores, answers = evaluate_tasks(
        model, tokenizer, {benchmark: tmp_path / "task"}, EVALUATE, 1234
    )
    assert scores[benchmark]["accuracy"] == theirs["results"][name]["acc,none"]
    assert scores[benchmark].get("accuracy_norm") == theirs["results"][name].get("acc_norm,none")
    for row, sample in zip(answers.itertuples(), theirs["samples"][name], strict=True):
        np.testing.assert_allclose(
            row.loglikelihoods, [response[0] for response in sample["filtered_resps"]], rtol=1e-5
        )
        assert row.correct == bool(sample["acc"])
    assert scores[benchmark]["truncated"] == (6 if benchmark == "mmlu" else 0)


@pytest.mark.parametrize("method", ["loglikelihood", "generate"])
def test_requests_made_beforehand_give_the_same_bits(
    method, tmp_path, unigram_model, word_tokenizer, corpus, monkeypatch
):
    """With leaves, shots, several contexts a question, and none rebuilt."""
    from lm_eval.api.task import ConfigurableTask

    files = mmlu_files(tmp_path / "data")
    staged(
        {"kind": "lm_eval", "template": "mmlu", "data": files, "num_fewshot": 2, "method": method},
        tmp_path / "mmlu",
    )
    rows = pd.DataFrame(
        {
            "sentence": ["Anna saw Bob as _ lives in Rome"] * 3,
            "option1": ["Anna"] * 3,
            "option2": ["Bob"] * 3,
            "answer": ["1"] * 3,
        }
    )
    artifacts.write_table(tmp_path / "validation.parquet", rows)
    gap = {
        "kind": "lm_eval",
        "template": "winogrande",
        "data": {"validation": str(tmp_path / "validation.parquet")},
        "shots": 0,
    }
    staged(gap | {"method": method}, tmp_path / "winogrande")
    tasks = {name: tmp_path / name for name in ("mmlu", "winogrande")}
    unigram_model.config.n_positions = 19
    scores, answers = evaluate_tasks(unigram_model, word_tokenizer, tasks, EVALUATE, 1234)
    tables = {name: tmp_path / f"{name}.parquet" for name in tasks}
    for name, folder in tasks.items():
        write_requests(folder, word_tokenizer, 1234, tables[name])
        before = artifacts.digest(tables[name])
        write_requests(folder, word_tokenizer, 1234, tables[name])
        assert artifacts.digest(tables[name]) == before
    assert (
        pd.read_parquet(tables["mmlu"])["context"].notna().sum() == 64
    )  # a question's four options share theirs
    monkeypatch.setattr(
        ConfigurableTask, "fewshot_context", lambda *_, **__: pytest.fail("built anew")
    )
    again, same = evaluate_tasks(
        unigram_model, word_tokenizer, tasks, EVALUATE, 1234, requests=tables
    )
    assert again == scores and scores["mmlu"]["truncated"] > 0
    pd.testing.assert_frame_equal(answers, same, check_exact=True)
    with pytest.raises(artifacts.DamagedArtifact, match="not those of the staged task"):
        evaluate_tasks(
            unigram_model,
            word_tokenizer,
            {"mmlu": tasks["mmlu"]},
            EVALUATE,
            1234,
            requests={"mmlu": tables["winogrande"]},
        )


def test_a_gap_in_a_sentence_is_asked_by_its_beginning(stories, tmp_path):
    data = {
        split: str(shared(f"data/winogrande/{split}.parquet")) for split in ("train", "validation")
    }
    spec = {
        "kind": "lm_eval",
        "template": "winogrande",
        "data": data,
        "shots": 0,
        "questions": 6,
        "method": "generate",
        "answer_tokens": 4,
    }
    staged(spec, tmp_path / "task")
    _, answers = evaluate_tasks(*stories, {"w": tmp_path / "task"}, EVALUATE, 1234)
    questions = pd.read_parquet(tmp_path / "task" / "questions.parquet")
    assert (
        len(questions) == 12 and not questions["question"].str.contains("_").any()
    )  # both fillings of each sentence
    read = answers["matched"] != "none"
    assert (answers["choice"] >= 0).tolist() == read.tolist() and len(answers) == 6


def test_a_damaged_split_of_a_staged_task_is_named_before_anything_is_asked(tmp_path):
    staged(mmlu(tmp_path / "data", questions=10), tmp_path / "task")
    path = tmp_path / "task" / "splits" / "test.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    for _ in ("damaged", "gone"):
        with pytest.raises(
            artifacts.DamagedArtifact,
            match="test.parquet: the file is missing or differs .*delete .* and run snakemake",
        ):
            load_tasks({"mmlu": tmp_path / "task"}, 1234)
        path.unlink(missing_ok=True)
