"""Collect the outputs of a deployed model through any OpenAI-compatible endpoint.

The job resumes at the first missing prompt, limits its request rate and forecasts the price if it
is known. It appends each answer at once to a file in its work folder, from which a killed or
rejected job resumes. It reads the API key from the environment variable that models.csv names
(column `key`) and never writes it.
"""

import json
import os
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import openai
import pyarrow as pa

from pollination.analysis.fingerprint.counting import read_outputs
from pollination.core import artifacts
from pollination.core.job import Job, Stopped
from pollination.plan.config.catalogue import read_catalogue

SECONDS_A_LINE = 30.0  # between two progress messages


class Pace:
    """Limit on the requests per minute, over all threads."""

    def __init__(self, a_minute: float) -> None:
        self.step, self.next, self.lock = 60.0 / a_minute, 0.0, threading.Lock()

    def wait(self) -> None:
        with self.lock:
            start = max(self.next, time.monotonic())
            self.next = start + self.step
        time.sleep(max(0.0, start - time.monotonic()))


def collect(job: Job) -> None:
    """Request the missing answers, then write outputs.parquet in the order of the prompts.

    Its columns are model, prompt_id, prompt, output.
    """
    settings, served = job.params.collect, job.params.served
    row = read_catalogue(served["catalogue"])[served["model"]]
    prompts = list(read_outputs(job.file("prompts"), ("prompt_id", "prompt")))
    prompts = prompts[: settings["max_prompts"]]
    ids = {prompt_id for prompt_id, _ in prompts}
    if len(ids) < len(prompts) or not all(prompt for _, prompt in prompts):
        raise ValueError(
            f"{job.file('prompts')}: a prompt lacks text or repeats a prompt_id; every "
            "prompt needs text and a unique prompt_id"
        )
    work = job.claim(f"{job.wildcards.part}.collect", job.key(0))
    if work is None:
        return
    answers = work / "answers.jsonl"
    done = _saved(answers)
    missing = [(prompt_id, prompt) for prompt_id, prompt in prompts if prompt_id not in done]
    job.log.info(
        "%s at %s: %d prompts, %d already answered%s",
        served["name"],
        served["base_url"],
        len(prompts),
        len(done),
        _foretold(missing, settings, row),
    )
    with openai.OpenAI(
        base_url=served["base_url"],
        api_key=_key(row),
        max_retries=int(os.environ.get("POLLINATION_REQUEST_RETRIES", 8)),
    ) as client:
        _ask_all(job, client, missing, settings, row, answers, done)
    table = {
        "model": [served["model"]] * len(prompts),
        "prompt_id": [prompt_id for prompt_id, _ in prompts],
        "prompt": [prompt for _, prompt in prompts],
        "output": pa.array([done[prompt_id]["output"] for prompt_id, _ in prompts], pa.string()),
    }
    artifacts.write_table(job.output.outputs, pa.table(table))


