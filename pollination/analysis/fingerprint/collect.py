"""Collect the outputs of a deployed model through any OpenAI-compatible endpoint.

The job resumes at the first missing prompt, limits its request rate and forecasts the price if it
is known. It appends each answer at once to a file in its work folder (answers.py), from which a
killed or rejected job resumes. replies.py decides what is an answer. The user allows each key for
each host (plan/config/endpoints.py), and the job writes no key to any file.
"""

import json
import math
import os
import random
import shutil
import time
from collections import Counter, deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from pollination import __version__
from pollination.analysis.fingerprint import answers
from pollination.analysis.fingerprint.answers import Answers
from pollination.analysis.fingerprint.counting import read_outputs
from pollination.analysis.fingerprint.replies import CUT, FILTERED, NoAnswer, read_reply
from pollination.core.job import Job, Stopped
from pollination.core.sanitize import line
from pollination.plan.config.catalogue import read_catalogue
from pollination.plan.config.endpoints import Endpoint, check_key, read_key

SECONDS_A_LINE = 30.0  # between two progress messages
LONGEST_BODY = 2**24  # bytes of a reply
LONGEST_WAIT_S = 900.0  # that a server may ask for; a longer one stops the job
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0  # before a retry, doubled each time
REPLY_RETRIES = 2  # after a time-out or a reply without an answer, which may cost money
IN_A_ROW = 5  # prompts without an answer that stop the job
SHORTEST_SECRET = 12  # characters; shorter keys are dummies such as EMPTY


class Pace:
    """Limit on the requests per minute, and the pause that a busy server asked for."""

    def __init__(self, a_minute: float) -> None:
        self.step_s, self.next_s = 60.0 / a_minute, 0.0

    def start(self, now_s: float) -> None:
        self.next_s = max(self.next_s, now_s) + self.step_s

    def pause(self, until_s: float) -> None:
        self.next_s = max(self.next_s, until_s)


class Client:
    """One endpoint. Follows no redirect, so the key reaches no other host."""

    def __init__(self, endpoint: Endpoint, key: str | None, timeout_s: float) -> None:
        self.url, self.key, self.timeout_s = endpoint.url, key, timeout_s
        self.limit = "max_tokens"  # name of the parameter
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "User-Agent": f"pollination/{__version__}",
        }
        try:
            self.http = httpx2.Client(
                headers=headers | ({"Authorization": f"Bearer {key}"} if key else {}),
                timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, 30.0)),
                follow_redirects=False,
                verify=httpx2.create_ssl_context(),
                trust_env=not endpoint.local,  # no proxy sees what goes to this machine
            )
        except (ImportError, ValueError):  # a proxy of a kind that is not installed
            raise ValueError(
                "the environment variables of the proxy (HTTPS_PROXY, ALL_PROXY) name an address "
                "that cannot be used; set an http proxy, or unset them"
            ) from None

    def ask(self, request: dict, max_tokens: int) -> dict:
        """Return the columns of an answer (`read_reply`). Raises NoAnswer, without the key."""
        try:
            limit = self.limit
            try:
                columns = read_reply(*self._post(request | {limit: max_tokens}))
            except NoAnswer as failure:
                # OpenAI's newer models reject the old name.
                other = "max_completion_tokens"
                if failure.label != "status 400" or limit == other or other not in failure.words:
                    raise
                self.limit = other
                columns = read_reply(*self._post(request | {other: max_tokens}))
        except NoAnswer as failure:
            failure.words, failure.fix = self.masked(failure.words), self.masked(failure.fix)
            failure.label = self.masked(failure.label)
            failure.columns = {name: self._safe(value) for name, value in failure.columns.items()}
            raise
        if any(self._holds_key(value) for value in columns.values()):
            raise NoAnswer(
                "the reply repeats the API key",
                again="never",
                fix="no endpoint should send it back, so the reply was not stored; check base_url",
            )
        return columns

    def _post(self, body: dict) -> tuple[int, dict[str, str], bytes]:
        deadline_s, content = time.monotonic() + self.timeout_s, bytearray()
        try:
            with self.http.stream("POST", self.url, content=json.dumps(body).encode()) as reply:
                for part in reply.iter_bytes():
                    content += part
                    if len(content) > LONGEST_BODY:
                        raise NoAnswer(f"body above {LONGEST_BODY // 2**20} MiB")
                    if time.monotonic() > deadline_s:
                        raise NoAnswer("time-out", again="slow", fix=_TIMEOUT)
                return reply.status_code, dict(reply.headers), bytes(content)
        except httpx2.ConnectTimeout:
            raise NoAnswer("no connection", "", "load") from None
        except httpx2.TimeoutException:
            raise NoAnswer("time-out", again="slow", fix=_TIMEOUT) from None
        except httpx2.ConnectError as error:
            words = self.masked(line(error, 200))
            if "certificate" in words.lower() or "ssl" in words.lower():
                fix = (
                    "the certificate is not valid for this host; correct base_url, or name the "
                    "certificate of your own server in SSL_CERT_FILE"
                )
                raise NoAnswer("no secure connection", words, "never", fix=fix) from None
            raise NoAnswer("no connection", words, "load") from None
        except httpx2.DecodingError:
            raise NoAnswer("body not decompressible") from None
        except httpx2.RequestError as error:
            words = self.masked(line(error, 200))
            raise NoAnswer("broken connection", words, "load") from None

    def masked(self, text: str) -> str:
        """Return text of the server without the key or parts of it."""
        if not self.key:
            return text
        size = min(4, len(self.key))
        hidden: set[int] = set()
        for form in {self.key, quote(self.key, safe=""), json.dumps(self.key)[1:-1]}:
            for start in range(len(form) - size + 1):
                part, place = form[start : start + size].lower(), -1
                while (place := text.lower().find(part, place + 1)) >= 0:
                    hidden.update(range(place, place + size))
        return "".join("*" if place in hidden else c for place, c in enumerate(text))

    def _holds_key(self, value: Any) -> bool:
        if not self.key or len(self.key) < SHORTEST_SECRET:
            return False
        return isinstance(value, str) and self.key in value

    def _safe(self, value: Any) -> Any:
        return self.masked(value) if self._holds_key(value) else value


