"""Models: a blueprint (configuration and tokenizer), new or loaded weights, and saving."""

import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.logging import disable_progress_bar

from pollination.core.artifacts import DamagedArtifact, atomic
from pollination.plan.config.values import nearest

disable_progress_bar()  # a log file is no terminal
MAX_LAYERS = 1000  # more take minutes and gigabytes for module objects, before any weight


def load_tokenizer(folder: str | Path):
    """The tokenizer of a model folder; code in the folder is never run.

    DamagedArtifact: unreadable, or without an eos token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), use_fast=True, trust_remote_code=False
        )
        known, eos_id = largest_id(tokenizer), tokenizer.eos_token_id
    except Exception as error:  # loaders raise whatever their libraries do, even bare Exception
        raise DamagedArtifact(
            f"{folder}: its tokenizer cannot be loaded ({_reason(error)}); delete its files and "
            "run snakemake again"
        ) from None
    if eos_id is None or not 0 <= eos_id <= known:
        raise DamagedArtifact(
            f"{folder}: its tokenizer has no eos token, which parts documents; delete its files "
            "and run snakemake again"
        )
    return tokenizer


def largest_id(tokenizer) -> int:
    """The largest token id; the number of tokens does not tell it if ids are left out."""
    return max(tokenizer.get_vocab().values(), default=-1)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def load_config(folder: str | Path) -> AutoConfig:
    """The transformers configuration of a folder or hub name; code in the folder is never run.

    ValueError: it cannot be read.
    """
    try:
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # of its own validation, of its loaders, of JSON
        raise ValueError(
            f"{folder}: its config.json is no configuration that is known here ({_reason(error)}); "
            "code in a model's folder is never run"
        ) from None


def outline(config: AutoConfig, name: str | Path) -> PreTrainedModel:
    """The model of a configuration, without memory for its weights.

    ValueError: it cannot be built, or exceeds this machine's memory.
    """
    layers = getattr(config, "num_hidden_layers", 0) or 0
    if layers > MAX_LAYERS:
        raise ValueError(f"{name}: its config asks for {layers:,} layers; allowed: {MAX_LAYERS:,}")
    try:
        with torch.device("meta"), no_init_weights():
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # sizes that do not divide, are negative, mistyped, beyond 64 bits
        raise ValueError(
            f"{name}: no model can be built from its config ({_reason(error)}); correct its sizes"
        ) from None
    count = sum(p.numel() for p in model.parameters())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 4 * count > memory:
        raise ValueError(
            f"{name}: its config asks for {count:,} parameters, {4 * count / 2**30:,.0f} GiB; this "
            f"machine has {memory / 2**30:,.0f} GiB"
        )
    return model


def make_config(spec: dict, tokenizer) -> AutoConfig:
    """The transformers configuration of a new model.

    ValueError: architecture or setting is unknown, or the values do not fit.
    """
    architecture = spec["architecture"]
    if architecture not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        known = list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
        raise ValueError(
            f"architecture: {architecture!r} is no causal language model of "
            f"transformers{nearest(architecture, known)}; allowed: llama, gpt2, opt, ..."
        )
    default = AutoConfig.for_model(architecture)
    for key in spec["settings"]:
        if not hasattr(default, key):
            known = sorted(default.to_dict())
            raise ValueError(
                f"settings.{key}: unknown to architecture {architecture!r}{nearest(key, known)}; "
                f"allowed: {', '.join(known)}"
            )
    ours = {
        "vocab_size": largest_id(tokenizer) + 1,
        "max_position_embeddings": spec["context_tokens"],
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
        "tie_word_embeddings": True,
    }
    # one name per setting: GPT-2's n_positions is max_position_embeddings
    settings = {
        default.attribute_map.get(key, key): value
        for key, value in (ours | spec["settings"]).items()
    }
    size = settings["vocab_size"]
    if not isinstance(size, int) or size <= largest_id(tokenizer):
        raise ValueError(
            f"settings.vocab_size: {size!r} is too small for the tokenizer's "
            f"{largest_id(tokenizer) + 1} tokens; allowed: at least that (or leave it out)"
        )
    try:
        return AutoConfig.for_model(architecture, **settings)
    except Exception as error:  # its own validation raises classes of its own
        raise ValueError(
            f"settings: {architecture} does not take them ({_reason(error)}); correct their types "
            "and sizes"
        ) from None


def write_blueprint(spec: dict, tokenizer, folder: Path) -> None:
    """Write config.json of a model's blueprint, and model.safetensors of a pretrained model.

    ValueError: tokenizer or context_tokens do not fit the model, or the model cannot be made.
    """
    if not spec["pretrained"]:
        config = make_config(spec, tokenizer)
        config.architectures = [type(outline(config, "settings")).__name__]
        config.save_pretrained(folder)
        return
    config = load_config(spec["pretrained"])
    embeddings = outline(config, spec["pretrained"]).get_input_embeddings().num_embeddings
    positions = getattr(config, "max_position_embeddings", None)
    if largest_id(tokenizer) >= embeddings:
        raise ValueError(
            f"pretrained: {spec['pretrained']!r} has embeddings for {embeddings} tokens, its "
            f"tokenizer {largest_id(tokenizer) + 1}: they do not fit; name a tokenizer that does"
        )
    if positions and spec["context_tokens"] > positions:
        raise ValueError(
            f"context_tokens: {spec['context_tokens']} is more than the {positions} positions of "
            f"{spec['pretrained']!r}; allowed: at most that"
        )
    save_model(load_pretrained(spec["pretrained"], config), folder)


def load_pretrained(source: str, config: AutoConfig) -> PreTrainedModel:
    """A pretrained model in fp32, from safetensors alone: no pickles, no code, no invented weights.

    ValueError: no safetensors, tensors missing or of another shape or kind, NaN or infinity.
    """
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # a dozen libraries may fail here, each in its own way
        raise ValueError(
            f"pretrained: {source!r} cannot be loaded ({_reason(error)}); it needs whole weights "
            "as safetensors, pickles are not opened"
        ) from None
    extra = set(loading["unexpected_keys"])
    wrong = [f"tensor {name!r} is missing" for name in sorted(loading["missing_keys"])]
    wrong += [
        f"tensor {name!r} holds NaN or infinity"
        for name, tensor in model.state_dict().items()
        if not torch.isfinite(tensor).all()
    ]
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
            "%s: %d tensors are not of this architecture and not used, e.g. %s",
            source,
            len(extra),
            min(extra),
        )
    if wrong:
        raise ValueError(
            f"pretrained: {source!r}: {wrong[0]} ({len(wrong)} such findings); name a whole "
            "checkpoint of this architecture"
        )
    return model


def create_model(folder: str | Path, seed: int) -> PreTrainedModel:
    """A new model of a blueprint, initialised from `seed` on the CPU in fp32."""
    config = load_config(folder)
    outline(config, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def load_weights(model: PreTrainedModel, path: str | Path) -> None:
    """Load a safetensors file into a model.

    DamagedArtifact: unreadable, or tensors, shapes or values are not those of the model.
    """
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
        raise DamagedArtifact(
            f"{path}: tensor {name!r} {what}; these are not the weights of this model"
        )
    if integers:
        raise DamagedArtifact(
            f"{path}: tensor {integers[0]!r} holds {state[integers[0]].dtype}; these are not the "
            "weights of this model"
        )
    for name, tensor in state.items():
        # aminmax passes NaN on, in one pass that stores nothing
        if not torch.stack(tensor.aminmax()).isfinite().all():
            raise DamagedArtifact(
                f"{path}: tensor {name!r} holds NaN or infinity; delete the file and run snakemake "
                "again"
            )
    model.load_state_dict(state, strict=False)
    model.tie_weights()


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file; DamagedArtifact: truncated, or of another format."""
    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        reason = str(error).splitlines()[0]
        raise DamagedArtifact(
            f"{path}: not a readable safetensors file ({reason}); delete it and run snakemake again"
        ) from None


