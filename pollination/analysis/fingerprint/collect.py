"""Collect the outputs of a deployed model through any OpenAI-compatible endpoint.

The job resumes at the first missing prompt, limits its request rate and forecasts the price if it
is known. It appends each answer at once to a file in its work folder (answers.py), from which a
killed or rejected job resumes. The user allows each key for each host (plan/config/endpoints.py),
and the job writes no key to any file.
"""

import shutil
from collections import Counter
from pathlib import Path

from pollination.analysis.fingerprint import answers
from pollination.analysis.fingerprint.answers import Answers
from pollination.analysis.fingerprint.client import Client
from pollination.analysis.fingerprint.counting import read_outputs
from pollination.analysis.fingerprint.prices import forecast
from pollination.analysis.fingerprint.replies import CUT, FILTERED
from pollination.analysis.fingerprint.requests import Round, counts
from pollination.core.environment import number
from pollination.core.job import Job
from pollination.plan.config.catalogue import read_catalogue
from pollination.plan.config.endpoints import Endpoint, check_key, read_key


def collect(job: Job) -> None:
    """Request the missing answers, then write outputs.parquet in the order of the prompts.

    Its columns are model, prompt_id, prompt, output, finish_reason, reasoning, refusal, missing
    (why there is no output), served_model, prompt_tokens and completion_tokens. Raises ValueError
    if prompts stay without an answer and `missing` is not `skip`.
    """
    settings, served = job.params.collect, job.params.served
    row = read_catalogue(served["catalogue"])[served["model"]]
    # The address of the plan counts: it is part of the job's key.
    row |= {"base_url": served["base_url"]}
    prompts = _prompts(job.file("prompts"), settings["max_prompts"])
    work = job.claim(f"{job.wildcards.part}.collect", job.key(0))
    if work is None:
        if not answers.unexplained(job.output.outputs):
            return
        work = _reopened(job)
    endpoint, key = _allowed(served["catalogue"], row)
    requests = {prompt_id: _request(served, settings, prompt) for prompt_id, prompt in prompts}
    wanted = {
        prompt_id: answers.asked(served, request["messages"], settings["temperature"])
        for prompt_id, request in requests.items()
    }
    store = Answers(work, wanted, settings["max_tokens"], settings["missing"] == "skip")
    if store.damaged:
        job.log.warning("%d unreadable lines of %s are passed over", store.damaged, store.path)
    store.adopt(job.log)
    # A prompt that got no answer before comes last, so that it delays no other.
    missing = [item for item in prompts if item[0] not in store.found]
    missing.sort(key=lambda item: item[0] in store.tried)
    job.log.info(
        "%s at %s: %d prompts, %d already answered%s",
        served["name"],
        served["base_url"],
        len(prompts),
        len(store.found),
        forecast(missing, settings, row),
    )
    client = Client(endpoint, key, number("POLLINATION_REQUEST_TIMEOUT_S", 600, 0.1))
    with client.http, store.file:
        Round(job, client, store, row).ask({name: requests[name] for name, _ in missing})
    _check_complete(job, store, prompts)
    answers.write_answers(job.output.outputs, served["model"], prompts, store.found)


def _prompts(path: Path, most: int) -> list[tuple[str, str]]:
    prompts = list(read_outputs(path, ("prompt_id", "prompt")))[:most]
    if not prompts:
        raise ValueError(f"{path}: the file holds no prompt; write at least one row")
    seen: set[str] = set()
    for prompt_id, prompt in prompts:
        fits = answers.is_text(prompt) and answers.is_text(prompt_id)
        if prompt_id in seen or not fits:
            said = "lacks text" if not fits else "appears twice"
            raise ValueError(
                f"{path}: prompt_id {prompt_id!r} {said}; every prompt needs text (without NUL or "
                "half of a surrogate pair) and a unique prompt_id"
            )
        seen.add(prompt_id)
    return prompts


def _reopened(job: Job) -> Path:
    """Return the work folder of a finished collection that holds empty outputs, to ask for them."""
    work = job.work
    assert work is not None
    answers.reopen(Path(job.output.outputs), work)
    shutil.rmtree(work / "finished")
    job.done = False
    job.log.warning("the finished collection holds outputs without text; they are asked again")
    return work


def _allowed(catalogue: str, row: dict) -> tuple[Endpoint, str | None]:
    try:
        return check_key(row), read_key(row)
    except ValueError as error:
        raise ValueError(f"{catalogue}: {error}") from None


def _request(served: dict, settings: dict, prompt: str) -> dict:
    said = f"{prompt}\n\n{settings['instruction']}".strip()
    messages = [
        {"role": role, "content": text}
        for role, text in (("system", settings["system"]), ("user", said))
        if text
    ]
    return {
        "model": served["name"],
        "messages": messages,
        "temperature": settings["temperature"],
    }


def _check_complete(job: Job, store: Answers, prompts: list[tuple[str, str]]) -> None:
    """Log what was collected. Raises ValueError if prompts, or all prompts, have no answer."""
    kinds: Counter[str] = Counter()
    for record in store.found.values():
        ended = str(record.get("finish_reason")).lower()
        if record.get("output") is None:
            kinds[f"no text: {record['missing']}"] += 1
        elif ended in CUT:
            kinds["cut at max_tokens"] += 1
        elif ended in FILTERED:
            kinds["cut by a content filter"] += 1
    notes = f" ({counts(kinds)})" if kinds else ""
    job.log.info("%d of %d prompts have an answer%s", store.texts(), len(prompts), notes)
    open_ = [prompt_id for prompt_id, _ in prompts if prompt_id not in store.found]
    where = f"fingerprint.{job.wildcards.get('survey', '{survey}')}.collect"
    if open_:
        tried = [store.tried[prompt_id] for prompt_id in open_]
        reasons = Counter(record.get("missing") or "no text" for record in tried)
        words = next(filter(None, (record.get("words") for record in tried)), "")
        said = f'; the endpoint says "{words}"' if words else ""
        names = ", ".join(open_[:5]) + (", ..." if open_[5:] else "")
        skip = "" if store.keep_missing else f", or set {where}.missing: skip to leave them empty"
        raise ValueError(
            f"{job.params.served['base_url']}: {len(open_)} of {len(prompts)} prompts have no "
            f"answer ({counts(reasons)}{said}): {names}. All other answers are saved. Run the "
            f"same command to ask for these again{skip}"
        )
    if not store.texts():
        raise ValueError(
            f"{job.params.served['base_url']}: no prompt has an answer ({counts(kinds)}); correct "
            f"the prompts, or name and base_url in {job.params.served['catalogue']}"
        )
