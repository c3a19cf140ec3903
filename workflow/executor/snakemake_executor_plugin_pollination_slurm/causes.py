"""What Slurm's states, reasons and errors mean, and what a user can do about them."""

import re

PROFILE = "profiles/slurm/config.yaml"

# Errors of sbatch that no waiting cures, and the key of the profile to change.
PERMANENT = (
    (r"(?:Max|Min)\w*PerJob|MaxWallDuration|QOSMinGRES", "runtime, mem_mb, threads or gpu"),
    (r"invalid account", "slurm_account (under default-resources)"),
    (r"No partition specified|invalid partition", "slurm_partition (under default-resources)"),
    (r"not permitted to use this partition", "slurm_partition (under default-resources)"),
    (r"access/permission denied", "slurm_account and slurm_partition (under default-resources)"),
    (r"invalid qos", "pollination-slurm-qos"),
    (r"reservation is invalid|access denied to.*reservation", "pollination-slurm-reservation"),
    (r"time limit is invalid|Invalid --time", "runtime (under set-resources)"),
    (r"generic resource|\bgres\b|\bTRES\b", "gpu_model (under set-resources)"),
    (r"memory specification can not be satisfied", "mem_mb (under set-resources)"),
    (r"CPU count|more processors", "threads or cpus_per_task (under set-resources)"),
    (
        r"node configuration is not available",
        "gpu_model, mem_mb or slurm_partition (`sinfo -o '%P %G %m'` shows what nodes have)",
    ),
    (r"node count specification invalid", "nodes (under set-resources)"),
    (r"invalid feature", "constraint (under set-resources)"),
    (r"invalid license", "slurm_extra (under set-resources)"),
    (r"unrecognized option|invalid option|Invalid --\w+ spec", "slurm_extra (under set-resources)"),
    (r"argument list too long", "pollination-slurm-pass-command-as-script: true"),
    (r"sbatch: (?:command )?not found", "executor, or log in to a machine that has Slurm"),
)

# Why a job waits, where something must be done. All other reasons pass.
HELD = (
    (
        r"JobHeldUser|launch failed requeued held|JobHoldMaxRequeue|SpecialExit",
        "it is held; type: scontrol release {id}",
    ),
    (
        r"JobHeldAdmin",
        (
            "an administrator holds it; ask for the reason, or type as administrator: "
            "scontrol release {id}"
        ),
    ),
    (
        r"PartitionTimeLimit|MaxWall",
        (
            "it requests more time than Slurm allows; stop Snakemake with Ctrl-C, set a smaller "
            "runtime for {rule} under set-resources in {profile}, and type the same command"
        ),
    ),
    (
        r"BadConstraints|PartitionConfig|PartitionNodeLimit|PerJob",
        (
            "no node may serve its request; stop Snakemake with Ctrl-C, reduce gpu, mem_mb or "
            "threads of {rule} under set-resources in {profile}, and type the same command"
        ),
    ),
    (
        r"InvalidAccount|InvalidQOS|AccountNotAllowed|QOSNotAllowed",
        (
            "Slurm does not allow its account or QOS; stop Snakemake with Ctrl-C, correct "
            "slurm_account in {profile}, and type the same command"
        ),
    ),
    (
        r"ReqNodeNotAvail|UnavailableNodes|Nodes required for job are",
        "nodes that it needs are down or reserved; `sinfo -R` says why",
    ),
    (r"PartitionDown|PartitionInactive", "its partition is closed; `sinfo` shows when it opens"),
    (
        r"^(?:Assoc|QOS|Max)\w*",
        "your account has reached a limit; it starts after other jobs of the account end",
    ),
)

# What Slurm writes into a job's log when it kills the job.
SIGNS = (
    (
        "OUT_OF_MEMORY",
        r"^(?:slurmstepd|srun)\S*: error: .*(?:oom[-_ ]kill|Out Of Memory|memory limit)",
    ),
    ("TIMEOUT", r"CANCELLED AT \S+ DUE TO TIME LIMIT"),
    ("PREEMPTED", r"CANCELLED AT \S+ DUE TO PREEMPTION"),
    ("NODE_FAIL", r"CANCELLED AT \S+ DUE TO NODE FAILURE"),
    ("CANCELLED", r"CANCELLED AT \S+ \*\*\*"),
)

ENDED = {
    "OUT_OF_MEMORY": "was killed because it used more memory than it requested",
    "TIMEOUT": "was ended at its time limit",
    "PREEMPTED": "was stopped for a job of higher priority (preemption)",
    "NODE_FAIL": "was lost because its node failed",
    "BOOT_FAIL": "did not start because its node did not boot",
    "CANCELLED": "was cancelled with scancel, or by an administrator",
    "DEADLINE": "reached its deadline",
}
GROWS = {"OUT_OF_MEMORY": ("mem_mb", "MB"), "TIMEOUT": ("runtime", "minutes")}
FAILED = frozenset({*ENDED, "FAILED", "REVOKED"})


def permanent(error: str) -> str | None:
    """Return the profile's key to change for an error of sbatch; None if waiting may cure it."""
    return next((key for pattern, key in PERMANENT if re.search(pattern, error, re.I)), None)


def held(reason: str) -> str | None:
    """Return what to do about the reason for which a job waits; None if it passes by itself."""
    return next((advice for pattern, advice in HELD if re.search(pattern, reason)), None)


def sign(log: str) -> str | None:
    """Return the state that Slurm's messages in a job's log tell, e.g. OUT_OF_MEMORY."""
    return next((state for state, pattern in SIGNS if re.search(pattern, log, re.M)), None)
