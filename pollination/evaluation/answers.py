"""Score a model's answers to benchmark questions, by log-likelihood or as generated text.

The questions are lm-eval tasks. Any lm-eval model class works; a run uses `harness.HarnessModel`.
"""

import os
import random
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lm_eval import evaluator
from lm_eval.api.instance import Instance

from pollination.core import artifacts
from pollination.core.questions import scored
from pollination.evaluation.harness import HarnessModel
from pollination.evaluation.lm_eval_calls import quiet
from pollination.evaluation.metrics import BOOTSTRAP, Ranking, ranking, reported
from pollination.evaluation.requests import Kept
from pollination.evaluation.tasks import gold, load_tasks

# metrics of lm-eval that are 1 for a right answer and 0 for a wrong one
RIGHT_OR_WRONG = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match")
NULLABLE = {"correct": "boolean", "choice": "Int64", "answer": "Int64"}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def evaluate_tasks(
    model,
    tokenizer,
    tasks: dict[str, Path],
    evaluate: dict,
    evaluation_seed: int,
    lm=None,
    requests: dict[str, Path] | None = None,
    kept: Kept | None = None,
    digests: Mapping[str, str] | None = None,
) -> tuple[dict[str, dict], pd.DataFrame]:
    """Score a model on staged tasks {name: folder}.

    Return the `tasks` block of scores.json and the rows of answers.parquet. Equal calls give equal
    bits on a CPU. Each task runs alone, so that its scores do not depend on the other tasks.

    `evaluate["batch_size"]` is fixed, because it changes the last digits. `requests` names the
    tables of `write_requests`; lm-eval builds the requests of a task without a table. `kept` holds
    the benchmarks of earlier calls; `digests` are those of the files. `lm` replaces HarnessModel by
    another lm-eval model.

    Of each task, `metrics` holds all values as lm-eval computes them, with their standard errors
    and directions; those of the tasks of a group are under "TASK/METRIC,FILTER". `metric` names the
    one that is shown and can rank models (`tasks.*.metric`), and `score` is its value. If the
    metric has a value from 0 to 1 for each question, `accuracy` is their mean. It weights every
    question equally (for mmlu: subjects by their number of questions). Otherwise there is no
    `accuracy`, and `unfit` tells why the metric cannot rank models.

    `stderr` is the sample standard error of `accuracy`, sqrt(p (1 - p) / (n - 1)) for right and
    wrong answers, or lm-eval's of `score`; None if it is unknown. lm-eval's error for a group pools
    the variances of the subjects and is slightly smaller. `truncated` counts the questions whose
    prompt was cut on the left to fit the context.
    """
    training = model.training
    with quiet():
        lm = HarnessModel(model, tokenizer, evaluate["batch_size"]) if lm is None else lm
        try:
            parts = {
                name: _evaluate_task(
                    lm,
                    name,
                    Path(folder),
                    evaluation_seed,
                    (requests or {}).get(name),
                    kept or Kept(),
                    digests or {},
                )
                for name, folder in tasks.items()
            }
        finally:
            model.train(training)
    answers = [rows for _, rows in parts.values()]
    frame = pd.concat(answers, ignore_index=True) if answers else pd.DataFrame()
    return {name: scores for name, (scores, _) in parts.items()}, frame


def _evaluate_task(
    lm,
    name: str,
    folder: Path,
    seed: int,
    requests: Path | None,
    kept: Kept,
    digests: Mapping[str, str],
) -> tuple[dict, pd.DataFrame]:
    entry = artifacts.read_json(folder / "task.json")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if requests is None:
        loaded = load_tasks({name: folder}, seed)  # seeds the few-shot sampler too
    else:
        ready = kept.load(name, folder, requests, seed, digests)
        loaded = ready.tasks
        if isinstance(lm, HarnessModel):
            lm.encoded = ready.encoded
    if entry["method"] == "generate":
        rows = _by_generation(lm, loaded, entry)
        own = {"metric": "acc", "higher_is_better": True}
    else:
        rows, own = _as_lm_eval(lm, name, loaded, entry.get("metric"))
    frame = pd.DataFrame([{"task": name, "doc_id": index, **row} for index, row in enumerate(rows)])
    frame = frame.astype({"score": float, "chance": float})
    frame = frame.astype({key: kind for key, kind in NULLABLE.items() if frame[key].isna().any()})
    scores = {
        "questions": len(frame),
        "questions_available": entry["questions_available"],
        "shots": entry["shots"],
        "method": entry["method"],
        "truncated": int(frame.pop("truncated").sum()),
    }
    if "unfit" not in own:
        scores = scored(frame["score"].to_numpy(dtype=float)) | scores
        own = {"score": scores["accuracy"]} | own
    if "correct_norm" in frame:
        norm = frame.pop("correct_norm")  # all tasks of a group must have it
        scores |= {"accuracy_norm": float(norm.mean())} if norm.notna().all() else {}
    if entry["method"] == "generate":
        scores["unanswered"] = int((frame["matched"] == "none").sum())
    return scores | own, frame


