"""Follow a run: send its new points to a tracker until the run is complete."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pollination.cli.common import Progress
from pollination.cli.runs.states import take
from pollination.cli.tracking.journal import Journal, Sent
from pollination.cli.tracking.streams import Reader
from pollination.cli.tracking.trackers import Tracker
from pollination.core import sanitize
from pollination.plan.jobs import jobs
from pollination.plan.plan import Plan
from pollination.plan.saved import read_run, saved_config


@dataclass
class Counts:
    """What this process has sent, and whether the run was complete before the last pass."""

    points: int = 0
    streams: int = 0
    complete: bool = False
    stopped: bool = False


def follow(plan: Plan, tracker: Tracker, journal: Journal, every_s: float, once: bool) -> Counts:
    """Send points every `every_s` seconds until the run is complete, or `once`.

    A stop (SIGINT or SIGTERM) ends it between two deliveries.
    """
    counts, streams, told = Counts(), set(), set()
    reader, works, config = Reader(plan), list(jobs(plan)), saved_config(plan.results)
    progress = Progress("watch")
    for name, sent in list(journal.sent.items()):
        if not tracker.has(name, sent.size):
            journal.forget(name)
    with _stopping() as stop:
        while True:
            # the run may finish during the pass, so this is asked first
            counts.complete = take(plan, works).complete
            for stream in reader.read():
                if stop.is_set():
                    break
                restarts, points = journal.news(stream)
                if not points:
                    continue
                sent = journal.sent.get(stream.name, Sent())
                attempt = sent.restarts + restarts
                size = tracker.write(stream, points, attempt, sent.size)
                journal.add(stream.name, points, attempt, size)
                streams.add(stream.name)
                counts.points, counts.streams = counts.points + len(points), len(streams)
                progress.show(f"{counts.points:,} points of {len(streams):,} members, experiments")
            for path, why in reader.damaged.items():
                if path not in told:
                    told.add(path)
                    line = sanitize.line(why if path in why else f"{path}: {why}")
                    print(f"warning: {line}; skipped", file=sys.stderr)
            counts.stopped = stop.is_set()
            if once or counts.complete or counts.stopped or stop.wait(every_s):
                counts.stopped = stop.is_set()
                break
            if (now := saved_config(plan.results)) is None:
                raise ValueError(
                    f"{plan.results}: the run is gone; if it was moved, watch its new folder"
                )
            if now != config:  # snakemake had another one
                config, plan = now, read_run(plan.results)
                reader, works = Reader(plan), list(jobs(plan))
    if counts.points:
        progress.show(f"{counts.points:,} points sent", last=True)
    return counts


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Turn the first SIGINT and SIGTERM into an event; a second one acts as usual."""
    stop = threading.Event()
    before: dict[int, Any] = {}

    def request(number: int, _frame: object) -> None:
        stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for each in (signal.SIGINT, signal.SIGTERM):
        before[each] = signal.signal(each, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def journal_of(into: Path, plan: Plan) -> Journal:
    return Journal(into / f".{plan.config['run']}.sent.jsonl", Path(plan.results))
