"""Write blueprints (configuration and tokenizer), create or load models, and save them."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.initialization import no_init_weights
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.logging import disable_progress_bar

from pollination.core import causes
from pollination.core.artifacts import DamagedArtifact, atomic
from pollination.data.special import listed_ids, special_tokens
from pollination.data.tokens import largest_id
from pollination.models.contract import settle
from pollination.models.limits import POSITIONS, context_limit, embedding_rows, fits
from pollination.models.weights import (
    beside,
    check_head,
    check_source,
    differences,
    follow_ties,
    index_of,
    open_tensors,
    untie,
    weight_files,
)
from pollination.plan.config.values import nearest

disable_progress_bar()  # a progress bar is unreadable in a log file
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_LAYERS = 1000  # beyond this, module objects alone take minutes and gigabytes


def load_tokenizer(folder: str | Path):
    """Load the tokenizer of a model folder. Code in the folder is never run.

    It reads tokenizer.json alone. The class that transformers chooses by the architecture may
    ignore this file: a Qwen2Tokenizer reads no vocabulary of words.
    DamagedArtifact: it is unreadable or has no eos token.
    """
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder), trust_remote_code=False)
        known, eos_id = largest_id(tokenizer), tokenizer.eos_token_id
    except Exception as error:  # loaders raise any class, even bare Exception
        raise DamagedArtifact(
            f"{folder}: its tokenizer cannot be loaded ({_reason(error)}). Delete the folder's "
            "files and run snakemake again"
        ) from None
    if eos_id is None or not 0 <= eos_id <= known:
        raise DamagedArtifact(
            f"{folder}: its tokenizer has no eos token, which separates documents. Delete the "
            "folder's files and run snakemake again"
        )
    return tokenizer


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def load_config(folder: str | Path, name: str = "") -> AutoConfig:
    """Load the transformers configuration of a folder or hub name. Its code is never run.

    ValueError: it cannot be read. The message calls it `name`.
    """
    try:
        return _bare(AutoConfig.from_pretrained(str(folder), trust_remote_code=False))
    except Exception as error:  # validation, loaders and JSON raise different classes
        raise ValueError(
            f"{name or folder}: transformers cannot read its config.json ({_reason(error)}); code "
            "in a model's folder is never run. Name a model of a built-in architecture, or restore "
            "the file"
        ) from None


def _bare(config: AutoConfig) -> AutoConfig:
    """Let a forward pass return logits by name and nothing else, whatever the configuration asks.

    Transformers cannot save a configuration that asks for attentions.
    """
    for part in (config, config.get_text_config(decoder=True)):
        part.return_dict, part.output_attentions, part.output_hidden_states = True, False, False
    return config


def outline(config: AutoConfig, name: str | Path) -> PreTrainedModel:
    """Build the model of a configuration without memory for its weights.

    ValueError: it cannot be built, or its weights exceed the memory of the node.
    """
    layers = getattr(config, "num_hidden_layers", 0) or 0
    if layers > MAX_LAYERS:
        raise ValueError(
            f"{name}: its configuration asks for {layers:,} layers; allowed: at most "
            f"{MAX_LAYERS:,}. Lower the number"
        )
    try:
        with torch.device("meta"), no_init_weights():
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # sizes may not divide, or be negative, mistyped or too large
        raise ValueError(
            f"{name}: no model can be built from its configuration ({_reason(error)}). Correct its "
            "sizes"
        ) from None
    count = sum(p.numel() for p in model.parameters())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 4 * count > memory:
        raise ValueError(
            f"{name}: its configuration asks for {count:,} parameters "
            f"({4 * count / 2**30:,.0f} GiB in fp32); allowed: the {memory / 2**30:,.0f} GiB of "
            "this node's memory. Lower its sizes, or use a node with more memory"
        )
    return model


def _positions(config: AutoConfig) -> str:
    """Return the name of an architecture's setting of its number of positions."""
    return next((name for name in POSITIONS if hasattr(config, name)), POSITIONS[0])


