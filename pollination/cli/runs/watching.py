"""Repeat the report on a run: in place on a terminal, and once per change in a file."""

import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from pollination.cli.runs.states import Snapshot, take
from pollination.cli.runs.status import document, text
from pollination.plan.jobs import jobs
from pollination.plan.plan import Plan

ENTER, LEAVE, HOME = "\033[?1049h", "\033[?1049l", "\033[H\033[J"  # of the alternate screen


def watch(plan: Plan, every_s: float, configfile: str | None, as_json: bool) -> None:
    """Print the state of a run every `every_s` seconds until the run is complete."""
    works, seen_before = list(jobs(plan)), None
    live = sys.stdout.isatty() and not as_json
    with _screen() if live else nullcontext():
        while True:
            seen = take(plan, works)
            if live:
                _show(text(seen, configfile, bars=True))
            elif (now := _news(seen)) != seen_before:
                seen_before = now
                _print(seen, configfile, as_json)
            if seen.complete:
                break
            time.sleep(every_s)
    if live:
        print(text(seen, configfile))


def _print(seen: Snapshot, configfile: str | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps(document(seen)), flush=True)
    else:
        at = time.strftime("%Y-%m-%d %H:%M:%S")
        print(f"--- {at}\n{text(seen, configfile, bars=True)}\n", flush=True)


def _news(seen: Snapshot) -> tuple:
    """Return what must change for another report: not messages, ages and estimates."""
    queue = {key: (job.state, job.reason) for key, job in seen.driver.queue.items()}
    states = [job.state for job in seen.jobs]
    return states, seen.driver.alive, seen.driver.holder, seen.driver.problem, queue, seen.notes


def _show(screen: str) -> None:
    """Fill the terminal; lines that do not fit are cut or counted."""
    columns, rows = shutil.get_terminal_size()
    lines = screen.split("\n")
    if len(lines) > rows - 1:
        hidden = len(lines) - (rows - 2)
        lines = [*lines[: rows - 2], f"... and {hidden} more lines; enlarge the window"]
    sys.stdout.write(HOME + "\n".join(line[:columns] for line in lines))
    sys.stdout.flush()


@contextmanager
def _screen() -> Iterator[None]:
    """Use the terminal's alternate screen, and leave it however the watch ends."""

    def end(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    sys.stdout.write(ENTER)
    try:
        yield
    finally:
        sys.stdout.write(LEAVE)
        sys.stdout.flush()
        signal.signal(signal.SIGTERM, before)
