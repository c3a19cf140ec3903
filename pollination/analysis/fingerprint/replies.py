"""Decide whether the reply of an OpenAI-compatible endpoint is an answer.

A reply becomes an answer, or `NoAnswer` with a label for the count, the server's own words, and
whether asking again can help. Source: OpenAI's API reference (chat completions), and what vLLM,
llama.cpp, OpenRouter, DeepSeek, Mistral, Azure and TGI add to it.
"""

import json
import math
import re
import time
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from pollination.core.sanitize import line

NO_TEXT = "no text"
LONGEST_WORDS = 300  # characters of the server's own words in a message
# Ends of a complete text, and of a text that a limit or a filter cut, in lower case.
COMPLETE = ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete")
CUT = ("length", "max_tokens", "model_length")
FILTERED = ("content_filter",)
CALLS = ("tool_calls", "function_call")
# Tags around reasoning that a server left in the text.
THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
HOPELESS = {  # codes of error bodies that no second request can cure
    "invalid_api_key",
    "model_not_found",
    "insufficient_quota",
    "context_length_exceeded",
    "invalid_request_error",
}
LOAD = (408, 409, 425, 429)  # and all from 500 on, but 501
TEXT = "text", "output_text", "content", "thinking", "reasoning", "summary"


class NoAnswer(Exception):
    """A reply that is no answer.

    label: for the count. words: the server's own reason. wait_s: pause that the server asks for.
    fix: the setting to change. columns: what the reply says besides. again: `load` (the server is
    busy or the connection broke), `slow` (no reply within the time-out), `reply` (a second reply
    may be an answer), `budget` (the limit of tokens was spent before the answer) or `never`.
    """

    def __init__(
        self,
        label: str,
        words: str = "",
        again: str = "reply",
        wait_s: float | None = None,
        fix: str = "",
        columns: dict | None = None,
    ) -> None:
        super().__init__(label)
        self.label, self.words, self.again = label, words, again
        self.wait_s, self.fix, self.columns = wait_s, fix, columns or {}


def read_reply(status: int, headers: Mapping[str, str], body: bytes) -> dict:
    """Return the columns of an answer or a refusal.

    They are output, finish_reason, reasoning, refusal, served_model and tokens (read, written). The
    output of a refusal is None. Raises NoAnswer. `headers` has names in lower case.
    """
    if status != 200:
        _raise_status(status, headers, body)
    kind = headers.get("content-type", "").lower()
    start = body[:200].lstrip().lower()
    if "html" in kind or start.startswith((b"<!doctype", b"<html")):
        raise NoAnswer(
            "web page (HTML)",
            server_words(body),
            "never",
            fix="base_url in models.csv leads to a web page; write the address of the API, which "
            "often ends in /v1",
        )
    if "event-stream" in kind or start.startswith((b"data:", b"event:")):
        raise NoAnswer(
            "stream of events",
            "",
            "never",
            fix="the endpoint streams although the request does not ask for it; write the base_url "
            "of an endpoint that does not",
        )
    found = _parse(body)
    if found.get("error") or found.get("object") == "error":
        _raise_error(found, headers, body)
    return _read_chat(found, body)


