"""Make a small random copy of a model that has every kind of layer and hides nothing.

Weights are drawn so large that each layer changes the logits, and no bias is 0. Sliding windows and
chunks are so short that a few tokens exceed them.
"""

import copy
import re
import warnings

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights

WINDOW = 8  # tokens of a sliding window or chunk
# names of numbers of tokens from which on a layer computes otherwise
SPANS = "window|chunk|index_topk|block_size|floor_scale|rel_extent"
VOCABULARY = 128
POSITIONS = 64  # at least
WIDE = 100_000_000  # parameters; a larger copy gets narrow layers if its configuration allows it
NARROW = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
# those of any other type change if a text exceeds the original length
FIXED_ROTATIONS = ("default", "linear", "llama3", "yarn", "dynamic", "proportional")
GAIN = 1.5  # standard deviation of a matrix times the square root of its width


def small_copy(config: AutoConfig) -> PreTrainedModel:
    """Return a small model of the configuration's architecture, in fp32 on the CPU.

    It has all kinds of layers of the whole model, in their order. Equal configurations give equal
    copies. An exception of any class: transformers cannot build the model.
    """
    whole = _kinds(_outline(config))
    failure: Exception | None = None
    for change in (_narrowed, _reduced, _shortened):
        try:
            smaller = change(copy.deepcopy(config), _depth(whole))
            if set(_kinds(_outline(smaller))) != set(whole):
                continue
            model = _drawn(smaller)
            with torch.no_grad():
                model(input_ids=torch.ones((1, 2 * WINDOW), dtype=torch.long), use_cache=False)
            return model
        except Exception as error:  # its sizes may depend on each other
            failure = error
    raise failure or ValueError("it has no layers")


def _outline(config: AutoConfig) -> PreTrainedModel:
    with torch.device("meta"), no_init_weights(), warnings.catch_warnings(action="ignore"):
        return AutoModelForCausalLM.from_config(copy.deepcopy(config), trust_remote_code=False)


def _kinds(model: PreTrainedModel) -> list[tuple]:
    """Return one value per layer of text. Layers with equal values compute in the same way."""
    text = model.get_decoder()  # beside it, a model may have an encoder of images
    lists = [m for m in text.modules() if isinstance(m, torch.nn.ModuleList)]
    layers = max(lists, key=len, default=torch.nn.ModuleList())
    return [
        tuple(
            (name, type(module).__name__)
            + tuple(
                (key, value if isinstance(value, bool | str) else type(value).__name__)
                for key, value in sorted(vars(module).items())
                if isinstance(value, bool | str | int | float | None) and key != "layer_idx"
            )
            for name, module in layer.named_modules()
        )
        for layer in layers
    ]


def _depth(kinds: list[tuple]) -> int:
    """Return the number of first layers that have all kinds, at least 2."""
    firsts = [kinds.index(kind) for kind in set(kinds)]
    return max(2, max(firsts, default=0) + 1)


def _shortened(config: AutoConfig, _: int) -> AutoConfig:
    """Shorten windows, chunks and the lengths at which rotations change, in place."""
    text = config.get_text_config()
    if getattr(text, "max_position_embeddings", None):
        text.max_position_embeddings = max(text.max_position_embeddings, POSITIONS)
    for name, value in vars(text).items():
        if re.search(SPANS, name) and type(value) is int and value > WINDOW:
            setattr(text, name, WINDOW)
    rope = getattr(text, "rope_parameters", None)
    if isinstance(rope, dict):
        nested = [value for value in rope.values() if isinstance(value, dict)]
        for rotations in nested or [rope]:
            if rotations.get("rope_type", "default") not in FIXED_ROTATIONS:
                rotations["original_max_position_embeddings"] = WINDOW
                text.original_max_position_embeddings = WINDOW
    return config


def _reduced(config: AutoConfig, depth: int) -> AutoConfig:
    """Remove layers too, and set the number of tokens, in place."""
    text = config.get_text_config()
    layers = text.num_hidden_layers
    for name, value in vars(text).items():
        if isinstance(value, list | tuple) and len(value) == layers:
            setattr(text, name, type(value)(value[:depth]))
    text.num_hidden_layers = min(layers, depth)
    if text.vocab_size > VOCABULARY:
        for name, value in vars(text).items():
            if name.endswith("token_id") and value is not None:
                setattr(text, name, 1)
    text.vocab_size = VOCABULARY  # texts of two or three different tokens would show little
    return _shortened(config, depth)


def _narrowed(config: AutoConfig, depth: int) -> AutoConfig:
    """Narrow the layers too, in place, if the model is still wide."""
    config = _reduced(config, depth)
    if sum(p.numel() for p in _outline(config).parameters()) > WIDE:
        text = config.get_text_config()
        for name, value in NARROW.items():
            if type(getattr(text, name, None)) is int:
                setattr(text, name, min(value, getattr(text, name)))
    return config


@torch.no_grad()
def _drawn(config: AutoConfig) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=False
        ).eval()
        for parameter in model.parameters():
            if parameter.ndim < 2:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif 0 < (spread := parameter.std()) < (wanted := GAIN / parameter.shape[-1] ** 0.5):
                parameter.mul_(wanted / spread)
    return model
