"""Check that another engine writes text with the meaning that the keys have, and that it exists."""

import sys
from importlib.util import find_spec

from pollination.plan.decoding import DECODINGS

LEAST_TEMPERATURE = 0.01  # vLLM raises a lower one to this value
PRECISIONS = ("auto", "bf16")  # in fp32, vLLM's kernels for attention may round products to TF32


def check_engines(config: dict, mistakes: list[str]) -> None:
    """Refuse what `generate.engine: vllm` would do with another meaning, or not at all."""
    for name, experiment in config["experiments"].items():
        generate = experiment["generate"]
        if generate["engine"] != "vllm":
            continue
        key = f"experiments.{name}.generate"
        decoding, method = generate["decoding"], DECODINGS[generate["decoding"]]
        if not method.vllm:
            allowed = ", ".join(name for name, one in DECODINGS.items() if one.vllm)
            mistakes.append(
                f"{key}.decoding: {decoding!r} has no equal in vLLM (engine: vllm); allowed with "
                f"it: {allowed}. Choose one, or set {key}.engine: native"
            )
        elif method.temperature and generate["temperature"] < LEAST_TEMPERATURE:
            mistakes.append(
                f"{key}.temperature: vLLM (engine: vllm) would raise {generate['temperature']} to "
                f"{LEAST_TEMPERATURE}; allowed with it: {LEAST_TEMPERATURE} or more. Raise it, set "
                f"decoding: greedy, or set {key}.engine: native"
            )
        if generate["precision"] not in PRECISIONS:
            mistakes.append(
                f"{key}.precision: {generate['precision']!r} cannot be kept by vLLM (engine: "
                f"vllm); allowed with it: {', '.join(PRECISIONS)}. Choose one, or set "
                f"{key}.engine: native"
            )
        if config["device"] == "cpu":
            mistakes.append(
                f"{key}.engine: 'vllm' needs a GPU, but the config sets device: cpu; allowed with "
                f"it: native. Set {key}.engine: native, or device: auto"
            )


def warnings(config: dict) -> list[str]:
    """Return a line if the config needs vLLM, which is not installed here."""
    asks = (n for n, one in config["experiments"].items() if one["generate"]["engine"] == "vllm")
    name = next(asks, None)
    if name is None or find_spec("vllm") is not None:
        return []
    said = "'vllm' is not installed here; add --sdm conda to the first snakemake command"
    return [f"experiments.{name}.generate.engine: {said} (docs/howto/gpus.md)"]


def confirm(workflow, config: dict) -> None:
    """Exit if a job of Snakemake's plan needs vLLM, which no environment of the job has."""
    from snakemake.settings.types import DeploymentMethod  # loads slowly

    if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
        return
    writing = (job for job in workflow.dag.needrun_jobs() if job.rule.name == "generate_shard")
    names = {job.wildcards.experiment for job in writing}
    needed = [n for n in sorted(names) if config["experiments"][n]["generate"]["engine"] == "vllm"]
    if needed and find_spec("vllm") is None:
        sys.exit(
            f"error: experiments.{needed[0]}.generate.engine: 'vllm' is not installed here; "
            "allowed without it: native. Add --sdm conda to the command (docs/howto/gpus.md says "
            "what this recomputes), or set engine: native"
        )
