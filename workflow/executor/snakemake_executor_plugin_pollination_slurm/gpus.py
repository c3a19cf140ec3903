"""The arguments of sbatch for the GPUs of a job."""

import re

from snakemake_interface_common.exceptions import WorkflowError

# The plugin refuses hyphens, which types such as a100-sxm4-80gb have.
ALLOWED = {"gres": r"[\w.:,=-]+", "gpu_model": r"[\w.-]+"}


def arguments(job) -> str:
    """Return `--gres` and `--gpus` for the resources `gres`, `gpu` and `gpu_model`.

    WorkflowError: a value has characters that no name in Slurm has.
    """
    given = {name: job.resources.get(name) for name in ("gres", "gpu", "gpu_model")}
    for name, allowed in ALLOWED.items():
        if given[name] and not re.fullmatch(allowed, str(given[name])):
            raise WorkflowError(
                f"{name}: {given[name]!r} is no name in Slurm; allowed: letters, digits and "
                f"{', '.join(allowed[3:-2])}; correct it in the profile"
            )
    text = f" --gres={given['gres']}" if given["gres"] else ""
    if model := given["gpu_model"]:
        count = 1 if given["gpu"] is None else given["gpu"]
        return f"{text} --gpus={model}:{count}"
    return f"{text} --gpus={given['gpu']}" if given["gpu"] else text


def one_task(job) -> str:
    """Return the options of a job with several GPUs: one task, on one node.

    Without them, Slurm may take the GPUs from several nodes, but the job is one process, which
    starts the others itself (torchrun).
    """
    if int(job.resources.get("gpu") or 0) < 2:
        return ""
    given = job.resources.get
    tasks = any(given(name) for name in ("tasks", "tasks_per_gpu", "tasks_per_node", "mpi"))
    return ("" if given("nodes") else " --nodes=1") + ("" if tasks else " --ntasks=1")
