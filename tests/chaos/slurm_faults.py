"""Faults of Slurm: its daemons, its nodes, and its commands."""

import subprocess
from contextlib import suppress

from tests.chaos import slurm_commands
from tests.chaos.campaign import Campaign
from tests.chaos.registry import calm, fault

REPAIR_S = 60.0  # a daemon answers again within this time


def slurm(*words: str) -> None:
    """A command that fails or ends late where another fault hinders it."""
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(words, capture_output=True, timeout=REPAIR_S)


@fault
def cancel_job(campaign: Campaign) -> str | None:
    try:
        jobs = campaign.cluster.jobs()
    except (AssertionError, subprocess.TimeoutExpired):  # the controller is down
        return None
    running = [job["JobId"] for job in jobs if job["JobState"] == "RUNNING"]
    if not running:
        return None
    job = campaign.chance.choice(running)
    slurm("scancel", job)
    return f"scancel {job}"


@fault
def kill_controller(campaign: Campaign) -> str:
    campaign.cluster.kill("slurmctld")
    pause_s = campaign.later(1, campaign.outage_s, lambda: campaign.cluster.restart("slurmctld"))
    return f"SIGKILL to slurmctld, for up to {pause_s:.0f} s"


@fault
def kill_node(campaign: Campaign) -> str:
    """With its slurmd dead the node is lost after SlurmdTimeout, though the job's processes live
    on.
    """
    node = campaign.chance.choice(campaign.cluster.names)
    campaign.cluster.kill(f"slurmd-{node}")
    campaign.later(5, 25, lambda: campaign.cluster.restart(f"slurmd-{node}"))
    return f"SIGKILL to slurmd of {node}"


@fault
def lose_node(campaign: Campaign) -> str:
    node = campaign.chance.choice(campaign.cluster.names)
    words = ("scontrol", "update", f"nodename={node}")
    slurm(*words, "state=down", "reason=chaos")
    campaign.later(2, 15, lambda: slurm(*words, "state=resume"))
    return f"node {node} is down"


@calm
def fail_status(campaign: Campaign) -> str:
    """The commands that ask for the state of jobs fail. Half of the time sbatch fails too."""
    folder = campaign.able.commands
    names = campaign.chance.choice((slurm_commands.STATUS, slurm_commands.COMMANDS))
    slurm_commands.fail(folder, names, slurm_commands.UNREACHABLE)
    pause_s = campaign.later(5, campaign.outage_s, lambda: slurm_commands.heal(folder))
    return f"{', '.join(names)} fail for {pause_s:.0f} s"


@calm
def fail_submission(campaign: Campaign) -> str:
    folder, message = campaign.able.commands, campaign.chance.choice(slurm_commands.REFUSALS)
    slurm_commands.fail(folder, ("sbatch",), message)
    pause_s = campaign.later(5, campaign.outage_s / 2, lambda: slurm_commands.heal(folder))
    return f"sbatch fails for {pause_s:.0f} s: {message}"


@calm
def slow_commands(campaign: Campaign) -> str:
    """Each command takes five seconds, and every second one fails."""
    folder = campaign.able.commands
    slurm_commands.slow(folder)
    pause_s = campaign.later(10, campaign.outage_s, lambda: slurm_commands.heal(folder))
    return f"Slurm's commands are slow for {pause_s:.0f} s"
