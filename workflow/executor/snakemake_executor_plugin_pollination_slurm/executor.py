"""The executor: submits jobs until Slurm accepts them, and watches them until they end."""

import json
import os
import re
import shlex
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import snakemake_executor_plugin_slurm as slurm
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import get_job_wildcards
from snakemake_executor_plugin_slurm.validation import (
    validate_or_get_slurm_job_id,
    validate_slurm_extra,
)
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_logger_plugin_pollination import deaths, errors, names

from snakemake_executor_plugin_pollination_slurm import causes, gpus, steps
from snakemake_executor_plugin_pollination_slurm.commands import Entry, NoAnswer, call, queue

SUBMIT_S = 120.0  # for sbatch, which itself retries while the controller is busy
FIRST_RETRY_S, LAST_RETRY_S = 5.0, 300.0
FIRST_NOTICE_S, LAST_NOTICE_S = 30.0, 3600.0  # silence of Slurm before a message
LONGEST_PAUSE_S = 180.0  # between two status checks
UNLISTED = 3  # successful checks without a job before it counts as lost
# A running job renews its lease at each beat; Slurm may list a job as running that has ended.
SILENT_S = 600.0
with suppress(ValueError):  # the Snakefile refuses a wrong value in one line
    SILENT_S = 60 * float(os.environ.get("POLLINATION_BEAT_S") or 10)
BETWEEN = ("PREEMPTED", "NODE_FAIL")  # states that a requeued job may pass through


@dataclass
class Watch:
    """What the executor knows of a submitted job."""

    logs: list[tuple[Any, errors.Log]]  # of each job in the group, or of the one job
    before: list[Any]  # of each output file, what `_stamp` returned before the submission
    slurm_log: Path | None = None
    entry: Entry | None = None
    unlisted: int = 0
    unlisted_s: float = 0.0
    running_s: float | None = None
    silent: str = ""
    between: int = 0


def _jobs(job) -> list:
    """Return the jobs of a group; a job that is no group is returned alone."""
    return list(job.jobs) if job.is_group() else [job]


def _name(job) -> str:
    return ", ".join(names.job(one.rule.name, dict(one.wildcards.items())) for one in _jobs(job))


def _rule(job) -> str:
    return _jobs(job)[0].rule.name


def _outputs(job) -> list[Path]:
    return [Path(path) for one in _jobs(job) for path in one.output]