def load_member(
    folder: str | Path, device: torch.device | str = "cpu"
) -> tuple[PreTrainedModel, Any]:
    """(model, tokenizer) of a member's folder.

    DamagedArtifact: as in the loaders, or the tokenizer has ids without an embedding.
    """
    tokenizer, model = load_tokenizer(folder), load_model(folder, device)
    if largest_id(tokenizer) >= model.get_input_embeddings().num_embeddings:
        raise DamagedArtifact(
            f"{folder}: its tokenizer has ids up to {largest_id(tokenizer)}, its model embeddings "
            f"for {model.get_input_embeddings().num_embeddings}; delete the folder's files and run "
            "snakemake again"
        )
    return model, tokenizer


def load_model(
    folder: str | Path, device: torch.device | str = "cpu", weights: str | Path | None = None
) -> PreTrainedModel:
    """The model of a member's folder (or a blueprint and `weights`), fp32, in evaluation mode.

    DamagedArtifact as in `load_weights`; ValueError as in `load_config` and `outline`.
    """
    config = load_config(folder)
    outline(config, folder)
    with no_init_weights():  # which also leaves weights untied
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.tie_weights()
    load_weights(model, weights or Path(folder) / "model.safetensors")
    return model.to(device)


def save_model(
    model: PreTrainedModel,
    folder: Path,
    files: tuple[str, ...] = ("model.safetensors", "config.json"),
) -> None:
    """Write weights and configuration into `folder`, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".save.*"):  # of a process that was killed while it saved
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=".save.", dir=folder))
    try:
        model.save_pretrained(temporary, max_shard_size="1000GB")
        for name in files:
            with atomic(folder / name) as target:
                (temporary / name).rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
