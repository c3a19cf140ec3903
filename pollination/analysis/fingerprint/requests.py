"""The requests of one start of a collecting job: order, rate, retries, and when to stop."""

import math
import random
import time
from collections import Counter, deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from pollination.analysis.fingerprint import answers
from pollination.analysis.fingerprint.answers import Answers
from pollination.analysis.fingerprint.client import Client
from pollination.analysis.fingerprint.prices import spending
from pollination.analysis.fingerprint.replies import NoAnswer
from pollination.core.environment import number
from pollination.core.job import Job, Stopped

SECONDS_A_LINE = 30.0  # between two progress messages
LONGEST_WAIT_S = 900.0  # that a server may ask for; a longer one stops the job
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0  # before a retry, doubled each time
REPLY_RETRIES = 2  # after a time-out or a reply without an answer, which may cost money
IN_A_ROW = 5  # prompts without an answer that stop the job


class Pace:
    """Limit on the requests per minute, and the pause that a busy server asked for."""

    def __init__(self, a_minute: float) -> None:
        self.step_s, self.next_s = 60.0 / a_minute, 0.0

    def start(self, now_s: float) -> None:
        self.next_s = max(self.next_s, now_s) + self.step_s

    def pause(self, until_s: float) -> None:
        self.next_s = max(self.next_s, until_s)


@dataclass
class _Waiting:
    """A prompt in the queue: when it may be asked, and how often it failed in which way."""

    prompt_id: str
    due_s: float = 0.0
    failures: Counter = field(default_factory=Counter)


class Round:
    """The requests of one start of the job. Only its own thread changes its state."""

    def __init__(self, job: Job, client: Client, store: Answers, row: dict) -> None:
        self.job, self.client, self.store, self.row = job, client, store, row
        self.settings, self.served = job.params.collect, job.params.served
        self.pace = Pace(number("POLLINATION_REQUESTS_PER_MINUTE", 60, 0.001))
        self.at_once = int(number("POLLINATION_REQUESTS_AT_ONCE", 4, 1))
        retries = int(number("POLLINATION_REQUEST_RETRIES", 8, 0))
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
        spent = spending(self.store.found.values(), self.row)
        self.job.log.info(
            "%d of %d prompts%s%s%s",
            len(self.store.found),
            self.total,
            more,
            spent,
            f"; replies without an answer: {counts(self.failed)}" if self.failed else "",
        )


def counts(kinds: Counter[str]) -> str:
    """Return the most common kinds with their counts, for a message."""
    more = f", {len(kinds) - 8} other reasons" if len(kinds) > 8 else ""
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(8)) + more