def _as_lm_eval(lm, name: str, loaded: dict, asked: str | None) -> tuple[list[dict], dict]:
    """Let lm-eval score a task; return its answers, and the keys of its metrics in scores.json."""
    try:
        results = evaluator.evaluate(
            lm=lm, task_dict=loaded, bootstrap_iters=BOOTSTRAP, log_samples=True
        )
    except (ArithmeticError, ImportError) as error:
        raise ValueError(
            f"task {name!r}: lm-eval cannot compute its metrics ({type(error).__name__}: {error}); "
            "choose another task"
        ) from error
    cut: set = getattr(lm, "truncated", set())
    rows, rankings, several = [], [], len(loaded["tasks"]) > 1
    metrics: dict[str, dict] = {}
    for key, task in loaded["tasks"].items():
        samples = results["samples"][key]
        for sample in samples:
            _check_finite(key, sample)
        ranked = ranking(task, samples, asked)
        rankings.append(ranked)
        chosen = sorted(
            (sample for sample in samples if sample["filter"] == ranked.filter),
            key=lambda sample: sample["doc_id"],
        )
        rows += [
            _answer(task, sample, ranked, value, cut)
            for sample, value in zip(chosen, ranked.values, strict=True)
        ]
        found = reported(results["results"][key], task.higher_is_better())
        if found[ranked.key]["value"] is None:
            raise ValueError(
                f"task {key!r}: metric {ranked.key!r} is not a finite number; set "
                f"tasks.{name}.metric to another metric, or remove the task"
            )
        leaf = f"{key.removeprefix(f'{name}/')}/" if several else ""
        metrics |= {f"{leaf}{metric}": entry for metric, entry in found.items()}
    of_group = results["results"].get(name, {}) if several else {}
    directions = {
        metric: higher
        for task in loaded["tasks"].values()
        for metric, higher in task.higher_is_better().items()
    }
    metrics = reported(of_group, directions) | metrics
    own = _ranked(rankings, metrics, loaded["groups"].get(name))
    if "unfit" in own:
        rows = [row | {"score": None, "correct": None, "chance": None} for row in rows]
    return rows, own | {"metrics": metrics}


def _ranked(rankings: list[Ranking], metrics: dict[str, dict], group) -> dict:
    """Return metric, higher_is_better, score, stderr and unfit of a task or group for scores.json.

    `score` and `stderr` are left out where they are the mean over the questions.
    """
    keys = list(dict.fromkeys(ranked.key for ranked in rankings))
    unfit = next((ranked.unfit for ranked in rankings if ranked.unfit), None)
    weighting = group and next(
        (one for one in group.aggregate_metric_list or () if one.metric == rankings[0].metric), None
    )
    if not unfit and len(keys) == 1 and weighting and not weighting.weight_by_size:
        unfit = "lm-eval weights each task of the group equally, not each question"
    entry = metrics.get(keys[0], {}) if len(keys) == 1 else {}
    own = {
        "metric": ", ".join(key.removesuffix(",none") for key in keys),
        "higher_is_better": entry.get("higher_is_better", True if not unfit else None),
    }
    if unfit:
        own |= {"score": entry.get("value"), "stderr": entry.get("stderr"), "unfit": unfit}
    return own


