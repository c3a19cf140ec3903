"""Score a model's answers to benchmark questions, by log-likelihood or as generated text.

The questions are lm-eval tasks. Any lm-eval model class works; a run uses `harness.HarnessModel`.
"""

import os
import random
import re
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lm_eval import evaluator
from lm_eval.api.instance import Instance

from pollination.core import artifacts
from pollination.evaluation.harness import HarnessModel
from pollination.evaluation.requests import restore_requests
from pollination.evaluation.tasks import gold, load_tasks
from pollination.evaluation.templates import quiet

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def evaluate_tasks(
    model,
    tokenizer,
    tasks: dict[str, Path],
    evaluate: dict,
    evaluation_seed: int,
    lm=None,
    requests: dict[str, Path] | None = None,
) -> tuple[dict[str, dict], pd.DataFrame]:
    """Score a model on staged tasks {name: folder}.

    Return the `tasks` block of scores.json and the rows of answers.parquet. Equal calls give equal
    bits on a CPU. Each task runs alone, so that its scores do not depend on the other tasks.

    `evaluate["batch_size"]` is fixed, because it changes the last digits. `requests` names the
    tables of `write_requests`; lm-eval builds the requests of a task without a table. `lm` replaces
    HarnessModel by another lm-eval model.

    `accuracy` weights every question equally (for mmlu: subjects by their number of questions).
    `stderr` is the sample standard error of that mean, sqrt(p (1 - p) / (n - 1)); it is None for
    one question. lm-eval's error for a group pools the variances of the subjects and is slightly
    smaller. `truncated` counts the questions whose prompt was cut on the left to fit the context.
    """
    training = model.training
    with quiet():
        lm = HarnessModel(model, tokenizer, evaluate["batch_size"]) if lm is None else lm
        try:
            parts = {
                name: _evaluate_task(
                    lm, name, Path(folder), evaluation_seed, (requests or {}).get(name)
                )
                for name, folder in tasks.items()
            }
        finally:
            model.train(training)
    answers = [rows for _, rows in parts.values()]
    frame = pd.concat(answers, ignore_index=True) if answers else pd.DataFrame()
    return {name: scores for name, (scores, _) in parts.items()}, frame


def _evaluate_task(
    lm, name: str, folder: Path, seed: int, requests: Path | None
) -> tuple[dict, pd.DataFrame]:
    entry = artifacts.read_json(folder / "task.json")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    loaded = load_tasks({name: folder}, seed)  # seeds the few-shot sampler too
    if requests is not None:
        encoded = restore_requests(requests, loaded)
        if isinstance(lm, HarnessModel):
            lm.encoded = encoded
    ask = _by_generation if entry["method"] == "generate" else _by_loglikelihood
    rows = []
    for leaf, answered in zip(entry["tasks"], ask(lm, loaded, entry), strict=True):
        first = leaf["rows"][entry["evaluated_split"]][0]
        rows += [
            {"task": name, "doc_id": first + index, **answer}
            for index, answer in enumerate(answered)
        ]
    frame = pd.DataFrame(rows)
    correct, n = frame["correct"].to_numpy(dtype=float), len(frame)
    scores = {
        "accuracy": float(correct.mean()),
        "stderr": float(correct.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
        "questions": n,
        "questions_available": entry["questions_available"],
        "shots": entry["shots"],
        "method": entry["method"],
        "truncated": int(frame.pop("truncated").sum()),
    }
    if "correct_norm" in frame:
        scores["accuracy_norm"] = float(frame.pop("correct_norm").mean())
    if entry["method"] == "generate":
        scores["unanswered"] = int((frame["matched"] == "none").sum())
    return scores, frame


def _by_loglikelihood(lm, loaded: dict, entry: dict) -> list[list[dict]]:
    results = evaluator.evaluate(lm=lm, task_dict=loaded, bootstrap_iters=0, log_samples=True)
    cut: set = getattr(lm, "truncated", set())
    answers = []
    for key, task in loaded["tasks"].items():
        rows = []
        for sample in sorted(results["samples"][key], key=lambda sample: sample["doc_id"]):
            choices = len(task.doc_to_choice(sample["doc"]))
            scores = [float(response[0]) for response in sample["filtered_resps"]][:choices]
            if not np.isfinite(scores).all():
                raise ValueError(
                    f"task {key!r}: a log-likelihood of the model is not finite: its training "
                    "diverged or its weights are damaged; run `pollination verify`, or lower the "
                    "learning rate"
                )
            choice, answer = int(np.argmax(scores)), gold(task, sample["doc"])
            row = {
                "correct": bool(sample.get("acc", choice == answer)),
                "choice": choice,
                "answer": answer,
                "loglikelihoods": scores,
                "truncated": any(tuple(pair[:2]) in cut for pair in sample["arguments"]),
            }
            if "acc_norm" in sample:
                row["correct_norm"] = bool(sample["acc_norm"])
            rows.append(row)
        answers.append(rows)
    return answers


# Generated answers


def _by_generation(lm, loaded: dict, entry: dict) -> list[list[dict]]:
    """Generate greedy answers of at most `answer_tokens` tokens and match them with the choices."""
    longest = getattr(lm, "max_length", None)
    if longest is not None and entry["answer_tokens"] >= longest:
        raise ValueError(
            f"answer_tokens {entry['answer_tokens']} leaves no room for a prompt in the model's "
            f"context_tokens {longest}; lower answer_tokens"
        )
    answers = []
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
        rows = []
        for (doc, prompt, choices), text in zip(docs, texts, strict=True):
            choice, matched = match_answer(text, choices, _spelled_out(doc, choices))
            answer, truncated = gold(task, doc), (prompt, "") in getattr(lm, "truncated", set())
            row = {
                "correct": choice == answer,
                "choice": choice,
                "answer": answer,
                "loglikelihoods": None,
            }
            rows.append(row | {"text": text, "matched": matched, "truncated": truncated})
        answers.append(rows)
    return answers


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
