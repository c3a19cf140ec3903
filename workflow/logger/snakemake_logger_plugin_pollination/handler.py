"""The log handler: which of Snakemake's messages are shown, and how."""

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from logging import INFO, LogRecord
from pathlib import Path
from typing import Any

from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_pollination import deaths, errors, homes, names
from snakemake_logger_plugin_pollination.screen import Screen

LONGEST = 1_000  # characters of an error on the terminal; the log has all of it
PROGRESS_S = 600.0  # between two progress lines where the output is no terminal
HELD_S = 30.0  # an error that belongs to no job is printed after this time
STOPPING_S = 60.0  # likewise after Ctrl-C, before a line names the jobs that still run
STILL_STOPPING = (
    "Still stopping. A third Ctrl-C ends Snakemake at once; then type snakemake --unlock before "
    "the same command."
)
RESUME = "Type the same command to resume."
# Messages without news for a reader. The complete log has them. All others are shown.
NOISE = (
    "Activating ",  # the environment of each job
    "Adding ",  # a file to the report
    "Assuming unrestricted shared filesystem",
    "Building DAG of jobs",
    "Cleaning up SLURM log files",
    "Conda environments: ignored",
    "DAG of jobs will be updated",
    "Exiting because a job execution failed",
    "Group jobs: inactive",
    "Loading script code for rule",
    "Provided resources: ",
    "Reasons:\n",
    "Removing output files of failed job",
    "Rules claiming more threads",
    "Rules with provenance triggered jobs",
    "Select jobs to execute",
    "Shutting down, this might take some time",
    "Singularity containers: ignored",
    "Some jobs were triggered by provenance information",
    "Touching output file",
    "Updating checkpoint dependencies",
    "Using shell: ",
)
SUBMITTED = re.compile(r"Job (\S+) has been submitted with SLURM jobid (\S+) \(log: (.*)\)\.")
CLUSTER_ADVICE = re.compile(r"(?:Detailed failure reason unavailable|For further error details).*")
ONE_FAILED = "At least one job did not complete successfully"
WITHOUT_NEWS = (
    LogEvent.WORKFLOW_STARTED,
    LogEvent.RULEGRAPH,
    LogEvent.JOB_STARTED,
    LogEvent.DEBUG_DAG,
    LogEvent.PROGRESS,
    LogEvent.GROUP_ERROR,  # the errors of its jobs follow
)


@dataclass
class Running:
    """A job that runs, or waits in the queue of a cluster."""

    name: str
    rule: str
    log: errors.Log | None
    started_s: float = field(default_factory=time.monotonic)
    cluster_id: str | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started_s


