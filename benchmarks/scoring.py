"""Compare multiple-choice scoring by our HarnessModel with lm-eval's HFLM.

Both run `evaluator.evaluate`, timed from staged tasks to results: building and tokenising requests,
the model, and lm-eval's metrics. Each benchmark is a separate call.
"""

import time
from functools import partial
from pathlib import Path

from benchmarks.data import as_in_a_job, load, shared
from benchmarks.harness import OURS, Row, call

CONTEXT_TOKENS, QUESTIONS, SHOTS, SEED = 1024, 500, 5, 1234
BATCHES = (1, 8)  # of the peer; the logits of larger batches do not fit a CPU's caches
SUBJECTS = ["anatomy", "astronomy", "marketing", "philosophy", "virology"]
TASKS = {
    "mmlu": ("mmlu", {"dev": "mmlu/dev", "test": "mmlu/test"}, SHOTS),
    "winogrande": (
        "winogrande",
        {"train": "winogrande/train", "validation": "winogrande/validation"},
        SHOTS,
    ),
    "siqa": ("social_iqa", {"validation": "social_iqa/validation"}, 0),
    "mathqa": ("mathqa", {"validation": "mathqa/validation", "test": "mathqa/test"}, 0),
}


def _staged(name: str) -> dict:
    """Return the staged benchmark as lm-eval tasks; mmlu has five subjects."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from pollination.evaluation.tasks import load_tasks, stage_task

    template, splits, shots = TASKS[name]
    data = {split: str(shared(f"data/{file}.parquet")) for split, file in splits.items()}
    if name == "mmlu":
        table = pq.read_table(data["test"])
        data["test"] = str(Path("subjects.parquet").resolve())
        pq.write_table(table.filter(pc.is_in(table["subject"], pa.array(SUBJECTS))), data["test"])
    folder = Path(name)
    task = {"kind": "lm_eval", "template": template, "data": data}
    stage_task(task | {"num_fewshot": shots, "questions": QUESTIONS}, folder, SEED)
    return load_tasks({name: folder}, SEED)


def _score(names: str, folder: str, like: str, make) -> dict:
    import logging

    from lm_eval import evaluator

    from pollination.evaluation.lm_eval_calls import quiet

    logging.getLogger("pollination").setLevel(
        logging.ERROR
    )  # subjects without questions are intended
    model, tokenizer = load(folder, like)
    model.config.max_position_embeddings = CONTEXT_TOKENS
    parts, answers, questions = {}, {}, 0
    with quiet():
        lm = make(model, tokenizer)
        for name in names.split(","):
            loaded = _staged(name)
            begun_s = time.perf_counter()
            results = evaluator.evaluate(lm=lm, task_dict=loaded, bootstrap_iters=0)
            parts[name] = time.perf_counter() - begun_s
            samples = [
                sample for key in sorted(results["samples"]) for sample in results["samples"][key]
            ]
            answers[name] = [
                [response[0] for response in sample["filtered_resps"]] for sample in samples
            ]
            questions += len(samples)
    return {
        "seconds": sum(parts.values()),
        "amount": questions,
        "result": {"parts": parts, "answers": answers},
    }


def score_ours(names: str, folder: str, like: str) -> dict:
    from pollination.evaluation.harness import HarnessModel

    as_in_a_job()
    return _score(names, folder, like, partial(HarnessModel, batch_size=32))


def score_peer(names: str, folder: str, like: str, batch: str) -> dict:
    import torch
    from lm_eval.models.huggingface import HFLM

    options = {
        "batch_size": int(batch),
        "max_length": CONTEXT_TOKENS,
        "add_bos_token": False,
        "softmax_dtype": torch.float32,
    }
    return _score(
        names,
        folder,
        like,
        lambda model, tokenizer: HFLM(pretrained=model, tokenizer=tokenizer, **options),
    )


def sides(names: tuple[str, ...], like: str = "") -> dict:
    folder, joined = shared("models/stories15M"), ",".join(names)
    for name in names:
        for file in TASKS[name][1].values():
            shared(f"data/{file}.parquet")
    peers = {
        f"lm-eval HFLM, batch {batch}": call(score_peer, joined, folder, like, batch)
        for batch in BATCHES
    }
    return {OURS: call(score_ours, joined, folder, like)} | peers


def same_answers(ours: dict, theirs: dict) -> str:
    """Report equal choices, the largest log-likelihood difference, and speed-ups by benchmark."""
    pairs = [
        pair
        for name in ours["answers"]
        for pair in zip(ours["answers"][name], theirs["answers"][name], strict=True)
    ]
    same = sum(
        max(range(len(a)), key=a.__getitem__) == max(range(len(b)), key=b.__getitem__)
        for a, b in pairs
    )
    apart = max(abs(x - y) for a, b in pairs for x, y in zip(a, b, strict=True))
    parts = ", ".join(
        f"{name} {theirs['parts'][name] / seconds:.1f}" for name, seconds in ours["parts"].items()
    )
    return (
        f"{same} of {len(pairs)} choices equal, log-likelihoods within {apart:.0e}; ratios: {parts}"
    )


ROWS = [
    Row(
        "scoring",
        f"MMLU and WinoGrande {SHOTS}-shot, SIQA, MathQA, {QUESTIONS} questions each, stories15M "
        f"at context {CONTEXT_TOKENS}",
        "questions",
        2.5,
        lambda: sides(tuple(TASKS)),
        same_answers,
    ),
    Row(
        "scoring-mmlu",
        f"MMLU alone: {QUESTIONS} questions of {len(SUBJECTS)} subjects, {SHOTS}-shot",
        "questions",
        4.0,
        lambda: sides(("mmlu",)),
        same_answers,
    ),
    *(
        Row(
            f"scoring-{name}",
            f"WinoGrande {SHOTS}-shot, {QUESTIONS} questions, a random {title} of the same size",
            "questions",
            1.5,
            partial(sides, ("winogrande",), like),
            same_answers,
        )
        for name, title, like in (
            ("qwen3", "Qwen3", "qwen3"),
            ("gemma3", "Gemma 3", "gemma3_text"),
        )
    ),
]
