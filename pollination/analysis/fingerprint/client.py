"""One request to an OpenAI-compatible endpoint, whose key stays out of every message and file."""

import json
import time
from typing import Any
from urllib.parse import quote

import httpx2

from pollination import __version__
from pollination.analysis.fingerprint.replies import NoAnswer, read_reply
from pollination.core.sanitize import line
from pollination.plan.config.endpoints import Endpoint

LONGEST_BODY = 2**24  # bytes of a reply
SHORTEST_SECRET = 12  # characters; shorter keys are dummies such as EMPTY
_TIMEOUT = "raise POLLINATION_REQUEST_TIMEOUT_S if the model needs longer"


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
