"""Models: a blueprint (configuration and tokenizer), new or loaded weights, saving, and mutation."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.logging import disable_progress_bar

from pollination.artifacts import DamagedArtifact, atomic
from pollination.checks import nearest
from pollination.seeds import derive_seed

disable_progress_bar()  # a log file is no terminal

# Causal attention over all positions is all that looks across tokens, and logits are the head times the hidden states, nothing more.
PLAIN_FAMILIES = ("llama", "gpt2", "opt")


def pick_device(wanted: str) -> torch.device:
    """The device of a config's `device`; ValueError where a GPU was asked for, or allocated, and none can be used."""
    usable = torch.cuda.is_available()
    allocated = any(
        os.environ.get(name, "") not in ("", "-1", "NoDevFiles")
        for name in ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "SLURM_GPUS")
    )
    if wanted == "cuda" and not usable:
        raise ValueError(
            "device: 'cuda' needs a usable GPU and there is none; allowed: auto, cpu, cuda; check nvidia-smi and that torch is a CUDA build"
        )
    if wanted == "auto" and allocated and not usable:
        raise ValueError(
            "device: 'auto' inside a GPU allocation, but torch finds no usable GPU; check the node's driver, or set device: cpu"
        )
    return torch.device("cuda" if usable and wanted != "cpu" else "cpu")


def prepare(device: str, cpu_threads: int) -> torch.device:
    """Threads, deterministic algorithms, and the device of a job."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(cpu_threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    return pick_device(device)


def load_tokenizer(folder: str | Path):
    """The tokenizer of a model folder."""
    return AutoTokenizer.from_pretrained(str(folder), use_fast=True)


def make_config(spec: dict, tokenizer) -> AutoConfig:
    """The transformers configuration of a new model; ValueError names an unknown architecture or setting."""
    architecture = spec["architecture"]
    if architecture not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        known = list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
        raise ValueError(
            f"architecture: {architecture!r} is no causal language model of transformers{nearest(architecture, known)}; allowed: llama, gpt2, opt, ..."
        )
    default = AutoConfig.for_model(architecture)
    for key in spec["settings"]:
        if not hasattr(default, key):
            known = sorted(default.to_dict())
            raise ValueError(f"settings.{key}: unknown to architecture {architecture!r}{nearest(key, known)}; allowed: {', '.join(known)}")
    ours = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": spec["context_tokens"],
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
        "tie_word_embeddings": True,
    }
    # one name a setting: GPT-2's n_positions is everybody's max_position_embeddings
    settings = {default.attribute_map.get(key, key): value for key, value in (ours | spec["settings"]).items()}
    if settings["vocab_size"] < len(tokenizer):
        raise ValueError(
            f"settings.vocab_size: {settings['vocab_size']} is too small for the tokenizer's {len(tokenizer)} tokens;"
            " allowed: at least that (or leave it out)"
        )
    return AutoConfig.for_model(architecture, **settings)


def write_blueprint(spec: dict, tokenizer, folder: Path) -> None:
    """Write config.json of a model's blueprint; a pretrained model's weights come along as base.safetensors.

    Raises ValueError where the tokenizer does not fit the model.
    """
    if not spec["pretrained"]:
        config = make_config(spec, tokenizer)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        config.architectures = [type(model).__name__]
        config.save_pretrained(folder)
        return
    model = AutoModelForCausalLM.from_pretrained(spec["pretrained"], use_safetensors=True, trust_remote_code=False, dtype=torch.float32)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise ValueError(
            f"pretrained: {spec['pretrained']!r} has embeddings for {model.get_input_embeddings().num_embeddings} tokens,"
            f" its tokenizer {len(tokenizer)}: they do not fit; name a tokenizer that does"
        )
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions and spec["context_tokens"] > positions:
        raise ValueError(
            f"context_tokens: {spec['context_tokens']} is more than the {positions} positions of {spec['pretrained']!r}; allowed: at most that"
        )
    save_model(model, folder)


def create_model(folder: str | Path, seed: int) -> PreTrainedModel:
    """A new model of a blueprint, initialised from `seed` on the CPU in fp32."""
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def load_weights(model: PreTrainedModel, path: str | Path) -> None:
    """Put a safetensors file into a model. DamagedArtifact: unreadable, or other tensors, shapes or values than it should have."""
    state = read_weights(path)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    tied = set(model.all_tied_weights_keys)
    missing = [name for name in expected if name not in state and name not in tied]
    extra = [name for name in state if name not in expected]
    wrong = [name for name in state if name in expected and state[name].shape != expected[name]]
    if missing or extra or wrong:
        name = (missing + extra + wrong)[0]
        what = (
            "is missing"
            if missing
            else "does not belong to this architecture"
            if extra
            else f"has shape {tuple(state[name].shape)}, not {tuple(expected[name])}"
        )
        raise DamagedArtifact(f"{path}: tensor {name!r} {what}; these are not the weights of this model")
    for name, tensor in state.items():
        if not torch.stack(tensor.aminmax()).isfinite().all():  # NaN comes through; one pass and nothing stored
            raise DamagedArtifact(f"{path}: tensor {name!r} holds NaN or infinity; delete the file and run snakemake again")
    model.load_state_dict(state, strict=False)
    model.tie_weights()


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file; DamagedArtifact where it is cut short or something else."""
    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        reason = str(error).splitlines()[0]
        raise DamagedArtifact(f"{path}: not a readable safetensors file ({reason}); delete it and run snakemake again") from None