def _ask_all(
    job: Job,
    client,
    missing: list[tuple[str, str]],
    settings: dict,
    row: dict,
    answers: Path,
    done: dict,
) -> None:
    pace = Pace(float(os.environ.get("POLLINATION_REQUESTS_PER_MINUTE", 60)))
    began, total = len(done), len(done) + len(missing)
    started = shown = time.monotonic()

    def ask(prompt_id: str, prompt: str) -> dict:
        pace.wait()
        said = f"{prompt}\n\n{settings['instruction']}".strip()
        messages = [
            {"role": role, "content": text}
            for role, text in (("system", settings["system"]), ("user", said))
            if text
        ]
        options = {"temperature": settings["temperature"], "max_tokens": settings["max_tokens"]}
        reply = client.chat.completions.create(
            model=job.params.served["name"], messages=messages, **options
        )
        usage = reply.usage
        tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        return {
            "prompt_id": prompt_id,
            "output": reply.choices[0].message.content if reply.choices else None,
            "tokens": tokens,
        }

    waiting = list(reversed(missing))
    at_once = int(os.environ.get("POLLINATION_REQUESTS_AT_ONCE", 4))
    with ThreadPoolExecutor(at_once) as pool, open(answers, "a", encoding="utf-8") as file:
        running: set[Future] = set()
        while waiting or running:
            while waiting and len(running) < at_once and not job.stop:
                running.add(pool.submit(ask, *waiting.pop()))
            if not running:
                raise Stopped(
                    f"stopped by {job.stop.reason} after {len(done)} of {total} prompts; their "
                    "answers are saved, run the same command to resume"
                )
            finished, running = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in finished:
                try:
                    answer = future.result()
                except openai.OpenAIError as error:
                    pool.shutdown(wait=False, cancel_futures=True)
                    message = _refused(error, job.params.served, row, len(done), total)
                    raise ValueError(message) from None
                file.write(json.dumps(answer) + "\n")
                file.flush()
                os.fsync(file.fileno())
                done[answer["prompt_id"]] = answer
            if time.monotonic() - shown > SECONDS_A_LINE or len(done) == total:
                shown = time.monotonic()
                left = (shown - started) / max(1, len(done) - began) * (total - len(done))
                spent = _spent(done.values(), row)
                job.log.info("%d of %d prompts, about %d s left%s", len(done), total, left, spent)


def _saved(path: Path) -> dict[str, dict]:
    """Return answers of earlier attempts, without an incomplete last line."""
    done = {}
    if path.is_file():
        whole = path.read_bytes().rpartition(b"\n")[0]
        for line in whole.decode("utf-8").splitlines():
            answer = json.loads(line)
            done[answer["prompt_id"]] = answer
        with open(path, "r+b") as file:
            file.truncate(len(whole) + 1 if whole else 0)
    return done


def _key(row: dict) -> str:
    name = row.get("key")
    if not name:
        return "none"  # a local server needs no key
    if not os.environ.get(name):
        raise ValueError(
            f"the environment variable {name} (column key of model {row['model']}) is not set; "
            "export it and run the same command"
        )
    return os.environ[name]


def _price(row: dict, read: float, written: float) -> float | None:
    """Return the price of the tokens in the user's currency; None if models.csv has no prices.

    Prices in models.csv are per million tokens.
    """
    if not (row.get("input_price") and row.get("output_price")):
        return None
    try:
        return (read * float(row["input_price"]) + written * float(row["output_price"])) / 1e6
    except ValueError:
        raise ValueError(
            f"input_price, output_price of model {row['model']}: {row['input_price']!r}, "
            f"{row['output_price']!r}; both must be numbers or empty"
        ) from None


def _foretold(missing: list[tuple[str, str]], settings: dict, row: dict) -> str:
    characters = sum(
        len(prompt) + len(settings["system"]) + len(settings["instruction"])
        for _, prompt in missing
    )
    price = _price(row, characters / 4, len(missing) * settings["max_tokens"])
    return "" if price is None else f"; at most about {price:.2f} for the rest"


def _spent(answers, row: dict) -> str:
    tokens = [answer["tokens"] for answer in answers]
    price = _price(row, sum(read for read, _ in tokens), sum(written for _, written in tokens))
    return f", {sum(written for _, written in tokens):,} tokens written" + (
        "" if price is None else f", {price:.2f} spent"
    )


def _refused(error: openai.OpenAIError, served: dict, row: dict, done: int, total: int) -> str:
    """Return the error in one line, without the endpoint's text, which may contain the key."""
    status: int = getattr(error, "status_code", 0)
    said = {
        401: f"the endpoint rejected the key in {row.get('key') or '(none given)'}",
        404: f"the endpoint has no model {served['name']!r}",
    }.get(status)
    said = said or (f"status {status}" if status else type(error).__name__)
    return (
        f"{served['base_url']}: {said}; {done} of {total} answers are saved, run the same command "
        "to resume"
    )