def make_config(spec: dict, tokenizer, key: str = "models") -> AutoConfig:
    """Make the transformers configuration of a new model. `key` is its key in the config.

    ValueError: the architecture or a setting is unknown, or the values do not fit.
    """
    architecture = spec["architecture"]
    if architecture not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        known = list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
        raise ValueError(
            f"{key}.architecture: {architecture!r} is not a causal language model of "
            f"transformers{nearest(architecture, known)}; allowed: the model types of its causal "
            "language models, e.g. llama, gpt2 or opt"
        )
    default = AutoConfig.for_model(architecture)
    for setting in spec["settings"]:
        if not hasattr(default, setting):
            known = sorted(default.to_dict())
            raise ValueError(
                f"{key}.settings.{setting}: unknown to architecture "
                f"{architecture!r}{nearest(setting, known)}; allowed: {', '.join(known)}"
            )
    ours = {
        "vocab_size": largest_id(tokenizer) + 1,
        _positions(default): spec["context_tokens"],
        "bos_token_id": special_tokens(tokenizer).first_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
        "tie_word_embeddings": True,
    }
    # one name per setting: GPT-2's n_positions is max_position_embeddings
    settings = {
        default.attribute_map.get(name, name): value
        for name, value in (ours | spec["settings"]).items()
    }
    size = settings["vocab_size"]
    if not isinstance(size, int) or size <= largest_id(tokenizer):
        raise ValueError(
            f"{key}.settings.vocab_size: {size!r} is too small for the tokenizer; allowed: an "
            f"integer of at least {largest_id(tokenizer) + 1}. Raise it or leave it out"
        )
    try:
        return _bare(AutoConfig.for_model(architecture, **settings))
    except Exception as error:  # its validation raises other classes
        raise ValueError(
            f"{key}.settings: {architecture} rejects them ({_reason(error)}). Correct their types "
            "and sizes"
        ) from None


def write_blueprint(spec: dict, tokenizer, folder: Path) -> None:
    """Write config.json of a model's blueprint, and model.safetensors of a pretrained model.

    `folder` has the name of the model.
    ValueError: tokenizer or context_tokens do not fit the model, or the model cannot be made.
    """
    key = f"models.{Path(folder).name}"
    if not spec["pretrained"]:
        config = make_config(spec, tokenizer, key)
        model = outline(config, f"{key}.settings")
        config.eos_token_id = _ends(
            listed_ids(config.eos_token_id),
            tokenizer,
            embedding_rows(model),
            f"{key}.settings.eos_token_id",
            "Correct it, or leave it out",
        )
        config.architectures = [type(model).__name__]
        settle(config, key)
        config.save_pretrained(folder)
        return
    name = f"{key}.pretrained: {spec['pretrained']!r}"
    config = load_config(spec["pretrained"], name)
    embeddings, positions = embedding_rows(outline(config, name)), context_limit(config)
    if not fits(tokenizer, embeddings):
        raise ValueError(
            f"{name}: its tokenizer and model do not fit. The tokenizer has ids up to "
            f"{largest_id(tokenizer)}; allowed: less than the {embeddings} embeddings. Name "
            "another model, or correct its tokenizer"
        )
    if positions and spec["context_tokens"] > positions:
        raise ValueError(
            f"{key}.context_tokens: {spec['context_tokens']} exceeds the positions of "
            f"{spec['pretrained']!r}; allowed: at most {positions}. Lower it"
        )
    model = load_pretrained(spec["pretrained"], config, f"{key}.pretrained")
    settle(model.config, name)
    ends = listed_ids(model.config.eos_token_id) + _generation_ends(spec["pretrained"], name)
    model.config.eos_token_id = _ends(
        ends or [tokenizer.eos_token_id],
        tokenizer,
        embeddings,
        name,
        "Correct eos_token in its tokenizer_config.json or eos_token_id in its config.json",
    )
    save_model(model, folder)


