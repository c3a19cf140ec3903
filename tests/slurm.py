"""A real Slurm on this machine, for the tests: a controller and virtual nodes with stand-in GPUs,
from Debian's packages.

Everything lives in one temporary folder, but for the three files that Slurm's clients read from
/etc/slurm. Needs root.
"""

import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.packages import install

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
ETC = Path("/etc/slurm")
DEVICES = ("/dev/null", "/dev/zero")  # stand-in GPUs: any character device will do

SLURM_CONF = """\
ClusterName=pollination
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2,sched_min_interval=0
SlurmdParameters=config_overrides
ReturnToService=1
MinJobAge=300
KillWait=5
SlurmdTimeout=10
MpiDefault=none
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
"""


def missing() -> str | None:
    """Why there can be no Slurm here; installs its packages where that is all that is missing."""
    if os.geteuid() != 0:
        return "a Slurm of our own needs root"
    if (ETC / "slurm.conf").exists():
        return f"{ETC}/slurm.conf exists: this machine has a Slurm of its own"
    if all(map(shutil.which, ("slurmctld", "slurmd", "squeue", "munged"))):
        return None
    return install(*PACKAGES)


def until(condition, timeout_s: float, what: str, every_s: float = 0.2):
    """The first true value of `condition`; AssertionError names what did not happen in time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(every_s)
    raise AssertionError(f"{what}: not within {timeout_s:.0f} s")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def call(*words: str, timeout_s: float = 30) -> str:
    result = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s)
    assert result.returncode == 0, f"{' '.join(words)}: {result.stderr}"
    return result.stdout


def ended(process: psutil.Process, timeout_s: float) -> bool:
    """Whether a process ends in time; a zombie, which its parent has not reaped, has ended."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