class LogHandler(LogHandlerBase):
    """One line per job, a progress line, one block per failure; errors of the workflow in full.

    With --verbose or --debug-dag, all is shown as Snakemake shows it.
    """

    def __post_init__(self) -> None:
        settings = self.common_settings
        self.quiet = set(settings.quiet or ())
        stream = sys.stdout if settings.stdout else sys.stderr
        self.plain: ColorizingTextHandler | None = None
        if moved := homes.move_caches():
            print(moved, file=stream)
        if settings.verbose or settings.debug_dag:
            self.plain = ColorizingTextHandler(
                settings.nocolor, stream, DefaultFormatter(self.quiet, settings.show_failed_logs)
            )
            self.plain.addFilter(
                DefaultFilter(
                    self.quiet,
                    settings.debug_dag,
                    settings.verbose,
                    settings.dryrun,
                    settings.printshellcmds,
                )
            )
            return
        self.screen = Screen(stream)
        self.started_s = time.monotonic()
        self.running: dict[int, Running] = {}
        self.failed: dict[int, Running] = {}
        self.counts: dict[str, int] = {}  # jobs to run, by rule
        self.done: dict[str, list[float]] = {}  # seconds of the finished jobs, by rule
        self.reasons: list[tuple[str, str]] = []
        # Errors of worker threads, and when they came, until their job is named.
        self.held: dict[int, tuple[float, str]] = {}
        self.group: list[int] = []  # the jobs of the group that is submitted next
        self.workers = ""
        self.stopping: str | None = None  # "now" after Ctrl-C, "later" after SIGTERM
        self.stopped_s = 0.0
        self.saved = self.without_checkpoint = 0
        self.interrupts = 0
        self.interrupted = threading.Event()
        self.over = False
        self.complete_log: Path | None = None
        self.ended = threading.Event()
        self.stderr: errors.Stderr | None = None
        self.kernel = deaths.Kernel()
        try:
            self.stderr = None if settings.dryrun else errors.Stderr()
        except OSError as error:
            sys.exit(f"error: {homes.no_temporary(error)}")
        self._watch_interrupts()
        if not settings.dryrun:
            threading.Thread(target=self._tick, daemon=True).start()

    @property
    def writes_to_stream(self) -> bool:
        return True

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return True

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False

    def emit(self, record: LogRecord) -> None:
        try:
            if self.plain is not None:
                self.plain.handle(record)
            elif Quietness.ALL not in self.quiet or self.common_settings.dryrun:
                self._show(record)
        except Exception:  # a message is never lost to a fault of this class
            print(record.getMessage(), file=sys.stderr)
            self.handleError(record)

    def close(self) -> None:
        """Say how the run ended if Snakemake did not come to say it."""
        if self.plain is None and not self.ended.is_set():
            self.ended.set()
            with self._alone():
                for _, text in self.held.values():
                    self.screen.print(text)
                self.screen.status("")
                if self.stopping or self.interrupted.is_set():
                    self._end()
        super().close()

    # What Snakemake says

    def _show(self, record: LogRecord) -> None:
        event = getattr(record, "event", None)
        data: dict[str, Any] = record.__dict__
        if event == LogEvent.RUN_INFO:
            self._run_info(data["stats"])
        elif event == LogEvent.RESOURCES_INFO:
            self._resources(data)
        elif event == LogEvent.JOB_INFO:
            self._job_info(data)
        elif event == LogEvent.GROUP_INFO:
            self.group = [job.jobid for job in data["jobs"]]
        elif event == LogEvent.JOB_FINISHED:
            self._job_finished(data["job_id"])
        elif event == LogEvent.JOB_ERROR:
            self._job_error(data)
        elif event == LogEvent.ERROR:
            self._error(record, data)
        elif event == LogEvent.SHELLCMD:
            command = data.get("shellcmd") or data.get("cmd")
            if self.common_settings.printshellcmds and command:
                self.screen.print(command)
        elif event not in WITHOUT_NEWS:
            self._message(record)
        self._status()

    def _run_info(self, stats: dict[str, int]) -> None:
        if self.counts:
            return
        self.counts = {rule: count for rule, count in stats.items() if rule != "total"}
        total = names.jobs(stats["total"])
        if self.common_settings.dryrun:
            self.screen.print(f"{total} to run:\n\n{names.table(self.counts)}\n")
        elif not self._is_quiet():
            self.screen.print(f"{total} to run{self.workers}")

    def _resources(self, data: dict[str, Any]) -> None:
        if "cores" in data:
            self.workers = f" on {data['cores']} core" + ("s" if data["cores"] > 1 else "")
        elif "nodes" in data:
            self.workers = f", at most {data['nodes']} submitted at a time"

    def _job_info(self, data: dict[str, Any]) -> None:
        rule = data["rule_name"]
        if self.common_settings.dryrun:
            self.reasons.append((rule, data["reason"]))
            return
        name = names.job(rule, data["wildcards"] or {})
        self.running[data["jobid"]] = Running(name, rule, _log(data["log"]))

    def _job_finished(self, number: int) -> None:
        job = self.running.pop(number, None)
        if job is None:
            return
        self.failed.pop(number, None)
        self.done.setdefault(job.rule, []).append(job.seconds)
        if not self._is_quiet():
            count = f"[{self._finished():{len(str(self._total()))}}/{self._total()}]"
            self._print_timed(f"{count}  {job.name}  ({self._details(job)})")

    def _job_error(self, data: dict[str, Any]) -> None:
        _, exception = self.held.pop(data["thread"], (0.0, ""))
        job = self.running.pop(data["jobid"], None)
        logs = [str(log) for log in data["log"]]
        if job is None:
            job = Running(data["rule_name"], data["rule_name"], _log(logs))
        said, where = self._what_it_said(job, logs, exception, data["rule_msg"] or "")
        if "SIGINT" in said or said == "KeyboardInterrupt":
            self.interrupted.wait(0.5)  # the job may report Ctrl-C before Snakemake notices it
        if self.interrupted.is_set() or (self.stopping and re.search(r"\bSIG(TERM|INT)\b", said)):
            saved = re.search(r"\bsaved\b", said) and not re.search(r"\b(no|0) \w+ saved\b", said)
            self.saved += bool(saved)
            self.without_checkpoint += not saved
            return
        self.failed[data["jobid"]] = job
        block = [f"failed: {job.name}  ({self._details(job)})", f"  error: {said}"]
        self._print_timed("\n".join([*block, *([f"  log: {where}"] if where else [])]))
        if self.common_settings.show_failed_logs and where and Path(where).is_file():
            self.screen.print(Path(where).read_text(errors="replace").rstrip())

    def _what_it_said(
        self, job: Running, logs: list[str], exception: str, message: str
    ) -> tuple[str, str | None]:
        """Return the error of a failed job, and the path of the log that has it."""
        written = job.log.added() if job.log else ""
        said = errors.last_error(written)
        file = self.stderr.of(exception) if self.stderr else None
        if file is not None and file.is_file():
            rest = errors.tail(file)
            seen = set(written.splitlines())
            unseen = [text for text in rest.splitlines() if text and text not in seen]
            if errors.last_line(rest).startswith("KeyboardInterrupt"):
                unseen = []  # Ctrl-C while it started: the traceback says nothing more
            if unseen and not (job.log and job.log.append("stderr of the job:", *unseen)):
                self.screen.print("\n".join(unseen))
            file.unlink()
            said = said or errors.last_line(rest)
        said = said.removeprefix("error: ").removeprefix(f"{job.rule}: ")
        how = deaths.how_it_ended(exception, self.kernel)
        if "killed by" in how and job.log and not errors.last_error(written):
            job.log.append(f"{time.strftime('%F %T')},000 ERROR error: {job.rule}: {_told(how)}")
        if exception and not how:  # not a script: Snakemake's own message is all there is
            said = said or exception
        elif not said:
            said = message or how or "it wrote no error message"
        elif "killed by" in how and "SIG" not in said:
            said = f"{how}; last line: {said}"
        where = job.log.path if job.log else None
        if message and not errors.last_error(written) and len(logs) > bool(where):
            where = logs[-1]  # the log of the cluster's job
            raised = errors.last_raised(errors.Log(where, 0).added())
            said = "; ".join(filter(None, [CLUSTER_ADVICE.sub("", said).strip(" ."), raised]))
        return names.line(said)[:LONGEST] if how or message else said[:LONGEST], where

    def _error(self, record: LogRecord, data: dict[str, Any]) -> None:
        text = record.getMessage()
        if record.threadName != "MainThread" and record.thread is not None:
            self._let_go(record.thread)
            self.held[record.thread] = (time.monotonic(), text)
        elif data.get("exception") == "WorkflowError" and ONE_FAILED in text and self.over:
            return
        elif data.get("exception") == "LockException":
            hint = "If no other snakemake works in this directory, type: snakemake --unlock"
            self.screen.print(f"{text}\n{hint}\nThen type the same command again.")
        elif refused := errors.of_configfile(text) or errors.of_system(text):
            self.screen.print(refused)
        else:
            if match := re.search(r"\bJob +(\d+) +completed successfully, but", text):
                job = self.running.pop(int(match.group(1)), None)
                if job is not None:
                    self.failed[int(match.group(1))] = job
                    text = f"{_now()}  failed: {job.name}  ({self._details(job)})\n{text}"
            self.screen.print(text)

    def _message(self, record: LogRecord) -> None:
        text = record.getMessage()
        if record.thread is not None:
            self._let_go(record.thread)
        if text.startswith("Terminating processes on user request"):
            self._stop("now")
        elif text.startswith("Will exit after finishing currently running jobs"):
            self._stop("later")
        elif text.startswith("This was a dry-run"):
            if self.reasons and Quietness.REASON not in self.quiet:
                self.screen.print(names.reasons(self.reasons))
            self.screen.print("This was a dry run: no job ran.")
        elif match := re.match(r"Complete log\(s\): (.*)", text):
            self.complete_log = Path(match.group(1).split(", ")[0])
            if self.stderr:
                with suppress(OSError):
                    self.stderr.keep(self.complete_log)
        elif text.startswith("Elapsed time: "):
            self._end()
        elif match := SUBMITTED.match(text):
            self._submitted(*match.groups())
        elif match := re.match(r"Trying to restart job (\d+)\.", text):
            if self.stopping:  # Snakemake starts no job any more
                return
            job = self.failed.pop(int(match.group(1)), None)
            self._print_timed(f"retry: {job.name if job else text}")
        elif not text.startswith(NOISE) and (record.levelno > INFO or not self._is_quiet()):
            self.screen.print(text)

    # What this class adds

    def _submitted(self, number: str, cluster_id: str, cluster_log: str) -> None:
        members = [int(number)] if number.isdigit() else self.group
        jobs = [self.running[member] for member in members if member in self.running]
        for job in jobs:
            job.cluster_id = cluster_id
        name = ", ".join(job.name for job in jobs) or f"job {number}"
        log = next((job.log.path for job in jobs if job.log), cluster_log)
        if not self._is_quiet():
            self._print_timed(f"submitted: {name}  (Slurm job {cluster_id}, log {log})")

    def _stop(self, when: str) -> None:
        if self.stopping is None:
            self.stopped_s = time.monotonic()
            if when == "later":
                self.screen.print(
                    f"Stopping: {names.jobs(len(self.running))} still running; Snakemake starts no "
                    "other and exits when they finish. Ctrl-C stops them now."
                )
        self.stopping = when

    def _end(self) -> None:
        """Print the last lines of a run: how many jobs finished, failed and remain."""
        if self.over:
            return
        self.over = True
        self.screen.status("")
        if self.stopping or self.interrupted.is_set():
            self.screen.print(self._stopped())
        elif self.failed:
            self.screen.print(self._summary())
        elif not self._is_quiet() and self.counts:
            took = names.duration(time.monotonic() - self.started_s)
            left = self._total() - self._finished()
            if left:
                text = f"Ended with an error; {names.jobs(left)} did not finish."
            else:
                text = f"Finished: {names.jobs(self._finished())} in {took}."
            self.screen.print(text)
        if self.failed and self.stopping:
            self.screen.print(f"Failed before that:\n{self._list_of_failed()}")

    def _stopped(self) -> str:
        """Return the one line that follows Ctrl-C or SIGTERM."""
        if not self.counts:
            return "Stopped before any job started."
        remote = sum(job.cluster_id is not None for job in self.running.values())
        count = self.saved + self.without_checkpoint + len(self.running) - remote
        parts = []
        if count:
            were = f"{names.jobs(count)} {'was' if count == 1 else 'were'} running"
            parts.append(f"{were}; {self.saved or 'none'} saved a checkpoint")
        if remote:
            parts.append(f"{names.jobs(remote)} on the cluster cancelled; they save as they end")
        return f"Stopped: {'; '.join(parts)}. {RESUME}" if parts else f"Stopped. {RESUME}"

    def _summary(self) -> str:
        text = f"{len(self.failed)} of {names.jobs(self._total())} failed"
        left = self._total() - self._finished() - len(self.failed)
        if not self._is_quiet():  # else Snakemake does not say which jobs finished
            text += f", {self._finished()} finished" + (f", {left} not started" if left else "")
        text += "."
        lines = [text, self._list_of_failed(), f"Remove the cause. {RESUME}"]
        if self.complete_log:
            lines.append(f"Complete log: {self.complete_log}")
        return "\n".join(lines)

    def _list_of_failed(self) -> str:
        return "\n".join(
            f"  {job.name}" + (f"  (log {job.log.path})" if job.log else "")
            for job in self.failed.values()
        )

    def _tick(self) -> None:
        """Rewrite the progress line each second; without a terminal, print it now and then."""
        printed_s, told, warned = time.monotonic(), False, False
        while not self.ended.wait(1.0):
            with self._alone():
                for thread, (held_s, _) in list(self.held.items()):
                    if time.monotonic() - held_s > HELD_S:
                        self._let_go(thread)
                if self.interrupts > 1 and not warned:
                    warned = True
                    self.screen.print(STILL_STOPPING)
                self._status()
                now_s = time.monotonic()
                if self.screen.live or self.over or not self.running:
                    continue
                stopping = self.stopping == "now" and now_s - self.stopped_s > STOPPING_S
                if (stopping and not told) or now_s - printed_s >= PROGRESS_S:
                    printed_s, told = now_s, stopping
                    if not self._is_quiet():
                        self._print_timed(self._progress())

    def _status(self) -> None:
        if self.counts and not (self.common_settings.dryrun or self.over or self._is_quiet()):
            self.screen.status(self._progress())

    def _progress(self) -> str:
        running = ", ".join(job.name for job in self.running.values())
        if self.stopping == "now":
            return f"Stopping: waiting for {names.jobs(len(self.running))}: {running}"
        elapsed = names.duration(time.monotonic() - self.started_s)
        left_s = self._left_s()
        parts = [
            f"[{self._finished()}/{self._total()}]",
            f"{len(self.failed)} failed," if self.failed else "",
            f"{elapsed}," if left_s is None else f"{elapsed}, about {names.duration(left_s)} left,",
            f"{len(self.running)} running: {running}",
        ]
        return "  ".join(part for part in parts if part)

    def _left_s(self) -> float | None:
        """Return the estimated seconds left; None while too few jobs have finished.

        A job takes as long as the finished jobs of its rule, or as the mean job. As many jobs run
        at a time as have until now.
        """
        spent_s = sum(map(sum, self.done.values()))
        finished = self._finished()
        if finished < max(5, self._total() / 20) or not spent_s:
            return None
        mean_s = spent_s / finished
        work_s = -sum(job.seconds for job in self.running.values())
        for rule, count in self.counts.items():
            seconds = self.done.get(rule, [])
            rule_s = sum(seconds) / len(seconds) if seconds else mean_s
            work_s += (count - len(seconds)) * rule_s
        elapsed_s = time.monotonic() - self.started_s
        at_once = max(
            1.0, (spent_s + sum(job.seconds for job in self.running.values())) / elapsed_s
        )
        return max(0.0, work_s / at_once)

    def _details(self, job: Running) -> str:
        cluster = f", Slurm job {job.cluster_id}" if job.cluster_id else ""
        return names.duration(job.seconds) + (f" since submission{cluster}" if cluster else "")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock that Python's logging holds around `emit`."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def _let_go(self, thread: int) -> None:
        """Print an error that belongs to no job."""
        if thread in self.held:
            self.screen.print(self.held.pop(thread)[1])

    def _print_timed(self, text: str) -> None:
        self.screen.print(f"{_now()}  {text}")

    def _finished(self) -> int:
        return sum(map(len, self.done.values()))

    def _total(self) -> int:
        return sum(self.counts.values())

    def _is_quiet(self) -> bool:
        return bool({Quietness.PROGRESS, Quietness.RULES, Quietness.ALL} & self.quiet)

    def _watch_interrupts(self) -> None:
        """Notice Ctrl-C at once, and let it end the process without a traceback.

        A second one must not break off Snakemake's wait for its jobs; a third one does.
        """
        before = signal.getsignal(signal.SIGINT)
        if not callable(before) or threading.current_thread() is not threading.main_thread():
            return

        def notice(number: int, frame: Any) -> Any:
            self.interrupts += 1
            self.interrupted.set()
            if self.interrupts == 1:
                return before(number, frame)
            if self.interrupts > 2:
                os._exit(128 + number)

        signal.signal(signal.SIGINT, notice)
        shown, ignored = sys.excepthook, sys.unraisablehook

        def quiet_end(kind: type[BaseException], error: BaseException, trace: Any) -> None:
            if not issubclass(kind, KeyboardInterrupt):
                shown(kind, error, trace)

        def quiet_ignored(raised: Any) -> None:
            if not issubclass(raised.exc_type, KeyboardInterrupt):
                ignored(raised)

        sys.excepthook, sys.unraisablehook = quiet_end, quiet_ignored


def _told(how: str) -> str:
    """Return how a job ended as its log says it: a job that was asked to end was stopped."""
    if re.match(r"killed by SIG(INT|TERM|HUP|QUIT)$", how):
        return f"{how.replace('killed', 'stopped')} before it could save"
    return how


def _now() -> str:
    return time.strftime("%H:%M:%S")


def _log(logs: Any) -> errors.Log | None:
    return next((errors.Log(str(log)) for log in logs), None)
