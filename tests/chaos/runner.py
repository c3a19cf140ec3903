"""Run a campaign: prepare what its faults need, run it, count, and clean up."""

import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import psutil

from tests.chaos import (  # noqa: F401  (the three modules with faults fill the registry)
    file_faults,
    machine,
    process_faults,
    slurm_commands,
    slurm_faults,
)
from tests.chaos.campaign import Campaign
from tests.chaos.comparison import Reference, digests
from tests.chaos.registry import CALM, FAULTS
from tests.chaos.tally import Hang, Tally
from tests.chaos.workflow import END_S, Workflow
from tests.slurm import Cluster, missing

SLURM_ONLY = (
    "cancel_job",
    "kill_controller",
    "kill_node",
    "lose_node",
    "fail_status",
    "fail_submission",
    "slow_commands",
)


def prepare(campaign: Campaign, reference_bytes: int) -> dict[str, str]:
    """Prepare this machine; return the faults that cannot be had, and why."""
    able, folder = campaign.able, campaign.folder
    reasons = {name: "--slurm was not given" for name in SLURM_ONLY if campaign.cluster is None}
    size = machine.ON_A_DISK_THAT_FILLS * reference_bytes
    if reason := machine.prepare_quota(able, folder, size):
        reasons["exceed_quota"] = reason
        if reason := machine.prepare_disk(folder, size):
            reasons["fill_disk"] = reason
    if campaign.cluster:
        reasons["change_clock"] = "jobs of Slurm take no library from the driver's environment"
        able.commands = folder / "commands"
        slurm_commands.wrap(able.commands)
    elif reason := machine.prepare_clock(able, folder):
        reasons["change_clock"] = reason
    if reason := machine.prepare_memory(able):
        reasons["exhaust_memory"] = reason
    machine.prepare_elsewhere(able, folder)
    if not hasattr(psutil.Process, "rlimit"):
        reasons["fail_writes"] = "this system has no file-size limit for running processes"
    return reasons


def in_order(kinds: Iterable[str], seed: int) -> Iterator[str]:
    """Kinds of faults without end, each equally often, in an order that only the seed decides."""
    chance, kinds = random.Random(seed), sorted(kinds)
    while kinds:
        yield from chance.sample(kinds, len(kinds))


def reference(configfile: Path, say: Callable[[str], None] = print) -> Reference:
    """An undisturbed run on this machine."""
    folder = Path(tempfile.mkdtemp(prefix="reference.")).resolve()
    workflow = Workflow(folder, configfile, random.Random(0), end_s=8 * END_S)
    try:
        begun_s = time.monotonic()
        workflow.start()
        assert workflow.until_ended() == 0, workflow.last_words()
        seconds = time.monotonic() - begun_s
        files = [path for path in folder.joinpath("results").rglob("*") if path.is_file()]
        size = sum(path.stat().st_blocks * 512 for path in files)
        say(f"the reference took {seconds:.0f} s, {size / 2**20:.0f} MiB")
        return Reference(digests(workflow.results), size, seconds)
    finally:
        workflow.stop()
        machine.clean(folder, workflow.able)


def campaign(
    configfile: Path,
    seed: int,
    enough: Callable[[Tally], bool],
    undisturbed: Reference,
    slurm: bool = False,
    interval_s: tuple[float, float] = (3.0, 15.0),
    outage_s: float = 300.0,
    kinds: tuple[str, ...] = (),
    skip: int = 0,
    say: Callable[[str], None] = print,
    tally: Tally | None = None,
) -> Tally:
    """Run a campaign to its end. AssertionError: an artifact is missing or differs, or a driver
    does not end (Hang). `tally` has the counts then too.
    """
    # A shell's background job ignores SIGINT, and so would its children, the drivers.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if slurm and (reason := missing()):
        raise ValueError(f"--slurm: {reason}")
    cluster = Cluster() if slurm else None
    folder = Path(tempfile.mkdtemp(prefix="chaos.")).resolve()
    run = Campaign(
        folder,
        configfile,
        random.Random(seed),
        cluster,
        end_s=max(END_S, 4 * undisturbed.seconds),
        tally=tally or Tally(),
        interval_s=interval_s,
        outage_s=outage_s,
        say=say,
    )
    run.tally.place = skip
    try:
        if cluster:
            cluster.start()
        run.tally.absent = prepare(run, undisturbed.bytes)
        for name, reason in run.tally.absent.items():
            say(f"left out: {name}: {reason}")
        possible = {
            name: function
            for name, function in FAULTS.items()
            if name not in run.tally.absent and (not kinds or name in kinds)
        }
        if not possible:
            raise ValueError("--only: this machine can have none of these faults")
        order = islice(in_order(possible, seed), skip, None)
        run.run_through(possible, CALM, order, undisturbed, enough)
    except BaseException as error:
        run.tally.hangs += isinstance(error, Hang)
        say(f"{configfile.name}, seed {seed}, at place {run.tally.place}: {type(error).__name__}")
        raise
    finally:
        run.heal(everything=True)
        run.stop()
        run.collect()
        if cluster:
            cluster.stop()
        machine.clean(folder, run.able)
    return run.tally
