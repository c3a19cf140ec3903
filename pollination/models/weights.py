"""Find the tensors of a checkpoint's files, and compare each with the loaded model.

Transformers renames, splits and joins tensors as it loads them, drops some, and ties others by its
configuration. So a load counts only if each tensor of the files is found in the model again.
"""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    rename_source_key,
    revert_weight_conversion,
)
from transformers.modeling_utils import _get_resolved_checkpoint_files
from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

from pollination.core import artifacts

FLOATS = ("F16", "BF16", "F32", "F64")  # F8 and integers are quantised weights without a scale
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
# The head of a checkpoint that is no causal language model: ForSequenceClassification and so on.
OTHER_HEADS = r"For(?!CausalLM|ConditionalGeneration|PreTraining)[A-Z]\w*$"
SPARE_FILES = r"consolidated.*|model\.[^-]*"  # the same weights in other names or another precision
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER = (
    "*token*.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template.*",
    "generation_config.json",
)
CACHES = r"rotary_emb\.(cos|sin)_cached$"  # tables that old models stored beside their weights

Tensors = dict[str, Any]  # name -> a slice of safetensors, which is read when it is indexed


def check_head(source: str, config: AutoConfig, key: str) -> None:
    """Check that a checkpoint is a causal language model's. ValueError: it names another head."""
    named = getattr(config, "architectures", None) or []
    named = named if isinstance(named, list) else [named]
    if named and all(re.search(OTHER_HEADS, str(name)) for name in named):
        raise ValueError(
            f"{key}: {source!r} holds a {named[0]} (architectures in its config.json), which is "
            "not a causal language model. Name a causal language model"
        )


def check_source(source: str, config: AutoConfig, key: str, revision: str | None = None) -> None:
    """Check that a pretrained folder or hub name holds the whole weights of one model, and once.

    `key` is the config's key of `source`.
    ValueError: it holds an adapter, quantised weights, or safetensors that would be ignored.
    """
    for name in ADAPTERS:
        if beside(source, name, revision):
            raise ValueError(
                f"{key}: {source!r} holds an adapter ({name}), which would be ignored. Merge it "
                "into the weights (peft: merge_and_unload, then save_pretrained), or remove its "
                "files"
            )
    for part in (config, config.get_text_config(decoder=True)):
        for setting in ("quantization_config", "compression_config"):
            if getattr(part, setting, None):
                raise ValueError(
                    f"{key}: {source!r} holds quantised weights ({setting} in its config.json), "
                    "which are not read. Name the model before its quantisation"
                )
    if getattr(config, "transformers_weights", None):
        raise ValueError(
            f"{key}: {source!r}: its config.json names the file of its weights "
            "(transformers_weights). Rename the file to model.safetensors and remove the key"
        )
    _check_files(source, key, revision)


def index_of(source: str, key: str, revision: str | None = None) -> dict[str, str]:
    """Return {tensor: file} of model.safetensors.index.json, or {} if there is none.

    ValueError: it is not readable.
    """
    index = beside(source, INDEX, revision)
    if index is None:
        return {}
    try:
        names = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
        return {str(name): Path(file).name for name, file in names.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{key}: {source!r}: its {INDEX} is not readable ({error}). Restore the file"
        ) from None


def _check_files(source: str, key: str, revision: str | None) -> None:
    read = set(index_of(source, key, revision).values()) or {SINGLE}
    if read != {SINGLE} and beside(source, SINGLE, revision):
        raise ValueError(
            f"{key}: {source!r} holds {SINGLE} beside {INDEX}, which names other files. Remove the "
            "one that is out of date"
        )
    folder = Path(source).expanduser()
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        if path.name not in read and not re.fullmatch(SPARE_FILES, path.stem):
            raise ValueError(
                f"{key}: {source!r} holds {path.name}, which would be ignored, because no index "
                f"names it. Remove it, or complete {INDEX}"
            )