_TIMEOUT = "raise POLLINATION_REQUEST_TIMEOUT_S if the model needs longer"


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
        _foretold(missing, settings, row),
    )
    client = Client(endpoint, key, _limit("POLLINATION_REQUEST_TIMEOUT_S", 600, 0.1))
    with client.http, store.file:
        _Round(job, client, store, row).ask({name: requests[name] for name, _ in missing})
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


@dataclass
class _Waiting:
    """A prompt in the queue: when it may be asked, and how often it failed in which way."""

    prompt_id: str
    due_s: float = 0.0
    failures: Counter = field(default_factory=Counter)


class _Round:
    """The requests of one start of the job. Only its own thread changes its state."""

    def __init__(self, job: Job, client: Client, store: Answers, row: dict) -> None:
        self.job, self.client, self.store, self.row = job, client, store, row
        self.settings, self.served = job.params.collect, job.params.served
        self.pace = Pace(_limit("POLLINATION_REQUESTS_PER_MINUTE", 60, 0.001))
        self.at_once = int(_limit("POLLINATION_REQUESTS_AT_ONCE", 4, 1))
        retries = int(_limit("POLLINATION_REQUEST_RETRIES", 8, 0))
        few = min(retries, REPLY_RETRIES)
        self.retries = {"load": retries, "slow": few, "reply": few}
        self.failed: Counter[str] = Counter()  # replies without an answer, by label
        self.in_a_row = 0
        self.error: Exception | None = None
        self.hopeless: tuple[NoAnswer, str] | None = None  # with what the message begins
        self.total = len(store.wanted)

    def ask(self, requests: dict[str, dict]) -> None:
        """Ask for all answers. Raises after the requests under way have ended and are saved."""
        queue = deque(map(_Waiting, requests))
        began, started_s = len(self.store.found), time.monotonic()
        shown_s = started_s
        running: dict[Future, _Waiting] = {}
        with ThreadPoolExecutor(self.at_once) as pool:
            while running or (queue and self._goes_on()):
                now_s = time.monotonic()
                while self._due(queue, running) <= now_s:
                    item = queue.popleft()
                    self.pace.start(now_s)
                    request = requests[item.prompt_id]
                    limit = self.settings["max_tokens"]
                    running[pool.submit(self.client.ask, request, limit)] = item
                pause_s = min(1.0, max(0.01, self._due(queue, running) - now_s))
                if not running:
                    time.sleep(pause_s)
                for future in wait(running, pause_s, FIRST_COMPLETED).done if running else ():
                    if again := self._take(future, running.pop(future)):
                        queue.appendleft(again)
                if time.monotonic() - shown_s > SECONDS_A_LINE:
                    shown_s = time.monotonic()
                    left = self.total - len(self.store.found)
                    done = max(1, len(self.store.found) - began)
                    self._say(f", about {(shown_s - started_s) / done * left:.0f} s left")
        self._say("")
        if self.error:
            raise self.error
        if self.hopeless:
            raise ValueError(self._stopping(*self.hopeless))
        if queue:
            raise Stopped(
                f"stopped by {self.job.stop.reason} after {len(self.store.found)} of {self.total} "
                "prompts; their answers are saved, run the same command to resume"
            )

    def _due(self, queue: deque[_Waiting], running: dict) -> float:
        """Return when the next request may start; infinity if none may."""
        if not queue or len(running) >= self.at_once or not self._goes_on():
            return math.inf
        return max(queue[0].due_s, self.pace.next_s)

    def _goes_on(self) -> bool:
        return not (self.error or self.hopeless or self.job.stop)

    def _take(self, future: Future, item: _Waiting) -> _Waiting | None:
        """Save what a request brought; return the prompt if it is to be asked again."""
        try:
            columns = future.result()
            why = {} if columns["output"] else {"missing": answers.REFUSAL}
            self.store.save(item.prompt_id, columns | why)
            self.in_a_row = 0
        except NoAnswer as failure:
            return self._again(failure, item)
        except Exception as error:  # a full disk or a bug; answers under way are still saved
            self.error = self.error or error
        return None

    def _again(self, failure: NoAnswer, item: _Waiting) -> _Waiting | None:
        self.failed[failure.label] += 1
        if self.failed[failure.label] == 1:
            words = f": {failure.words}" if failure.words else ""
            self.job.log.warning("prompt %s: %s%s", item.prompt_id, failure.label, words)
        skip, now_s = self.settings["missing"] == "skip", time.monotonic()
        if failure.wait_s is not None and failure.wait_s > LONGEST_WAIT_S:
            failure.again = "never"
            failure.fix = (
                f"the endpoint asks to wait {failure.wait_s:,.0f} s; run the same command then"
            )
        if failure.again == "never" or (failure.again == "budget" and not skip):
            self.hopeless = self.hopeless or (failure, "")
            return None
        item.failures[failure.again] += 1
        tries = item.failures[failure.again]
        if tries <= self.retries.get(failure.again, 0):
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (tries - 1))
            pause_s *= random.uniform(0.5, 1.0)
            if failure.wait_s is not None:
                self.pace.pause(now_s + failure.wait_s)  # for all requests
                pause_s = max(pause_s, failure.wait_s + random.uniform(0, failure.wait_s / 20))
            item.due_s = now_s + pause_s
            return item
        self._give_up(failure, item)
        return None

    def _give_up(self, failure: NoAnswer, item: _Waiting) -> None:
        self.in_a_row += 1
        why = {"missing": failure.label, "words": failure.words}
        replied = failure.again in ("reply", "budget")
        if replied:
            columns = failure.columns | {"missing": failure.label}
            try:
                self.store.save(item.prompt_id, columns)
            except OSError as error:
                self.error = self.error or error
                return
        if item.prompt_id not in self.store.found:
            self.store.tried[item.prompt_id] = why
        tolerated = self.settings["missing"] == "skip" and replied
        if self.in_a_row >= IN_A_ROW and not (tolerated and self.store.texts()):
            row = f"{self.in_a_row} prompts in a row got no answer; the last: "
            self.hopeless = self.hopeless or (failure, row)

    def _stopping(self, failure: NoAnswer, before: str) -> str:
        """Return why the job stops, in one line."""
        names = {
            "key": self.row.get("key") or "(no key: column key of models.csv is empty)",
            "name": self.served["name"],
            "max_tokens": str(self.settings["max_tokens"]),
            "survey": self.job.wildcards.get("survey", "{survey}"),
            "skip": "" if self.store.keep_missing else ", or set missing: skip beside it",
        }
        words = f' (the endpoint says "{failure.words}")' if failure.words else ""
        fix = f"; {failure.fix}" if failure.fix else ""
        for name, value in names.items():
            fix = fix.replace(f"{{{name}}}", value)
        return (
            f"{self.served['base_url']}: {before}{failure.label}{words}{fix}; "
            f"{self.store.texts()} of {self.total} answers are saved, run the same command to "
            "resume"
        )

    def _say(self, more: str) -> None:
        spent = _spent(self.store.found.values(), self.row)
        self.job.log.info(
            "%d of %d prompts%s%s%s",
            len(self.store.found),
            self.total,
            more,
            spent,
            f"; replies without an answer: {_counts(self.failed)}" if self.failed else "",
        )


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
    notes = f" ({_counts(kinds)})" if kinds else ""
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
            f"answer ({_counts(reasons)}{said}): {names}. All other answers are saved. Run the "
            f"same command to ask for these again{skip}"
        )
    if not store.texts():
        raise ValueError(
            f"{job.params.served['base_url']}: no prompt has an answer ({_counts(kinds)}); correct "
            f"the prompts, or name and base_url in {job.params.served['catalogue']}"
        )


def _counts(kinds: Counter[str]) -> str:
    more = f", {len(kinds) - 8} other reasons" if len(kinds) > 8 else ""
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(8)) + more


def _limit(name: str, default: float, least: float) -> float:
    """Return a number from an environment variable."""
    text = os.environ.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value < float("inf"):
        raise ValueError(
            f"the environment variable {name} is {text!r}; allowed: a number of at least {least}"
        )
    return value


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


def _spent(records, row: dict) -> str:
    tokens = [record["tokens"] for record in records]
    written = sum(written or 0 for _, written in tokens)
    price = _price(row, sum(read or 0 for read, _ in tokens), written)
    return f", {written:,} tokens written" + ("" if price is None else f", {price:.2f} spent")
