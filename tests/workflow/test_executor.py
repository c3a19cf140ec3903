"""What the executor for Slurm makes of Slurm's texts. The texts are those of Slurm 22.05."""

import sys
import time
from types import SimpleNamespace

import pytest
from snakemake_executor_plugin_pollination_slurm import (
    ExecutorSettings,
    causes,
    commands,
    gpus,
    steps,
)
from snakemake_executor_plugin_pollination_slurm.commands import Entry, NoAnswer, call, queue
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_interface_common.exceptions import WorkflowError

from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("error", "key"),
    [
        ("invalid partition specified: x; Invalid partition name specified", "slurm_partition"),
        ("No partition specified or system default partition", "slurm_partition"),
        ("User's group not permitted to use this partition", "slurm_partition"),
        ("Invalid account or account/partition combination specified", "slurm_account"),
        ("Requested node configuration is not available", "gpu_model"),
        ("Invalid generic resource (gres) specification", "gpu_model"),
        ("Invalid Trackable RESource (TRES) specification", "gpu_model"),
        ("Memory specification can not be satisfied", "mem_mb"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "runtime"),
        ("QOSMaxWallDurationPerJobLimit; Job violates accounting/QOS policy", "runtime"),
        ("QOSMaxGRESPerJob; Job violates accounting/QOS policy", "runtime"),
        ("Invalid qos specification", "pollination-slurm-qos"),
        ("Requested reservation is invalid", "pollination-slurm-reservation"),
        ("Invalid feature specification", "constraint"),
        ("unrecognized option '--foo'", "slurm_extra"),
        ("/bin/sh: 1: sbatch: not found", "executor"),
    ],
)
def test_errors_that_no_waiting_cures_name_a_key(error, key):
    assert causes.permanent(f"Batch job submission failed: {error}").startswith(key)


@pytest.mark.parametrize(
    "error",
    [
        "AssocMaxSubmitJobLimit; Job violates accounting/QOS policy (job submit limit)",
        "QOSMaxSubmitJobPerUserLimit; Job violates accounting/QOS policy",
        "Slurm temporarily unable to accept job, sleeping and retrying",
        "Batch job submission failed: Socket timed out on send/recv operation",
        "Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "Batch job submission failed: Zero Bytes were transmitted or received",
        "Batch job submission failed: Required partition not available (inactive or drain)",
        "Batch job submission failed: Unspecified error",
        "sbatch did not answer within 120 s",
    ],
)
def test_errors_that_may_pass_are_waited_for(error):
    assert causes.permanent(error) is None


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("JobHeldUser", "scontrol release {id}"),
        ("launch failed requeued held", "scontrol release {id}"),
        ("JobHeldAdmin", "administrator"),
        ("PartitionTimeLimit", "smaller runtime for {rule}"),
        ("AssocMaxWallDurationPerJobLimit", "smaller runtime for {rule}"),
        ("QOSMaxGRESPerJob", "reduce gpu"),
        ("PartitionConfig", "reduce gpu"),
        ("ReqNodeNotAvail, UnavailableNodes:gpu[1-4]", "sinfo -R"),
        ("AssocGrpGRES", "limit"),
        ("QOSMaxJobsPerUserLimit", "limit"),
        ("MaxGRESPerAccount", "limit"),
        ("PartitionDown", "sinfo"),
    ],
)
def test_a_reason_for_waiting_says_what_to_do(reason, advice):
    assert advice in causes.held(reason)


@pytest.mark.parametrize("reason", ["None", "Priority", "Resources", "BeginTime", "Reservation"])
def test_usual_reasons_for_waiting_are_not_mentioned(reason):
    assert causes.held(reason) is None


def test_slurms_own_lines_in_a_log_tell_why_the_job_died():
    killed = "slurmstepd: error: *** JOB 5 ON gpu1 CANCELLED AT 2026-01-31T10:00:00 "
    signs = {
        "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=5.batch. Some of your "
        "processes may have been killed by the cgroup out-of-memory handler.": "OUT_OF_MEMORY",
        "slurmstepd: error: Detected 2 oom_kill events in StepId=5.0.": "OUT_OF_MEMORY",
        "srun: error: gpu1: task 0: Out Of Memory": "OUT_OF_MEMORY",
        "slurmstepd: error: StepId=5.0 exceeded memory limit (2 > 1), being killed": (
            "OUT_OF_MEMORY"
        ),
        f"{killed}DUE TO TIME LIMIT ***": "TIMEOUT",
        f"{killed}DUE TO PREEMPTION ***": "PREEMPTED",
        f"{killed}DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***": "NODE_FAIL",
        f"{killed}***": "CANCELLED",
        "torch.OutOfMemoryError: CUDA out of memory.": None,  # the job's own
    }
    for line, state in signs.items():
        assert causes.sign(f"rule x:\n{line}\nmore") == state, line


def test_a_command_that_fails_or_hangs_is_one_line():
    with pytest.raises(NoAnswer, match="^a; b$"):
        call("echo 'sbatch: error: a' >&2; echo 'sbatch: error: b' >&2; false")
    with pytest.raises(NoAnswer, match="^false ended with status 1$"):
        call(("false",))
    with pytest.raises(NoAnswer, match="^squeueue: No such file or directory$"):
        call(("squeueue",))
    started_s = time.monotonic()
    with pytest.raises(NoAnswer, match="^sleep did not answer within 0 s$"):
        call("sleep 60 & sleep 60", 0.2)
    assert time.monotonic() - started_s < 30
    assert call((sys.executable, "-c", "print(input())"), script="said\n") == "said\n"