def _parse(body: bytes) -> dict:
    if not body.strip():
        raise NoAnswer("empty body")
    try:
        found = json.loads(body.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise NoAnswer("not UTF-8") from None
    except (ValueError, RecursionError):
        raise NoAnswer("not JSON", server_words(body)) from None
    if not isinstance(found, dict):
        raise NoAnswer("not a JSON object", server_words(body))
    return found


def _read_chat(found: dict, body: bytes) -> dict:
    choices = found.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise NoAnswer("no choices", server_words(body))
    choice = choices[0]
    if choice.get("error"):
        raise NoAnswer("error under status 200", server_words(json.dumps(choice).encode()))
    message = choice.get("message")
    if not isinstance(message, dict):
        raise NoAnswer("no message", server_words(body))
    content, thought, refusal = _parts(message.get("content"))
    content, tagged = split_thoughts(content)
    reasoning = (
        *(message.get(key) for key in ("reasoning_content", "reasoning", "reasoning_details")),
        thought,
        tagged,
    )
    finish = choice.get("finish_reason")
    refusal = _joined(message.get("refusal")) or refusal
    columns = {
        "output": None,
        "finish_reason": _clean(finish) if isinstance(finish, str) else None,
        "reasoning": next(filter(None, (_clean(_joined(part)) for part in reasoning)), None),
        "refusal": _clean(refusal) or None,
        "served_model": _clean(found["model"]) if isinstance(found.get("model"), str) else None,
        "tokens": _usage(found.get("usage")),
    }
    ended = finish.lower() if isinstance(finish, str) else None
    if ended in CALLS:
        raise NoAnswer("tool call", columns=columns)
    wrong = flaw(content)
    if wrong == NO_TEXT:
        if columns["refusal"]:
            return columns
        if ended in FILTERED:
            raise NoAnswer("content filter", columns=columns)
        if ended in CUT:
            raise NoAnswer(
                "no text before the limit of tokens",
                again="budget",
                columns=columns,
                fix="reasoning spent all of the {max_tokens} tokens; raise "
                "fingerprint.{survey}.collect.max_tokens{skip}",
            )
        after = " after reasoning" if columns["reasoning"] else ""
        raise NoAnswer(f"{NO_TEXT}{after}", columns=columns)
    if ended not in COMPLETE + CUT + FILTERED:
        said = "missing" if ended is None else f"{line(ended, 40)!r}"
        raise NoAnswer(f"finish reason {said}", columns=columns)
    if wrong:
        raise NoAnswer(wrong, columns=columns)
    return columns | {"output": content}


def flaw(text: str) -> str | None:
    """Return why a text cannot be an answer; None if it can."""
    if "\0" in text:
        return "NUL character"
    kinds = {unicodedata.category(character) for character in set(text) if not character.isspace()}
    if "Cs" in kinds:
        return "half of a surrogate pair"
    return None if kinds - {"Cc", "Cf"} else NO_TEXT


def _parts(content: Any) -> tuple[str, str, str]:
    """Return (text, reasoning, refusal) of a content: a string, null or a list of parts."""
    if content is None or isinstance(content, str):
        return content or "", "", ""
    if not isinstance(content, list):
        raise NoAnswer(f"content is a {_json_type(content)}")
    said: dict[str, list[str]] = {"text": [], "thought": [], "refusal": []}
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if isinstance(part, str):
            said["text"].append(part)
        elif not isinstance(part, dict):
            raise NoAnswer(f"content holds a {_json_type(part)}")
        elif kind in ("text", "output_text"):
            if not isinstance(part.get("text"), str):
                raise NoAnswer("content part without text")
            said["text"].append(part["text"])
        elif kind in ("thinking", "reasoning", "redacted_thinking"):
            said["thought"].append(_joined(part))
        elif kind == "refusal":
            said["refusal"].append(_joined(part.get("refusal")))
        else:
            raise NoAnswer(f"content part of type {line(kind, 40)!r}")
    return "".join(said["text"]), "".join(said["thought"]), "".join(said["refusal"])


def split_thoughts(text: str) -> tuple[str, str]:
    """Return (answer, reasoning) of a text in which a server left the tags of reasoning.

    A template may hold the opening tag, so a closing tag alone ends the reasoning too. An opening
    tag that is never closed leaves no answer.
    """
    for opening, closing in THOUGHTS:
        opened = text.lstrip().startswith(opening)
        if opened or (closing in text and opening not in text):
            thought, closed, answer = text.partition(closing)
            thought = thought.lstrip().removeprefix(opening).strip()
            return (answer.lstrip() if closed else "", thought)
    return text, ""


def _joined(value: Any) -> str:
    """Return the strings of a string, a list or an object of reasoning parts, in order."""

    def strings(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        for part in value if isinstance(value, list) else ():
            yield from strings(part)
        for key in TEXT if isinstance(value, dict) else ():
            yield from strings(value.get(key))

    return "".join(strings(value))


def _clean(text: str) -> str:
    """Return a text beside the answer as storable Unicode."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def _json_type(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", dict: "mapping", list: "list"}
    return names.get(type(value), "null")


def _usage(usage: Any) -> tuple[int | None, int | None]:
    """Return (tokens read, tokens written) as the server states them."""
    counts = usage if isinstance(usage, dict) else {}
    read, written = (
        value if type(value) is int and 0 <= value < 2**53 else None
        for value in (counts.get("prompt_tokens"), counts.get("completion_tokens"))
    )
    return read, written


def _raise_error(found: dict, headers: Mapping[str, str], body: bytes) -> None:
    """Raise NoAnswer for an error body under status 200."""
    error = found["error"] if isinstance(found.get("error"), dict) else found
    code = str(error.get("code") or error.get("status") or "")
    label, words = "error under status 200", server_words(body)
    if code.isdigit() and 400 <= int(code) < 600:
        try:
            _raise_status(int(code), headers, body)
        except NoAnswer as failure:
            failure.label = f"error {code} under status 200"
            # A router's own failure of this one request: it was answered, so the server is up.
            if failure.again == "load" and code not in ("429", "503"):
                failure.again = "reply"
            raise
    if {code, str(error.get("type"))} & HOPELESS:
        raise NoAnswer(label, words, "never", fix=_fix(400))
    raise NoAnswer(label, words)


def _raise_status(status: int, headers: Mapping[str, str], body: bytes) -> None:
    label, words = f"status {status}", server_words(body)
    if 300 <= status < 400:
        target = _without_secrets(headers.get("location", ""))
        fix = (
            f"the endpoint redirects to {target or 'nowhere'}, which the job does not follow; "
            "write the address that answers as base_url"
        )
        raise NoAnswer(label, words, "never", fix=fix)
    if status < 400:
        raise NoAnswer(label, words)
    code = _code(body)
    if "content_filter" in code or "content_policy_violation" in code:
        raise NoAnswer("content filter", words, columns={"finish_reason": "content_filter"})
    busy = status in LOAD or (status >= 500 and status != 501)
    if busy and "insufficient_quota" not in code:
        raise NoAnswer(label, words, "load", retry_after(headers))
    raise NoAnswer(label, words, "never", fix=_fix(402 if "insufficient_quota" in code else status))


def _fix(status: int) -> str:
    """Return what to change; the names in braces stand for the job's own."""
    return {
        401: "the endpoint rejected the key in {key}",
        402: "the account behind {key} cannot pay; add credit",
        403: "the account behind {key} may not use the model {name}; ask for access",
        404: "there is no model {name} at this address; correct name or base_url in models.csv",
        405: "the address takes no such requests; correct base_url in models.csv",
        413: "the request is too long; shorten the prompts or system",
    }.get(
        status,
        "correct what the endpoint names: name or base_url in models.csv, or temperature, "
        "max_tokens, system or the prompts (fingerprint.{survey}.collect)",
    )


def _code(body: bytes) -> set[str]:
    """Return the codes and types of an error body."""
    try:
        error = json.loads(body)["error"]
        inner = error.get("innererror")
        codes = [error.get("code"), error.get("type")]
        return set(map(str, codes + ([inner.get("code")] if isinstance(inner, dict) else [])))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return set()


def _without_secrets(url: str) -> str:
    """Return an address without user, password, query and fragment."""
    return line(re.sub(r"//[^/@]*@", "//", re.split(r"[?#]", url)[0]), 200)


def server_words(body: bytes) -> str:
    """Return the reason that a body states, or its text without tags; in one line, shortened."""
    text = body[:100_000].decode("utf-8", "replace")
    try:
        found = json.loads(body)
        error = found.get("error") or found.get("detail") or found.get("message") or ""
        if isinstance(error, dict):
            raw = error.get("metadata")
            more = raw.get("raw", "") if isinstance(raw, dict) else ""
            error = f"{error.get('message') or json.dumps(error)} {more}"
        text = error if isinstance(error, str) else json.dumps(error)
    except (ValueError, RecursionError, AttributeError):
        text = re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^>]*>", " ", text)
    return line(" ".join(text.split()), LONGEST_WORDS)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait that a server asks for: a number, or an HTTP date (RFC 9110).

    A date is compared with the server's own clock if the reply states it. None: nothing readable.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        try:
            wait_s = float(text) * unit_s
        except ValueError:
            wait_s = _seconds_until(text, headers.get("date", ""))
        if math.isfinite(wait_s) and wait_s >= 0:
            return wait_s
    return None


def _seconds_until(date: str, now: str) -> float:
    try:
        until = _moment(date)
    except (ValueError, TypeError):
        return math.nan
    try:
        return until - _moment(now)
    except (ValueError, TypeError):
        return until - time.time()


def _moment(date: str) -> float:
    moment: datetime = parsedate_to_datetime(date)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