def _generation_ends(source: str, name: str) -> list[int]:
    """Return the ids that end a text by the generation_config.json of a folder or hub name.

    ValueError: they are no ids.
    """
    path = beside(source, "generation_config.json")
    try:
        about = {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
        ends = listed_ids(about.get("eos_token_id"))
        if all(type(end) is int for end in ends):
            return ends
    except (ValueError, TypeError, AttributeError, OSError, RecursionError):
        pass
    raise ValueError(
        f"{name}: its generation_config.json does not say which ids end a text; allowed: an object "
        "whose eos_token_id is an id, a list of ids or null. Correct the file, or remove it"
    )


def _ends(ids: list[int], tokenizer, rows: int, name: str, fix: str) -> int | list[int]:
    """Return a model's ids that end a text, for its config.

    The tokenizer's eos decides what packing and scoring put after a text, so it must be among them.
    """
    eos_id, distinct = tokenizer.eos_token_id, list(dict.fromkeys(ids))
    if eos_id not in distinct:
        raise ValueError(
            f"{name}: its tokenizer ends a text with {tokenizer.eos_token!r} (id {eos_id}), its "
            f"model with {' or '.join(f'id {end}' for end in distinct) or 'no token'}; allowed: "
            f"{eos_id}, alone or in a list. {fix}"
        )
    if outside := [end for end in distinct if not 0 <= end < rows]:
        raise ValueError(
            f"{name}: id {outside[0]}, which ends a text of its model, has no embedding; allowed: "
            f"0 to {rows - 1}. {fix}"
        )
    return distinct if len(distinct) > 1 else eos_id


def load_pretrained(source: str, config: AutoConfig, key: str = "pretrained") -> PreTrainedModel:
    """Load a pretrained model in fp32 from safetensors alone: no pickles, code or invented weights.

    Each tensor of the files equals the model's, and its config's tie_word_embeddings follows them.
    `key` is the config's key of `source`.
    ValueError: there are no safetensors, tensors are missing, do not belong to the architecture or
    have another shape or kind, or values are NaN or infinity; as in `check_head`, `check_source`.
    """
    check_head(source, config, key)
    check_source(source, config, key)
    index = index_of(source, key)
    try:
        kind, files = type(outline(config, source)), weight_files(source, index)
        with ExitStack() as stack:
            model, loading = kind.from_pretrained(
                None,
                config=config,
                state_dict=open_tensors(files, stack),
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # refused below, by name
                output_loading_info=True,
            )
        with ExitStack() as stack:
            # opened again, because the model may share the memory of the slices that it read
            tensors = open_tensors(files, stack)
            wrong = [
                f"tensor {name!r} has shape {tuple(theirs)}, not {tuple(ours)}"
                for name, theirs, ours in sorted(loading["mismatched_keys"])
            ]
            absent = sorted(set(loading["missing_keys"]) | index.keys() - tensors.keys())
            wrong += [f"tensor {name!r} is missing" for name in absent]
            wrong += [
                f"tensor {name!r} holds NaN or infinity"
                for name, tensor in model.state_dict().items()
                if not torch.isfinite(tensor).all()
            ]
            if not wrong:
                wrong = list(differences(model, tensors, set(loading["unexpected_keys"])))
        follow_ties(model)
    except Exception as error:  # many libraries may fail here, each in its own way
        remedy = causes.remedy(
            error,
            "Name a folder or hub model with complete weights as safetensors; pickles are not "
            "opened",
        )
        raise ValueError(
            f"{key}: {source!r} cannot be loaded ({_reason(error)}). {remedy}"
        ) from None
    if wrong:
        raise ValueError(
            f"{key}: {source!r}: {wrong[0]} (findings: {len(wrong)}). Name a complete checkpoint "
            "of this architecture"
        )
    return model


def create_model(folder: str | Path, seed: int) -> PreTrainedModel:
    """Create the model of a blueprint, initialised from `seed` on the CPU in fp32."""
    config = load_config(folder)
    outline(config, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def empty_model(config: AutoConfig) -> PreTrainedModel:
    """Create a model in fp32 on the CPU, whose weights have no values yet and are not tied.

    Their memory is used only when they are written.
    """
    with no_init_weights():
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def start_model(folder: Path, weights: Path | None, seed: int) -> PreTrainedModel:
    """Return the model at the start of training: with `weights`, or new ones from `seed`.

    Errors as in `load_model`.
    """
    if weights is not None:
        return load_model(folder, weights=weights)
    return create_model(folder, seed)


def load_weights(model: PreTrainedModel, state: dict[str, torch.Tensor], path: Path) -> None:
    """Copy the tensors of the safetensors file `path` into a model.

    DamagedArtifact: tensors, shapes or values do not fit the model, or the model ties tensors that
    differ in the file.
    """

    def refuse(name: str, what: str) -> None:
        raise DamagedArtifact(
            f"{path}: tensor {name!r} {what}. Delete the file and run snakemake again"
        )

    ours, foreign = model.state_dict(), "so these are not the weights of this model"
    for name in ours:
        if name not in state and model.all_tied_weights_keys.get(name) not in state:
            refuse(name, f"is missing, {foreign}")
    for name, tensor in state.items():
        if name not in ours:
            refuse(name, f"does not belong to this architecture, {foreign}")
        if tensor.shape != ours[name].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(ours[name].shape)}"
            refuse(name, f"has shape {shapes}, {foreign}")
        if tensor.dtype not in FLOATS and tensor.dtype != ours[name].dtype:
            refuse(name, f"holds {tensor.dtype}, not floating-point numbers of 16 to 64 bits")
        # aminmax keeps NaN and needs one pass without memory
        ends = torch.stack(tensor.aminmax()).to(ours[name].dtype)
        if not ends.isfinite().all():
            refuse(name, "holds NaN or infinity")
    model.load_state_dict(state, strict=False)
    model.tie_weights()
    for name, tensor in model.state_dict().items():
        if name in state and not torch.equal(tensor, state[name].to(tensor.dtype)):
            refuse(name, "differs from a tensor that the model's configuration ties to it")


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a safetensors file.

    DamagedArtifact: it is truncated or has another format.
    """
    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) or causes.of_system(error):
            raise
        reason = str(error).splitlines()[0]
        raise DamagedArtifact(
            f"{path}: not a readable safetensors file ({reason}). Delete it and run snakemake again"
        ) from None


def load_member(
    folder: str | Path,
    device: torch.device | str = "cpu",
    build: Callable[[AutoConfig], PreTrainedModel] = empty_model,
) -> tuple[PreTrainedModel, Any]:
    """Load (model, tokenizer) of a member's folder. `build` as in `load_model`.

    DamagedArtifact: a loader raises it, or the tokenizer has ids without an embedding.
    """
    tokenizer, model = load_tokenizer(folder), load_model(folder, device, build=build)
    check_vocabulary(folder, model, tokenizer)
    return model, tokenizer


def check_vocabulary(folder: str | Path, model: PreTrainedModel, tokenizer) -> None:
    """DamagedArtifact: the tokenizer of a member's folder has ids without an embedding."""
    rows = embedding_rows(model)
    if not fits(tokenizer, rows):
        raise DamagedArtifact(
            f"{folder}: its tokenizer has ids up to {largest_id(tokenizer)}, but its model has "
            f"embeddings for {rows} tokens. Delete the folder's files and run snakemake again"
        )


def load_model(
    folder: str | Path,
    device: torch.device | str = "cpu",
    weights: str | Path | None = None,
    build: Callable[[AutoConfig], PreTrainedModel] = empty_model,
) -> PreTrainedModel:
    """Load the model of a member's folder, or of a blueprint and `weights`.

    It is in fp32 and in evaluation mode. `build` returns the model of a configuration, on the CPU;
    the weights replace those that it has.
    DamagedArtifact as in `load_weights`, ValueError as in `load_config` and `outline`.
    """
    config, path = load_config(folder), Path(weights or Path(folder) / "model.safetensors")
    ties = outline(config, folder).all_tied_weights_keys
    state = read_weights(path)
    pairs = [(state[a], state[b]) for a, b in ties.items() if a in state and b in state]
    if pairs and not any(torch.equal(a, b) for a, b in pairs):
        untie(config)
    model = build(config)
    model.tie_weights()
    load_weights(model, state, path)
    return model.to(device)


def save_model(
    model: PreTrainedModel,
    folder: Path,
    files: tuple[str, ...] = ("model.safetensors", "config.json"),
) -> None:
    """Write weights and configuration into `folder`, each file atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".save.*"):  # a process was killed while it saved
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=".save.", dir=folder))
    try:
        # the names of the model's own tensors, which `load_weights` reads
        model.save_pretrained(temporary, max_shard_size="1000GB", save_original_format=False)
        _check_saved(model, temporary / "model.safetensors")
        for name in files:
            with atomic(folder / name) as target:
                (temporary / name).rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_saved(model: PreTrainedModel, path: Path) -> None:
    """Check that a file holds each tensor of a model, except those that the model ties to others.

    ValueError: one is missing.
    """
    with safe_open(str(path), "pt") as file:
        names = set(file.keys())
    ties = model.get_expanded_tied_weights_keys(all_submodels=True)
    for name in model.state_dict():
        if name not in names and ties.get(name) not in names:
            raise ValueError(
                f"{type(model).__name__}: its tensor {name!r} cannot be saved as safetensors, so "
                "models of this architecture cannot be kept. Choose another architecture"
            )