def test_the_queue_is_read_as_squeue_prints_it(tmp_path, monkeypatch):
    squeue = tmp_path / "squeue"
    squeue.write_text(
        "#!/bin/sh\n"
        "echo '17|PENDING|3|rule_train_gen1_0a1b|launch_failed_requeued_held|'\n"
        "echo '18|PENDING|0|(null)|ReqNodeNotAvail, UnavailableNodes:gpu[1-4]|'\n"
    )
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert queue("name") == {
        "17": Entry("PENDING", 3, "rule_train_gen1_0a1b", "launch failed requeued held"),
        "18": Entry("PENDING", 0, "(null)", "ReqNodeNotAvail, UnavailableNodes:gpu[1-4]"),
    }
    squeue.write_text("#!/bin/sh\necho 'JOBID PARTITION'\n")
    with pytest.raises(NoAnswer, match="another form: 'JOBID PARTITION'"):
        queue("name")


class Sized:
    """A job with resources; of its executor, only what one job needs."""

    is_group = staticmethod(lambda: False)
    jobid, threads = 1, 4

    def __init__(self, **resources):
        self.resources = Resources(mem_mb=32000, runtime=60, **resources)


class Resources(dict):
    __getattr__ = dict.__getitem__


@pytest.mark.parametrize(
    ("resources", "asked", "step"),
    [
        ({"gpu": 1}, "--cpus-per-task=4 -D /w --gpus=1", "--gpus=1"),
        (
            {"gpu": 4, "gpu_model": "a100"},
            "--cpus-per-task=4 -D /w --nodes=1 --ntasks=1 --gpus=a100:4",
            "--gpus=4",
        ),
        (
            {"gpu": 2, "nodes": 1, "tasks": 1, "cpus_per_gpu": 8},
            "--ntasks-per-gpu=1 --cpus-per-gpu=8 -D /w --gpus=2",
            "--gpus=2",
        ),
    ],
)
def test_a_job_with_several_gpus_is_one_task_on_one_node(resources, asked, step):
    """Also where Slurm allocates two tasks, srun starts the job once."""
    job = Sized(**resources)
    names = ("run_uuid", "slurm_logfile", "comment_str", "account", "partition")
    params = dict.fromkeys(names, "x") | {"workdir": "/w"}
    command = get_submit_command(job, params) + gpus.one_task(job) + gpus.arguments(job)
    assert command.endswith(asked) and command.count("--nodes") == (resources["gpu"] > 1)
    call_of_step = steps.step(job)
    assert call_of_step.startswith("srun -n1 ") and f" {step} --nodes=1 --export" in call_of_step
    assert "POLLINATION_GROUP" not in call_of_step


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"gpu": 1}, ["-n1", "--nodes=1", "--cpus-per-task=4", "gpu=1 mem_mb=32000"]),
        ({"gpu": 1, "cpus_per_gpu": 8}, ["--cpus-per-gpu=8", "gpu=1 mem_mb=32000"]),
        ({}, ["--cpus-per-task=4", "--resources mem_mb=32000"]),
    ],
)
def test_a_group_is_one_step_with_one_snakemake_that_runs_all_its_jobs(resources, words):
    """The step tells rules/common.smk that its jobs may be forks of one process."""
    group = Sized(**resources)
    group.is_group = lambda: True
    command = f"{steps.step(group)} python -m snakemake {steps.arguments(group)}"
    assert command.startswith("srun ") and "POLLINATION_GROUP" in command
    assert "POLLINATION_GROUP" in (ROOT / "rules/common.smk").read_text()
    for word in [*words, "--cores 4", "--keep-going"]:
        assert word in command
    assert "slurm-jobstep" not in command


def test_settings_that_do_nothing_are_refused():
    assert ExecutorSettings().max_requeues == 10
    for given, message in (
        ({"array_jobs": "all"}, "pollination-slurm-array-jobs: remove"),
        ({"status_command": "sacct"}, "pollination-slurm-status-command: remove"),
        ({"max_requeues": -1}, "pollination-slurm-max-requeues: -1 is negative"),
    ):
        with pytest.raises(WorkflowError, match=message):
            ExecutorSettings(**given)


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({}, ""),
        ({"gpu": 1, "gpu_model": "a100-sxm4-80gb"}, " --gpus=a100-sxm4-80gb:1"),
        ({"gpu_model": "a100"}, " --gpus=a100:1"),
        ({"gpu": 2}, " --gpus=2"),
        ({"gpu": 0, "gres": "gpu:a100-sxm4-80gb:1"}, " --gres=gpu:a100-sxm4-80gb:1"),
        ({"gpu": 0, "gres": "shard:a100:8,tmpdisk:100G"}, " --gres=shard:a100:8,tmpdisk:100G"),
    ],
)
def test_gpus_are_requested_by_the_names_that_sites_give_them(resources, words):
    assert gpus.arguments(SimpleNamespace(resources=resources)) == words


@pytest.mark.parametrize("key", ["gres", "gpu_model"])
@pytest.mark.parametrize("value", ["a100 80", "'a100'", "a100;date", "$(date)"])
def test_what_is_no_name_in_slurm_is_refused(key, value):
    with pytest.raises(WorkflowError, match=f"^{key}: .*correct it in the profile"):
        gpus.arguments(SimpleNamespace(resources={key: value}))


def test_messages_of_a_command_lose_their_prefixes():
    assert commands.one_line("slurm_load_jobs error: Unable to contact slurm controller\n") == (
        "slurm_load_jobs error: Unable to contact slurm controller"
    )