def _check_finite(name: str, sample: dict) -> None:
    values = [
        response[0] if isinstance(response, tuple | list) else response
        for responses in sample["resps"]
        for response in responses
    ]
    if not all(np.isfinite(value) for value in values if not isinstance(value, str)):
        raise ValueError(
            f"task {name!r}: a log-likelihood of the model is not finite: its training "
            "diverged or its weights are damaged; run `pollination verify`, or lower the "
            "learning rate"
        )


def _answer(task, sample: dict, ranked: Ranking, value, cut: set) -> dict:
    """Return the row of one question in answers.parquet.

    `correct` and `chance` are None where the score is not that of a right or wrong answer.
    """
    score = None if ranked.unfit else float(value)
    counts = not callable(task.config.process_results) and ranked.metric in RIGHT_OR_WRONG
    row: dict[str, Any] = dict.fromkeys(("correct", "choice", "answer", "loglikelihoods"))
    row |= {"score": score, "chance": None}
    if counts and score is not None:
        row["correct"] = score == 1
    if task.OUTPUT_TYPE == "multiple_choice":
        choices = task.doc_to_choice(sample["doc"])
        likelihoods = [float(response[0]) for response in sample["filtered_resps"]]
        row["answer"] = gold(task, sample["doc"])
        row["choice"] = _choice(likelihoods, choices, ranked.metric)
        row["loglikelihoods"] = likelihoods[: len(choices)]
        if row["correct"] is not None and ranked.metric != "exact_match":
            row["chance"] = _chance(task, sample["doc"], len(choices))
        if "acc_norm" in sample and not callable(task.config.process_results):
            row["correct_norm"] = sample["acc_norm"]
    elif task.OUTPUT_TYPE == "generate_until":
        row["text"] = sample["resps"][0][0]
    return row | {"truncated": any(_request(arguments) in cut for arguments in sample["arguments"])}


def _choice(likelihoods: list[float], choices: list[str], metric: str) -> int:
    """Return the choice that a metric of lm-eval takes as the model's answer."""
    values = np.array(likelihoods[: len(choices)])
    if metric == "acc_norm":
        values = values / np.array([float(len(choice)) for choice in choices])
    elif metric == "acc_bytes":
        values = values / np.array([float(len(choice.encode())) for choice in choices])
    elif metric == "acc_mutual_info":
        values = values - np.array(likelihoods[len(choices) :])
    return int(np.argmax(values))


def _chance(task, doc: dict, choices: int) -> float:
    """Return the share of right choices, the accuracy of a guess."""
    target = None if task.multiple_input else task.doc_to_target(doc)
    return (len(set(target)) if isinstance(target, list) else 1) / choices


def _request(arguments: tuple) -> tuple[str, str]:
    """Return a request as HarnessModel.truncated has it."""
    context, ending = (*arguments, "")[:2]
    return context, ending if isinstance(ending, str) else ""


# Generated answers


def _by_generation(lm, loaded: dict, entry: dict) -> list[dict]:
    """Generate greedy answers of at most `answer_tokens` tokens and match them with the choices."""
    longest = getattr(lm, "max_length", None)
    if longest is not None and entry["answer_tokens"] >= longest:
        raise ValueError(
            f"answer_tokens {entry['answer_tokens']} leaves no room for a prompt in the model's "
            f"context_tokens {longest}; lower answer_tokens"
        )
    rows = []
    for task in loaded["tasks"].values():
        task.build_all_requests(rank=0, world_size=1)
        # The separator of few-shot examples ends an answer; if it is a space, a full stop does.
        options = {
            "until": [task.config.fewshot_delimiter.strip(" ") or "."],
            "max_gen_toks": entry["answer_tokens"],
            "do_sample": False,
        }
        instances: dict[int, list] = {}
        for instance in task.instances:
            instances.setdefault(instance.doc_id, []).append(instance)
        docs = [
            (group[0].doc, *_open_question(task, group)) for _, group in sorted(instances.items())
        ]
        texts = lm.generate_until(
            [
                Instance("generate_until", doc, (prompt, options), 0, (task.task_name, index, 1))
                for index, (doc, prompt, _) in enumerate(docs)
            ]
        )
        for (doc, prompt, choices), text in zip(docs, texts, strict=True):
            choice, matched = match_answer(text, choices, _spelled_out(doc, choices))
            answer, truncated = gold(task, doc), (prompt, "") in getattr(lm, "truncated", set())
            row = {
                "correct": choice == answer,
                "choice": choice,
                "answer": answer,
                "loglikelihoods": None,
                "score": float(choice == answer),
                "chance": None,
            }
            rows.append(row | {"text": text, "matched": matched, "truncated": truncated})
    return rows