def _stamp(path: Path) -> Any:
    """Return what changes when a file is written again, by any clock; None if it is missing."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _last_beat_s(job) -> float:
    """Return when a job last renewed a lease, in seconds since 1970; now, if it has none."""
    beats = []
    for folder in {path.parent for path in _outputs(job)}:
        for lease in folder.glob(".*.work/lease.*"):
            with suppress(OSError):
                beats.append(lease.stat().st_mtime)
    return max(beats, default=time.time())


class Executor(slurm.Executor):
    """The Slurm plugin's executor with its own submission, status checks and cancellation."""

    def __init__(self, workflow, logger) -> None:
        # Set first: the thread that watches the jobs starts before __post_init__.
        self.stopping = threading.Event()
        self.refused: dict[str, str] = {}  # permanent errors, and the first job of each
        self.final: set[int | str] = set()  # ids of jobs that must not be retried
        self.told: set[tuple[str, str]] = set()  # reasons for waiting that were printed
        self.silent_s: float | None = None  # since when the status checks fail
        self.notice_s = FIRST_NOTICE_S
        self.problems: dict[str, str] = {}  # of "sbatch" and "squeue", for `pollination status`
        self.listed = 0  # jobs in jobs.json
        self.in_step: Any = None  # whose command is being written
        super().__init__(workflow, logger)

    def __post_init__(self, test_mode: bool = False) -> None:
        super().__post_init__(test_mode)
        # Without a value, sbatch takes the user's default account and the default partition.
        self._fallback_account_arg = self._fallback_partition = ""
        # One thread: after an error, the jobs behind wait too, and one message says so.
        self._job_submission_executor = ThreadPoolExecutor(1, "slurm_job_submit")

    # Submission

    def get_account_arg(self, job) -> Iterator[str]:
        """Yield the option for the account. Slurm itself checks it; sacctmgr may not be there."""
        account = str(job.resources.get("slurm_account") or "")
        yield f" -A {shlex.quote(re.split(r'[, ]+', account)[0])}" if account else ""

    def run_job(self, job) -> None:
        """Submit a job. Wait and retry while Slurm refuses it for a reason that may pass."""
        watch = Watch(
            [(one, errors.Log(str(log))) for one in _jobs(job) for log in one.log[:1]],
            [_stamp(path) for path in _outputs(job)],
        )
        try:
            self._submit(SubmittedJobInfo(job, aux={"watch": watch}))
        except Exception as error:  # the thread's pool would hide it, and the run would hang
            text = f"{type(error).__name__}: {error}"
            self.final.add(job.jobid)
            self.report_job_error(SubmittedJobInfo(job), msg=f"Submission failed: {text}.")

    def _submit(self, info: SubmittedJobInfo) -> None:
        job, watch, mark = info.job, info.aux["watch"], os.urandom(4).hex()
        try:
            command, script, log = self._sbatch(job, mark)
        except (WorkflowError, OSError) as error:
            return self._refuse(info, " ".join(str(error).split()), None)
        pause_s = FIRST_RETRY_S
        while not self._must_stop():
            try:
                number = self._find(mark) if pause_s > FIRST_RETRY_S else None
                if number is None:
                    out = call(command, SUBMIT_S, script)
                    number = validate_or_get_slurm_job_id(out.strip().split(";")[0], out)
            except (NoAnswer, WorkflowError) as error:
                text = " ".join(str(error).split())
            else:
                self.problems.pop("sbatch", None)
                info.external_jobid = number
                watch.slurm_log = log.with_name(log.name.replace("%j", number))
                self.logger.info(
                    f"Job {job.jobid} has been submitted with SLURM jobid {number} "
                    f"(log: {watch.slurm_log})."
                )
                return self.report_job_submission(info)
            if key := causes.permanent(text):
                return self._refuse(info, text, key)
            self.problems["sbatch"] = f"Slurm accepts no job: {text}"
            self.logger.warning(
                f"Slurm did not accept {_name(job)}: {text}. The next try is in {pause_s:.0f} s; "
                "waiting costs no attempt."
            )
            end_s = time.monotonic() + pause_s
            while time.monotonic() < end_s and not self._must_stop():
                self.stopping.wait(0.5)
            pause_s = min(2 * pause_s, LAST_RETRY_S)
        self.final.add(job.jobid)
        self.report_job_error(info, msg="Not submitted, because of SIGTERM or SIGINT.")

    def _sbatch(self, job, mark: str) -> tuple[str, str | None, Path]:
        """Return the command for a job, its script for stdin, and Slurm's log with %j."""
        validate_slurm_extra(job)
        for name in ("cluster", "clusters", "slurm_cluster"):
            if job.resources.get(name):
                raise WorkflowError(f"remove {name}: this executor asks one cluster only")
        kind, wildcards = "group" if job.is_group() else "rule", get_job_wildcards(job)
        log = self.slurm_logdir / f"{kind}_{job.name}" / wildcards / "%j.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        params = {
            "run_uuid": self.run_uuid,
            "slurm_logfile": log,
            "comment_str": "_".join(filter(None, ["rule", job.name, wildcards, mark])),
            "account": next(self.get_account_arg(job)),
            "partition": self.get_partition_arg(job),
            "workdir": self.workflow.workdir_init,
        }
        settings = self.workflow.executor_settings
        command = get_submit_command(
            job, params, settings=settings, failed_nodes=self._failed_nodes
        )
        command += gpus.one_task(job) + gpus.arguments(job)
        work = self.format_job_exec(job)
        if settings.pass_command_as_script:
            return f"{command} /dev/stdin", f"#!/bin/sh\n{work}", log
        work = work.replace('"', '\\"')
        return f'{command} --wrap="{work}"', None, log

    def format_job_exec(self, job) -> str:
        """Return the command that Slurm runs. Only the one thread that submits jobs asks for it.

        The command of an MPI job starts its own step, so it gets the plugin's.
        """
        self.in_step = None if "mpi" in job.resources.keys() else job
        command = super().format_job_exec(job)
        return f"{steps.step(job)} {command}" if self.in_step else command

    def additional_general_args(self) -> str:
        return steps.arguments(self.in_step) if self.in_step else super().additional_general_args()

    def _find(self, mark: str) -> str | None:
        """Return the id of a job that Slurm accepted although sbatch failed, e.g. timed out."""
        for number, entry in queue(self.run_uuid).items():
            if entry.comment.endswith(mark) and entry.reason != "BadConstraints":
                return number
        return None

    def _refuse(self, info: SubmittedJobInfo, text: str, key: str | None) -> None:
        """Report a job that Slurm will never accept; name each cause once, and do not retry."""
        if first := self.refused.get(text):
            why = f"Not submitted, for the same reason as {first}"
        else:
            self.refused[text] = _name(info.job)
            what = f"change {key} in {causes.PROFILE}" if key else "correct it"
            who = "Slurm refuses this job" if key else "This job cannot be submitted"
            why = f"{who}: {text.rstrip('.')}; {what}, and type the same command"
        self.final.add(info.job.jobid)
        self._fail(info, why)

    def handle_job_error(self, job) -> None:
        """Called by Snakemake before it decides whether to retry a job."""
        super().handle_job_error(job)
        if job.jobid in self.final:
            job.attempt = max(job.attempt, job.restart_times + 1)

    def _must_stop(self) -> bool:
        return self.stopping.is_set() or bool(
            getattr(self.workflow.scheduler, "_user_kill", None)  # SIGTERM
        )

    # Status

    def _wait_thread(self) -> None:
        """Watch the jobs until shutdown. A job stays in `active_jobs` until it is reported."""
        first_s = pause_s = float(self.workflow.executor_settings.init_seconds_before_status_checks)
        while self._pause(pause_s):
            with self.lock:
                jobs = list(self.active_jobs)
            try:
                soon = not jobs or self._check(jobs)
                pause_s = first_s if soon else min(pause_s + 10, LONGEST_PAUSE_S)
                self._write()
            except Exception as error:  # the jobs stay, and the next check tries again
                pause_s = first_s
                self._silence(f"the check failed: {type(error).__name__}: {error}")

    def _pause(self, seconds: float) -> bool:
        """Wait; return False as soon as the executor shuts down."""
        end_s = time.monotonic() + seconds
        while self.wait and time.monotonic() < end_s:
            time.sleep(0.2)
        return self.wait

    def _check(self, jobs: list[SubmittedJobInfo]) -> bool:
        """Report jobs that have ended; return whether the next check should come soon."""
        try:
            entries = queue(self.run_uuid)
        except NoAnswer as error:
            self._silence(f"Slurm does not answer: {error}")
            return True
        soon, broken = False, None
        for info in jobs:
            entry = entries.get(info.external_jobid)
            try:
                soon |= self._judge(info, entry) if entry else self._look_for(info)
            except Exception as error:  # must not keep the others from being judged
                broken = error
        if broken:
            raise broken
        self._tell_held(jobs)
        self._tell_silent(jobs)
        if self.notice_s > FIRST_NOTICE_S:
            self.logger.warning(f"Slurm answers again; {names.jobs(len(jobs))} watched.")
        self.silent_s, self.notice_s = None, FIRST_NOTICE_S
        self.problems.pop("squeue", None)
        return soon

    def _silence(self, text: str) -> None:
        """Note that the status is unknown; say so after 30 s, and then at growing pauses."""
        now_s = time.monotonic()
        self.silent_s = now_s if self.silent_s is None else self.silent_s
        since_s = now_s - self.silent_s
        since = time.strftime("%H:%M:%S", time.localtime(time.time() - since_s))
        self.problems["squeue"] = f"since {since}: {text}"
        if since_s >= self.notice_s:
            self.notice_s = since_s + min(since_s, LAST_NOTICE_S)
            self.logger.warning(
                f"Since {since} ({names.duration(since_s)}), the state of "
                f"{names.jobs(len(self.active_jobs))} is unknown: {text}. The jobs are not lost; "
                "Snakemake asks again."
            )

    def _judge(self, info: SubmittedJobInfo, entry: Entry) -> bool:
        """Report a job if its state says that it has ended; return whether it did."""
        watch = info.aux["watch"]
        watch.entry, watch.unlisted = entry, 0
        most = self.workflow.executor_settings.max_requeues
        if entry.state == "COMPLETED":
            self._succeed(info)
        elif (
            entry.state in BETWEEN and self.workflow.executor_settings.requeue and not watch.between
        ):
            watch.between += 1
        elif entry.state in causes.FAILED:
            self._fail(info, self._why(info, entry.state))
        elif most and entry.restarts > most:
            call(("scancel", info.external_jobid))
            self.final.add(info.job.jobid)
            self._fail(
                info,
                f"Slurm requeued job {info.external_jobid} {entry.restarts} times, so Snakemake "
                f"cancelled it. Look for a bad node with `sinfo -R`, or raise "
                f"pollination-slurm-max-requeues ({most}) in {causes.PROFILE}, and type the same "
                "command",
            )
        else:
            watch.between = 0
            return False
        return True

    def _look_for(self, info: SubmittedJobInfo) -> bool:
        """Judge by its files a job that Slurm no longer lists; return True."""
        watch = info.aux["watch"]
        now = [_stamp(path) for path in _outputs(info.job)]
        if now and all(new and new != old for new, old in zip(now, watch.before, strict=True)):
            self._succeed(info)
            return True
        watch.unlisted_s = watch.unlisted_s if watch.unlisted else time.monotonic()
        watch.unlisted += 1
        patience_s = self.workflow.execution_settings.latency_wait
        if watch.unlisted >= UNLISTED and time.monotonic() - watch.unlisted_s >= patience_s:
            self._fail(info, self._why(info, "LOST"))
        return True

    def _succeed(self, info: SubmittedJobInfo) -> None:
        if not self.workflow.executor_settings.keep_successful_logs:
            with suppress(OSError):
                info.aux["watch"].slurm_log.unlink(missing_ok=True)
        self.report_job_success(info)

    def _fail(self, info: SubmittedJobInfo, why: str | None) -> None:
        """Report a failed job; append the cause to its log, unless the job has written it."""
        watch, now_s = info.aux["watch"], time.time()
        stamp = (
            f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now_s))},{now_s % 1 * 1000:03.0f}"
        )
        for one, log in watch.logs if why else ():
            if not info.job.is_group() or not all(map(os.path.exists, one.output)):
                log.append(f"{stamp} ERROR {names.line(f'error: {one.rule.name}: {why}')}")
        slurm_log = [str(watch.slurm_log)] if watch.slurm_log else []
        self.report_job_error(info, msg=f"{why}." if why else None, aux_logs=slurm_log)

    def report_job_success(self, info: SubmittedJobInfo) -> None:
        super().report_job_success(info)
        self._forget(info)

    def report_job_error(self, info: SubmittedJobInfo, msg=None, **kwargs) -> None:
        super().report_job_error(info, f"{msg} " if msg else None, **kwargs)
        self._forget(info)

    def _forget(self, info: SubmittedJobInfo) -> None:
        with self.lock:
            self.active_jobs[:] = [one for one in self.active_jobs if one is not info]

    # Causes

    def _slurm_said(self, watch: Watch) -> str:
        return errors.Log(str(watch.slurm_log), 0).added()

    def _why(self, info: SubmittedJobInfo, state: str) -> str | None:
        """Return why a job ended and what follows, in one line; None if its log has said it."""
        watch, job = info.aux["watch"], info.job
        slurm_said = self._slurm_said(watch)
        own = next(filter(None, (errors.last_error(log.added()) for _, log in watch.logs)), "")
        own = own.removeprefix("error: ").removeprefix(f"{_rule(job)}: ")
        if state in ("FAILED", "CANCELLED", "LOST"):  # Slurm cancels jobs that use too much memory
            state = causes.sign(slurm_said) or state
        who = f"Slurm job {info.external_jobid}"
        if state in causes.ENDED:
            why = f"{who} {causes.ENDED[state]}"
        elif own and state == "FAILED":
            return None
        elif state == "FAILED" and (refused := re.findall(r"(?m)^error: (.*)$", slurm_said)):
            return refused[-1].rstrip(".")  # of the Snakefile, before the job's script started
        else:
            last = own or errors.last_raised(slurm_said) or deaths.how_it_ended(slurm_said)
            lost = "is unknown to Slurm, and its output files are missing"
            why = f"{who} {lost if state == 'LOST' else 'failed'}"
            own = errors.explained(last) or last or "it wrote no error message"
        if own:
            why += f" ({own.rstrip('.')})"
        return f"{why}; {self._next(job, state)}"

    def _next(self, job, state: str) -> str:
        """Return what Snakemake does next with a failed job, or what the user must do."""
        key, unit = causes.GROWS.get(state, (None, ""))
        now = job.resources.get(key) if key else None
        if job.attempt > job.restart_times:
            done = "no attempt is left"
            if key:
                return f"{done}; set {key} of {_rule(job)} above {now} in {causes.PROFILE}"
            return f"{done}; type the same command to try again"
        text = f"Snakemake submits it again (attempt {job.attempt + 1} of {job.restart_times + 1})"
        if key and not job.is_group():
            grown = job.rule.expand_resources(
                job.wildcards_dict, job.input, job.attempt + 1, skip_evaluation={"tmpdir"}
            ).get(key)
            text += f" with {grown} {unit} instead of {now}"
        return text

    def _tell_held(self, jobs: list[SubmittedJobInfo]) -> None:
        """Say once what jobs wait for, if somebody must act."""
        for info in jobs:
            entry = info.aux["watch"].entry
            reason, state = (entry.reason, entry.state) if entry else ("", "")
            advice = causes.held(reason) if state in ("PENDING", "SPECIAL_EXIT") else None
            rule, number = _rule(info.job), info.external_jobid
            place = (reason, number if advice and "{id}" in advice else rule)
            if advice and place not in self.told:
                self.told.add(place)
                text = advice.format(id=number, rule=rule, profile=causes.PROFILE)
                self.logger.warning(
                    f"Slurm job {number} ({_name(info.job)}) waits: {reason}: {text}."
                )

    def _tell_silent(self, jobs: list[SubmittedJobInfo]) -> None:
        """Say once that a running job shows no sign of life: nobody else would end the wait."""
        now_s = time.monotonic()
        for info in jobs:
            watch, number = info.aux["watch"], info.external_jobid
            if watch.entry is None or watch.entry.state != "RUNNING":
                watch.running_s, watch.silent = None, ""
                continue
            watch.running_s = now_s if watch.running_s is None else watch.running_s
            beat_s = _last_beat_s(info.job)
            if now_s - watch.running_s < SILENT_S or time.time() - beat_s < SILENT_S:
                watch.silent = ""
            elif not watch.silent:
                since = time.strftime("%H:%M:%S", time.localtime(beat_s))
                watch.silent = f"no sign of life since {since}"
                self.logger.warning(
                    f"Slurm job {number} ({_name(info.job)}) has shown {watch.silent}, but Slurm "
                    f"lists it as running. If its node has no process of it, type: scancel "
                    f"{number}. Snakemake then submits it again."
                )

    # The end

    def cancel(self) -> None:
        """Cancel the jobs of this run by their name, which finds those that sbatch lost, too."""
        self.stopping.set()
        self._job_submission_executor.shutdown(wait=True, cancel_futures=True)
        if self.active_jobs or self.problems:
            try:
                call(("scancel", f"--name={self.run_uuid}"))
            except NoAnswer as error:
                self.logger.warning(
                    f"Slurm did not cancel the jobs: {error}. They continue; type: "
                    f"scancel --name={self.run_uuid}"
                )
        self.shutdown()

    def shutdown(self) -> None:
        self.stopping.set()
        super().shutdown()
        self._write()

    def _write(self) -> None:
        """Write jobs.json beside the driver's lease, for `pollination status`."""
        with self.lock:
            jobs = list(self.active_jobs)
        plan = self.workflow.globals.get("plan")
        folder = Path(plan.results, ".driver") if plan else None
        if folder is None or not folder.is_dir() or not (jobs or self.listed):
            return
        self.listed = len(jobs)
        known = [(info, info.aux["watch"].entry) for info in jobs]
        content = {
            "run_id": self.run_uuid,
            "checked": time.time(),
            "problem": "; ".join(self.problems.values()),
            "jobs": [
                {
                    "slurm": info.external_jobid,
                    "output": str(next(iter(_outputs(info.job)), "")),
                    "rule": _rule(info.job),
                    "state": entry.state if entry else "UNKNOWN",
                    "reason": info.aux["watch"].silent
                    or (entry.reason if entry and entry.reason != "None" else ""),
                    "restarts": entry.restarts if entry else 0,
                }
                for info, entry in known
            ],
        }
        temporary = folder / ".jobs.json.tmp"
        with suppress(OSError):
            temporary.write_text(json.dumps(content) + "\n")
            os.replace(temporary, folder / "jobs.json")