def beside(source: str, name: str, revision: str | None = None) -> str | None:
    """Return the path of a file of a folder or a hub model, or None if there is none."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return str(folder / name) if (folder / name).exists() else None
    return cached_file(
        source,
        name,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )


def weight_files(source: str, index: dict[str, str], revision: str | None = None) -> list[Path]:
    """Return the safetensors files of a pretrained folder or hub name, with its `index_of`.

    OSError: one is missing.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        files = [folder / name for name in sorted(set(index.values()) or {SINGLE})]
        if missing := [path.name for path in files if not path.is_file()]:
            raise OSError(f"there is no file {missing[0]}")
        return files
    # of models that have only pickles, the hub holds safetensors that it has converted
    found, _ = _get_resolved_checkpoint_files(
        source,
        variant=None,
        gguf_file=None,
        use_safetensors=True,
        user_agent=None,
        is_remote_code=False,
        download_kwargs={"revision": revision},
    )
    return [Path(file) for file in found or []]


def provenance(source: str) -> dict[str, str]:
    """Return what the record says about a pretrained model.

    Of a folder, file -> SHA-256 of config.json, the weights and the tokenizer's files; of a hub
    model, its `revision`.
    OSError: a file is missing. DamagedArtifact: a file differs from the record in its folder.
    """
    files = weight_files(source, index_of(source, source))
    folder = Path(source).expanduser()
    if folder.is_dir():
        files = [folder / "config.json", *files, *tokenizer_files(folder)]
        return {path.name: artifacts.check(path) for path in files}
    revision = extract_commit_hash(str(files[0]), None) if files else None
    return {"revision": revision} if revision else {}


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of a folder that transformers may read a tokenizer from."""
    found = {path for pattern in TOKENIZER for path in folder.glob(pattern) if path.is_file()}
    return sorted(found)


def open_tensors(files: list[Path], stack: ExitStack) -> Tensors:
    """Return the tensors of safetensors files, unread. `stack` keeps the files open.

    ValueError: two files hold a tensor of one name.
    """
    tensors: Tensors = {}
    for path in files:
        file = stack.enter_context(safe_open(str(path), "pt"))
        for name in file.keys():
            if name in tensors:
                raise ValueError(f"tensor {name!r} stands in two files, the second is {path.name}")
            tensors[name] = file.get_slice(name)
    return tensors


def differences(model: PreTrainedModel, tensors: Tensors, unexpected: set[str]) -> Iterator[str]:
    """Yield what of `tensors` the loaded model does not hold, in one clause each.

    `unexpected` holds the names that transformers neither loaded nor lists as harmless.
    """
    persistent = model.state_dict()
    buffers = dict(model.named_buffers())
    mapping = get_model_conversion_mapping(model)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    prefix, converted, held = model.base_model_prefix, [], set()
    for name, part in tensors.items():
        # the rule of transformers' loader, convert_and_load_state_dict_in_model
        new, pattern = rename_source_key(name, renamings, converters, prefix, persistent)
        if new not in persistent and name in persistent:
            new, pattern = rename_source_key(name, [], [], prefix, persistent)
        held.add(new)
        if pattern is not None:
            converted.append(name)
        elif new in persistent:
            if wrong := _differs(part, persistent[new]):
                yield f"tensor {name!r} {wrong}"
        elif new in buffers:
            if _differs(part, buffers[new], near=True):
                yield f"tensor {name!r} differs from the buffer that the configuration gives"
        elif new in unexpected and not _is_mask(part) and not re.search(CACHES, new):
            yield f"tensor {name!r} is not part of this architecture and would be ignored"
        elif new.endswith("rotary_emb.inv_freq") and not _same_rotation(model, part):
            yield f"tensor {name!r} differs from the rotation that the configuration gives"
    optional = "|".join(model._keys_to_ignore_on_load_missing or [])
    shared = {id(persistent[name]) for name in held & persistent.keys()}
    for name, parameter in model.named_parameters():
        absent = name not in held and id(parameter) not in shared
        if optional and absent and re.search(optional, name):
            yield f"tensor {name!r} is missing"
    if converted:
        yield from _converted_differences(model, {name: tensors[name] for name in converted})


def _converted_differences(model: PreTrainedModel, tensors: Tensors) -> Iterator[str]:
    """Compare tensors that transformers split or joined, by the way back to the file's form."""
    try:
        back = revert_weight_conversion(model, model.state_dict())
    except Exception as error:  # a conversion may have no way back
        yield f"tensor {next(iter(tensors))!r} is converted and cannot be compared ({error})"
        return
    prefix = f"{model.base_model_prefix}."
    for name, part in tensors.items():
        names = (name, prefix + name, name.removeprefix(prefix))
        found = next((back[other] for other in names if other in back), None)
        if found is None:
            yield f"tensor {name!r} is converted and cannot be compared"
        elif wrong := _differs(part, found):
            yield f"tensor {name!r} {wrong}"


