"""Models: a blueprint (configuration and tokenizer), new or loaded weights, saving, and mutation."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.logging import disable_progress_bar

from pollination.artifacts import DamagedArtifact, atomic
from pollination.checks import nearest
from pollination.products import by_onednn
from pollination.seeds import derive_seed

disable_progress_bar()  # a log file is no terminal
MOST_LAYERS = 1000  # the module objects of more take minutes and gigabytes before a weight is there

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
    """Threads, deterministic algorithms, the CPU's matrix products, and the device of a job."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(cpu_threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    by_onednn()
    return pick_device(device)


def load_tokenizer(folder: str | Path):
    """The tokenizer of a model folder; no code that lies beside it is run. DamagedArtifact: unreadable, or without an eos token."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), use_fast=True, trust_remote_code=False)
        known, eos_id = largest_id(tokenizer), tokenizer.eos_token_id
    except Exception as error:  # its loaders raise whatever their libraries do, even bare Exception
        raise DamagedArtifact(
            f"{folder}: its tokenizer cannot be loaded ({_reason(error)}); delete its files and run snakemake again"
        ) from None
    if eos_id is None or not 0 <= eos_id <= known:
        raise DamagedArtifact(f"{folder}: its tokenizer has no eos token, which parts documents; delete its files and run snakemake again")
    return tokenizer


def largest_id(tokenizer) -> int:
    """The largest token id: more than the number of tokens says, where ids are left out."""
    return max(tokenizer.get_vocab().values(), default=-1)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def load_config(folder: str | Path) -> AutoConfig:
    """The transformers configuration of a folder or hub name; no code that lies beside it is run. ValueError: it cannot be read."""
    try:
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # of its own validation, of its loaders, of JSON
        raise ValueError(
            f"{folder}: its config.json is no configuration that is known here ({_reason(error)}); code in a model's folder is never run"
        ) from None


def outline(config: AutoConfig, name: str | Path) -> PreTrainedModel:
    """The model of a configuration without memory for its weights. ValueError: it cannot be built, or not be held by this machine."""
    layers = getattr(config, "num_hidden_layers", 0) or 0
    if layers > MOST_LAYERS:
        raise ValueError(f"{name}: its config asks for {layers:,} layers; allowed: {MOST_LAYERS:,}")
    try:
        with torch.device("meta"), no_init_weights():
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # sizes that do not divide, of the wrong type, negative, beyond 64 bits
        raise ValueError(f"{name}: no model can be built from its config ({_reason(error)}); correct its sizes") from None
    count, memory = sum(p.numel() for p in model.parameters()), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 4 * count > memory:
        raise ValueError(
            f"{name}: its config asks for {count:,} parameters, {4 * count / 2**30:,.0f} GiB; this machine has {memory / 2**30:,.0f} GiB"
        )
    return model


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
        "vocab_size": largest_id(tokenizer) + 1,
        "max_position_embeddings": spec["context_tokens"],
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
        "tie_word_embeddings": True,
    }
    # one name a setting: GPT-2's n_positions is everybody's max_position_embeddings
    settings = {default.attribute_map.get(key, key): value for key, value in (ours | spec["settings"]).items()}
    size = settings["vocab_size"]
    if not isinstance(size, int) or size <= largest_id(tokenizer):
        raise ValueError(
            f"settings.vocab_size: {size!r} is too small for the tokenizer's {largest_id(tokenizer) + 1} tokens;"
            " allowed: at least that (or leave it out)"
        )
    try:
        return AutoConfig.for_model(architecture, **settings)
    except Exception as error:  # its own validation raises classes of its own
        raise ValueError(f"settings: {architecture} does not take them ({_reason(error)}); correct their types and sizes") from None


def write_blueprint(spec: dict, tokenizer, folder: Path) -> None:
    """Write config.json of a model's blueprint; a pretrained model's weights come along as base.safetensors.

    Raises ValueError where the tokenizer does not fit the model.
    """
    if not spec["pretrained"]:
        config = make_config(spec, tokenizer)
        config.architectures = [type(outline(config, "settings")).__name__]
        config.save_pretrained(folder)
        return
    config = load_config(spec["pretrained"])
    embeddings, positions = (
        outline(config, spec["pretrained"]).get_input_embeddings().num_embeddings,
        getattr(config, "max_position_embeddings", None),
    )
    if largest_id(tokenizer) >= embeddings:
        raise ValueError(
            f"pretrained: {spec['pretrained']!r} has embeddings for {embeddings} tokens,"
            f" its tokenizer {largest_id(tokenizer) + 1}: they do not fit; name a tokenizer that does"
        )
    if positions and spec["context_tokens"] > positions:
        raise ValueError(
            f"context_tokens: {spec['context_tokens']} is more than the {positions} positions of {spec['pretrained']!r}; allowed: at most that"
        )
    save_model(load_pretrained(spec["pretrained"], config), folder)


def load_pretrained(source: str, config: AutoConfig) -> PreTrainedModel:
    """A pretrained model in fp32, from safetensors alone: pickles are not opened, no code is run, no weight is made up.

    ValueError: no safetensors, tensors missing or of another shape or kind, NaN or infinity.
    """
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            source, config=config, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # a dozen libraries may fail here, each in its own way; to the user it is one thing
        raise ValueError(
            f"pretrained: {source!r} cannot be loaded ({_reason(error)}); it needs whole weights as safetensors, pickles are not opened"
        ) from None
    extra = set(found["unexpected_keys"])
    wrong = [f"tensor {name!r} is missing" for name in sorted(found["missing_keys"])]
    wrong += [f"tensor {name!r} holds NaN or infinity" for name, tensor in model.state_dict().items() if not torch.isfinite(tensor).all()]
    for path in sorted(Path(source).expanduser().glob("*.safetensors")):
        with safe_open(str(path), "pt") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}
        wrong += [
            f"tensor {name!r} holds {kind}, no floating-point numbers"
            for name, kind in kinds.items()
            if "F" not in kind and name not in extra
        ]
    if extra:
        logging.getLogger("pollination").warning(
            "%s: %d tensors are not of this architecture and not used, e.g. %s", source, len(extra), min(extra)
        )
    if wrong:
        raise ValueError(f"pretrained: {source!r}: {wrong[0]} ({len(wrong)} such findings); name a whole checkpoint of this architecture")
    return model


def create_model(folder: str | Path, seed: int) -> PreTrainedModel:
    """A new model of a blueprint, initialised from `seed` on the CPU in fp32."""
    config = load_config(folder)
    outline(config, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def load_weights(model: PreTrainedModel, path: str | Path) -> None:
    """Put a safetensors file into a model. DamagedArtifact: unreadable, or other tensors, shapes or values than it should have."""
    state = read_weights(path)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    integers = [name for name, tensor in state.items() if not tensor.is_floating_point()]
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
    if integers:
        raise DamagedArtifact(f"{path}: tensor {integers[0]!r} holds {state[integers[0]].dtype}; these are not the weights of this model")
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


def load_member(folder: str | Path, device: torch.device | str = "cpu") -> tuple[PreTrainedModel, Any]:
    """(model, tokenizer) of a member's folder. DamagedArtifact: the tokenizer knows ids that the model has no embedding for."""
    tokenizer, model = load_tokenizer(folder), load_model(folder, device)
    if largest_id(tokenizer) >= model.get_input_embeddings().num_embeddings:
        raise DamagedArtifact(
            f"{folder}: its tokenizer has ids up to {largest_id(tokenizer)}, its model embeddings for {model.get_input_embeddings().num_embeddings};"
            " delete the folder's files and run snakemake again"
        )
    return model, tokenizer


def load_model(folder: str | Path, device: torch.device | str = "cpu", weights: str | Path | None = None) -> PreTrainedModel:
    """The model of a member's folder (or a blueprint and `weights`), fp32, in evaluation mode. DamagedArtifact as in `load_weights`."""
    config = load_config(folder)
    outline(config, folder)
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
    for other in folder.glob(".save.*"):  # of a copy that was killed while it saved
        shutil.rmtree(other, ignore_errors=True)
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
    handed_on = mutate(state, scale, per, seed) if scale > 0 else state
    for name, tensor in handed_on.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"mutate.scale: {scale}: weight {name!r} of {source} is not finite once it is mutated; lower it")
    with atomic(target) as temporary:
        save_file(handed_on, str(temporary), metadata=metadata)