def _open_question(task, instances: list[Instance]) -> tuple[str, list[str]]:
    """Return the prompt and the choices of one question.

    If each choice has its own prompt (winogrande), the common prefix of these prompts, up to a
    whole word, is the prompt. The remainders are the choices.
    """
    if not task.multiple_input:
        return instances[0].args[0], task.doc_to_choice(instances[0].doc)
    ordered = sorted(instances, key=lambda instance: instance.idx)
    prompts = [instance.args[0] for instance in ordered]
    shared = os.path.commonprefix(prompts)  # noqa: RUF071 (texts, not paths)
    shared = shared[: max(shared.rfind(" "), shared.rfind("\n")) + 1]
    # A gap at the beginning leaves no prompt: the model reads only what begins every text.
    return shared.rstrip(" "), [text[len(shared) :] for text in prompts]


def _spelled_out(doc: dict, choices: list[str]) -> list[str] | None:
    """Return the texts that lettered choices stand for, or None if the document has none."""
    texts = doc.get("choices")
    fits = (
        _lettered(choices)
        and isinstance(texts, list)
        and len(texts) == len(choices)
        and all(isinstance(text, str) for text in texts)
    )
    return texts if fits else None


def _lettered(choices: list[str]) -> bool:
    return [choice.strip().upper() for choice in choices] == list(LETTERS[: len(choices)])


def match_answer(
    text: str, choices: list[str], spelled_out: list[str] | None = None
) -> tuple[int, str]:
    """Match the first line of a generated answer that is not blank with one of `choices`.

    Return (index, "exact" | "heuristic"), or (-1, "none"), which counts as wrong. `spelled_out`
    holds the texts that the letters stand for, if the choices are letters. Study A (appendix D.3)
    maps answers "using exact match or heuristic matching where necessary" and leaves the heuristics
    open. This function defines them.

    exact: the line equals the text of a choice, or its letter, except for case, spaces and
    surrounding punctuation.
    heuristic, the first of these that matches: (1) a marked option letter: "(B)", "b)", or "B." at
    the start; if the choices are letters, also a single capital. (2) The words of a choice within
    the line: the earliest, then the longest. (3) The choice that shares most words with the line
    (F1 of the word sets); a tie is no match.
    """
    line = next((part for part in text.splitlines() if part.strip()), "")
    answer, letters = _plain(line), LETTERS[: len(choices)]
    for names in (choices, spelled_out or [], list(letters)):
        exact = [index for index, name in enumerate(names) if answer and _plain(name) == answer]
        if exact:
            return exact[0], "exact"
    if letters:
        marked = rf"(?<!\w)\(?([{letters}{letters.lower()}])\)|^\s*([{letters}])[.:]"
        bare = rf"|(?<!\w)([{letters}])(?![\w'’])" if _lettered(choices) else ""
        if letter := re.search(marked + bare, line):
            return LETTERS.index(next(filter(None, letter.groups())).upper()), "heuristic"
    texts = spelled_out or ([] if _lettered(choices) else choices)
    words = [_words(name) for name in texts]
    written = _words(line)
    joined = f" {' '.join(written)} "
    places = [
        (joined.find(f" {' '.join(name)} "), -len(name), index)
        for index, name in enumerate(words)
        if name
    ]
    if inside := [place for place in places if place[0] >= 0]:
        return min(inside)[2], "heuristic"
    overlap = [
        2 * len(set(name) & set(written)) / max(1, len(set(name)) + len(set(written)))
        for name in words
    ]
    best = max(overlap, default=0.0)
    if best > 0 and overlap.count(best) == 1:
        return overlap.index(best), "heuristic"
    return -1, "none"


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(" .,;:!?\"'()[]")


def _words(text: str) -> list[str]:
    """Split a text into words and numbers; "3.5" and "-2" stay whole."""
    normal = unicodedata.normalize("NFKC", text).casefold()
    return re.findall(r"(?<!\w)-?\d+(?:[.,]\d+)*|\w+", normal)