class Cluster:
    """Nodes with two "a100" each: four in the default partition `gpu`, and two more in each of
    `partitions`. `settings` are further lines of slurm.conf.

    Jobs of partition `{name}-urgent` preempt those of `{name}`.
    """

    def __init__(self, partitions: Sequence[str] = (), settings: str = "") -> None:
        self.settings = settings
        self.partitions = {"gpu": [f"gpu{n}" for n in range(1, 5)]} | {
            name: [f"{name}{n}" for n in (1, 2)] for name in partitions
        }
        self.names = [node for nodes in self.partitions.values() for node in nodes]
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-test."))
        self.folder.chmod(0o755)  # munge refuses a socket that not everybody can reach
        self.overlaps: list[str] = []
        self.ended = threading.Event()

    def start(self) -> None:
        port, *ports = free_ports(1 + len(self.names))
        host = socket.gethostname().split(".")[0]
        lines = [SLURM_CONF.format(host=host, port=port, folder=self.folder), self.settings]
        for name, node_port in zip(self.names, ports, strict=True):
            (self.folder / f"spool-{name}").mkdir()
            lines.append(
                f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} CPUs=8 "
                f"RealMemory=64000 Gres=gpu:a100:{len(DEVICES)}\n"
            )
        for name, nodes in self.partitions.items():
            common = f"Nodes={','.join(nodes)} DefaultTime=10 MaxTime=1-00:00:00"
            lines.append(
                f"PartitionName={name} {common} Default={'YES' if name == 'gpu' else 'NO'} "
                "PriorityTier=1 PreemptMode=REQUEUE\n"
            )
            lines.append(f"PartitionName={name}-urgent {common} PriorityTier=10 PreemptMode=OFF\n")
        ETC.mkdir(exist_ok=True)
        (ETC / "slurm.conf").write_text("".join(lines))
        (ETC / "gres.conf").write_text(f"Name=gpu Type=a100 File={','.join(DEVICES)}\n")
        (ETC / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(1024))
        kinds = {
            "key": "munge.key",
            "socket": "munge.socket",
            "pid": "munged.pid",
            "log": "munged.log",
            "seed": "munged.seed",
        }
        files = [
            f"--{name if name == 'socket' else name + '-file'}={self.folder / file}"
            for name, file in kinds.items()
        ]
        call("munged", *files)
        call("slurmctld", "-c")
        until(self.answers, 20, "the controller is up")
        for name in self.names:
            call("slurmd", "-N", name)
        self.until_idle()
        threading.Thread(target=self.watch, daemon=True).start()

    def answers(self) -> bool:
        said = subprocess.run(("scontrol", "ping"), capture_output=True, text=True, timeout=60)
        return "is UP" in said.stdout

    def process(self, daemon: str) -> psutil.Process:
        """A running daemon: slurmctld, slurmd-{node} or munged."""
        return psutil.Process(int((self.folder / f"{daemon}.pid").read_text()))

    def kill(self, daemon: str) -> None:
        """Kill a daemon, and wait until it is gone: an early restart would find it alive."""
        with suppress(OSError, ValueError, psutil.NoSuchProcess):
            process = self.process(daemon)
            process.kill()
            ended(process, 20)

    def restart(self, daemon: str) -> None:
        """Start a daemon again with the state that it has saved; nothing where it lives."""
        with suppress(OSError, ValueError, psutil.NoSuchProcess):
            if self.process(daemon).status() != psutil.STATUS_ZOMBIE:
                return
        call(
            *(
                ("slurmd", "-N", daemon.removeprefix("slurmd-"))
                if daemon.startswith("slurmd-")
                else (daemon,)
            )
        )

    def until_saved(self) -> None:
        """Wait until the controller has saved the jobs: one that is killed earlier loses them."""
        state, begun_s = self.folder / "state/job_state", time.time()
        call("sbatch", "--hold", "--output=/dev/null", "--wrap=true")  # a change, so it saves
        until(lambda: state.exists() and state.stat().st_mtime > begun_s, 60, "the jobs are saved")

    def until_idle(self) -> None:
        until(
            lambda: (
                len(set(call("sinfo", "-hN", "-t", "idle", "-o", "%N").split())) == len(self.names)
            ),
            60,
            "all nodes are idle",
        )

    def jobs(self) -> list[dict[str, str]]:
        """What `scontrol show job` says of every job that Slurm remembers, with its rule and
        wildcards as `rule`.
        """
        lines = call("scontrol", "-o", "-d", "show", "job").splitlines()
        jobs = [
            dict(word.split("=", 1) for word in line.split() if "=" in word)
            for line in lines
            if line.startswith("JobId=")
        ]
        return [job | {"rule": job.get("Comment", "")} for job in jobs]

    def of(self, rule: str, *states: str) -> list[dict[str, str]]:
        """The jobs of a rule, in order of submission; of certain states only, if any are given."""
        chosen = [
            job
            for job in self.jobs()
            if rule in job["rule"] and (not states or job["JobState"] in states)
        ]
        return sorted(chosen, key=lambda job: int(job["JobId"]))

    def watch(self) -> None:
        """Look all the time whether two running jobs were given one GPU."""
        while not self.ended.wait(0.5):
            with suppress(AssertionError, subprocess.TimeoutExpired):
                held = Counter()
                for line in call("scontrol", "-o", "-d", "show", "job").splitlines():
                    if "JobState=RUNNING" in line:
                        held.update(
                            re.findall(r"Nodes=(\w+) \S+ \S+ GRES=gpu:a100:1\(IDX:(\d+)\)", line)
                        )
                self.overlaps += [
                    f"{node}: GPU {index} held {count} times"
                    for (node, index), count in held.items()
                    if count > 1
                ]

    def clear(self) -> None:
        """Cancel everything, wake nodes that are down, and wait until all is quiet."""
        call("scancel", "--user=root")
        until(lambda: not call("squeue", "-h").strip(), 60, "no job is left")
        for name in self.names:  # refused where there is nothing to resume
            subprocess.run(
                ("scontrol", "update", f"nodename={name}", "state=resume"), capture_output=True
            )
        self.until_idle()

    def stop(self) -> None:
        """Cancel all jobs, end every daemon that `start` started, and remove what it wrote."""
        self.ended.set()
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.clear()
        for name in ("slurmctld", *(f"slurmd-{node}" for node in self.names), "munged"):
            with suppress(OSError, ValueError, psutil.NoSuchProcess):
                process = self.process(name)
                process.terminate()
                if not ended(process, 15):
                    process.kill()
        for name in ("slurm.conf", "gres.conf", "cgroup.conf"):
            (ETC / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