def load_model(folder: str | Path, device: torch.device | str = "cpu", weights: str | Path | None = None) -> PreTrainedModel:
    """The model of a member's folder (or a blueprint and `weights`), fp32, in evaluation mode. DamagedArtifact as in `load_weights`."""
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    with no_init_weights():  # which also leaves weights untied
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.tie_weights()
    load_weights(model, weights or Path(folder) / "model.safetensors")
    return model.to(device)


@contextmanager
def attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """The model in evaluation mode with another implementation of attention."""
    before, training = model.config._attn_implementation, model.training
    model.set_attn_implementation(name)
    model.eval()
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        model.train(training)


def save_model(model: PreTrainedModel, folder: Path, files: tuple[str, ...] = ("model.safetensors", "config.json")) -> None:
    """Write weights and configuration into `folder`, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".save.", dir=folder))
    try:
        model.save_pretrained(temporary, max_shard_size="1000GB")
        for name in files:
            with atomic(folder / name) as target:
                (temporary / name).rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def mutate(state: dict[str, torch.Tensor], scale: float, per: str, seed: int) -> dict[str, torch.Tensor]:
    """theta + scale * std(theta) * U(-0.5, 0.5) (study A, appendix C), std of each tensor or of all weights.

    Each tensor draws from its own stream, named by the tensor, so the result does not depend on the file's order.
    """
    if per == "model":
        count = sum(tensor.numel() for tensor in state.values())
        mean = sum(tensor.double().sum() for tensor in state.values()) / count
        overall = (sum(((tensor.double() - mean) ** 2).sum() for tensor in state.values()) / (count - 1)).sqrt()
    mutated = {}
    for name, tensor in state.items():
        generator = torch.Generator().manual_seed(derive_seed(seed, name))
        noise = torch.rand(tensor.shape, generator=generator) - 0.5
        spread = overall if per == "model" else tensor.double().std() if tensor.numel() > 1 else torch.zeros(())
        mutated[name] = (tensor.double() + scale * spread * noise.double()).to(tensor.dtype)
    return mutated


def write_parent(source: Path, target: Path, scale: float, per: str, seed: int) -> None:
    """The weights that a parent's children inherit: mutated, or (scale 0) the very same."""
    state = read_weights(source)
    with safe_open(str(source), "pt") as file:
        metadata = file.metadata()
    with atomic(target) as temporary:
        save_file(mutate(state, scale, per, seed) if scale > 0 else state, str(temporary), metadata=metadata)
