"""The settings of the executor: those of the Slurm plugin, and one more."""

from dataclasses import dataclass, field
from typing import Optional

import snakemake_executor_plugin_slurm as slurm
from snakemake_interface_common.exceptions import WorkflowError

UNUSED = {
    "array_jobs": "every task of an array checks the first task's output",
    "status_command": "the executor asks squeue and needs no accounting database",
}


@dataclass
class ExecutorSettings(slurm.ExecutorSettings):
    """Settings of the Slurm plugin. Those in UNUSED are refused."""

    # Without a value, the plugin does not compare it with Slurm's configuration at the start.
    status_command: Optional[str] = field(  # noqa: UP045  Snakemake cannot read `str | None`
        default=None, metadata={"help": "Not available: the executor always asks squeue."}
    )
    max_requeues: int = field(
        default=10,
        metadata={
            "help": "Cancel a job that Slurm has requeued more often than this, and report it as "
            "failed. 0 sets no limit."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, reason in UNUSED.items():
            if getattr(self, name):
                key = f"pollination-slurm-{name.replace('_', '-')}"
                raise WorkflowError(f"{key}: remove this setting; {reason}")
        if self.max_requeues < 0:
            raise WorkflowError(
                f"pollination-slurm-max-requeues: {self.max_requeues} is negative; give the number "
                "of requeues that a job may have, or 0 for no limit"
            )