def _read(part: Any) -> torch.Tensor:
    return part[:] if part.get_shape() else part[...]


def _differs(part: Any, ours: torch.Tensor, near: bool = False) -> str | None:
    """Return how a tensor of the file differs from the model's, after the cast to its type."""
    kind = part.get_dtype()
    if ours.is_floating_point() and kind not in FLOATS:
        return f"holds {kind}, not floating-point numbers of 16 to 64 bits"
    if list(part.get_shape()) != list(ours.shape):
        return f"has shape {tuple(part.get_shape())}, not {tuple(ours.shape)}"
    theirs = _read(part)
    if near and ours.is_floating_point() and theirs.is_floating_point():
        tolerance = 4 * torch.finfo(theirs.dtype).eps  # computed on another machine
        same = torch.allclose(theirs.double(), ours.double(), rtol=tolerance, atol=1e-7)
    else:
        same = torch.equal(theirs.to(ours.dtype), ours)
    return None if same else "is not what the loaded model holds in its place"


def _is_mask(part: Any) -> bool:
    """Return whether a tensor is a causal mask, or the number that old models put in its place."""
    shape = part.get_shape()
    if shape in ([], [1]):
        return bool(_read(part) <= -1e4)
    if len(shape) < 2 or shape[-1] != shape[-2] or any(size != 1 for size in shape[:-2]):
        return False
    mask = _read(part).reshape(shape[-2:])
    return torch.equal(mask, torch.ones_like(mask).tril())


def _same_rotation(model: PreTrainedModel, part: Any) -> bool:
    """Check frequencies that old checkpoints hold in each layer. Scaled ones are not compared."""
    rope = getattr(model.config.get_text_config(decoder=True), "rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default":
        return True
    return any(
        _differs(part, buffer, near=True) is None
        for name, buffer in model.named_buffers()
        if name.endswith("rotary_emb.inv_freq")
    )


def follow_ties(model: PreTrainedModel) -> None:
    """Make tie_word_embeddings say whether the loaded model shares its embeddings with its head.

    ValueError: the model ties some of its tensors and others not, which the key cannot say.
    """
    pairs = model.get_expanded_tied_weights_keys(all_submodels=True)
    apart = [
        name
        for name, other in pairs.items()
        if model.get_parameter_or_buffer(name) is not model.get_parameter_or_buffer(other)
    ]
    if apart and len(apart) < len(pairs):
        raise ValueError(
            f"tensor {apart[0]!r} differs from {pairs[apart[0]]!r}, while others that "
            "tie_word_embeddings ties are equal"
        )
    if apart:
        untie(model.config)
        for module in model.modules():
            if isinstance(module, PreTrainedModel):
                untie(module.config)


def untie(config: AutoConfig) -> None:
    """Set tie_word_embeddings to False, in the part of a text model too."""
    for part in (config, config.get_text_config(decoder=True)):
        part.tie_word_embeddings = False
