"""Parameters and FLOPs per token of a model, from its configuration alone.

N is the number of parameters that multiply a token: all except lookup tables. There are L layers, d
is heads times head size, and a token attends to T tokens. The forward pass takes 2N + 4LdT FLOPs
per token. Training takes three times that: 6N + 12LdT (PaLM, Chowdhery et al. 2022, appendix B; the
causal mask saves nothing in this count). Counts are exact for llama, gpt2 and opt; tests compare
them with transformers.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from pollination.plan.config.weights import read_config, tensors

ALIASES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
}
# settings of a transformers configuration that add no parameters
IDLE = (
    "dropout",
    "pdrop",
    "layerdrop",
    "rope",
    "activation",
    "hidden_act",
    "init",
    "eps",
    "epsilon",
    "token_id",
    "use_cache",
    "scale_attn",
    "pretraining_tp",
    "reorder",
    "summary",
    "dtype",
    "architectures",
    "model_type",
    "transformers_version",
    "head_dim",
    "prefix",
    "gradient_checkpointing",
    "id2label",
    "label2id",
    "task_specific",
    "n_ctx",
    "_name",
    "output_",
    "return_dict",
    "chunk_size",
    "problem_type",
    "is_",
    "torchscript",
    "default_theta",
)
# constants that some model folders hold beside the weights, and scales of quantised weights
BUFFERS = ("inv_freq", "masked_bias", ".attention.bias", ".attn.bias", "position_ids")
SCALES = (".scales", ".qzeros", "_scale_inv", ".weight_scale", ".SCB", ".absmax", ".input_scale")
KNOWN = {
    "llama": (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
        "tie_word_embeddings",
        "attention_bias",
        "mlp_bias",
    ),
    "gpt2": (
        "vocab_size",
        "n_positions",
        "n_embd",
        "n_layer",
        "n_head",
        "n_inner",
        "tie_word_embeddings",
    ),
    "opt": (
        "vocab_size",
        "hidden_size",
        "ffn_dim",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
        "word_embed_proj_dim",
        "do_layer_norm_before",
        "_remove_final_layer_norm",
        "enable_bias",
        "layer_norm_elementwise_affine",
        "tie_word_embeddings",
    ),
}


class Unknown(ValueError):
    """An amount that is unknown before the run; the message says what to provide."""


@dataclass(frozen=True)
class Shape:
    """Size of a model.

    `parameters`: all, shared ones counted once. `multiplied`: N above. `width`: d above.
    """

    parameters: float
    multiplied: float
    layers: int = 0
    width: int = 0
    vocabulary: int = 0

    def forward(self, context_tokens: float) -> float:
        """Return the FLOPs of a token that attends to `context_tokens`."""
        return 2.0 * self.multiplied + 4.0 * self.layers * self.width * context_tokens

    def training(self, context_tokens: float) -> float:
        return 3 * self.forward(context_tokens)


@cache
def published() -> dict:
    """Return the tables of published.yaml."""
    return yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))


def shape(config: dict) -> Shape:
    """Return the shape of a transformers configuration; absent keys have the library's defaults.

    Unknown: its family is not in KNOWN, or a setting may add parameters.
    """
    family = config.get("model_type")
    if family not in KNOWN:
        raise Unknown(
            f"the parameters of architecture {family!r} cannot be counted; supported: llama, gpt2, "
            "opt"
        )
    if family == "gpt2":
        config = {ALIASES.get(key, key): value for key, value in config.items()}
    strange = [
        key
        for key, value in config.items()
        if value and key not in KNOWN[family] and not any(word in key for word in IDLE)
    ]
    if strange:
        raise Unknown(
            f"settings.{strange[0]}: it may add parameters to {family!r} that cannot be counted"
        )
    return {"llama": _llama, "gpt2": _gpt2, "opt": _opt}[family](config)


def _llama(config: dict) -> Shape:
    v, h = config["vocab_size"], config.get("hidden_size", 4096)
    i = config.get("intermediate_size", 11008)
    layers, heads = config.get("num_hidden_layers", 32), config.get("num_attention_heads", 32)
    size, shared = config.get("head_dim") or h // heads, config.get("num_key_value_heads") or heads
    projections = 2 * h * heads * size + 2 * h * shared * size
    biases = (heads + 2 * shared) * size + h if config.get("attention_bias") else 0
    biases += 2 * i + h if config.get("mlp_bias") else 0
    body = layers * (projections + 3 * h * i + 2 * h + biases) + h
    tied = config.get("tie_word_embeddings", False)
    return Shape(body + v * h * (1 if tied else 2), body + v * h, layers, heads * size, v)


def _gpt2(config: dict) -> Shape:
    v, h = config.get("vocab_size", 50257), config.get("n_embd", 768)
    positions = config.get("n_positions", 1024)
    layers, i = config.get("n_layer", 12), config.get("n_inner") or 4 * h
    body = layers * (4 * h * h + 4 * h + 2 * h * i + i + h + 4 * h) + 2 * h
    tied = config.get("tie_word_embeddings", True)
    return Shape(body + positions * h + v * h * (1 if tied else 2), body + v * h, layers, h, v)


def _opt(config: dict) -> Shape:
    v, h = config.get("vocab_size", 50272), config.get("hidden_size", 768)
    i, layers = config.get("ffn_dim", 3072), config.get("num_hidden_layers", 12)
    positions = config.get("max_position_embeddings", 2048)
    projected = config.get("word_embed_proj_dim") or h
    bias = config.get("enable_bias", True)
    norm = 2 * h if config.get("layer_norm_elementwise_affine", True) else 0
    removed = config.get("_remove_final_layer_norm", False)
    body = layers * (4 * h * h + 2 * h * i + (5 * h + i if bias else 0) + 2 * norm)
    body += norm if config.get("do_layer_norm_before", True) and not removed else 0
    body += 2 * h * projected if projected != h else 0
    tied = config.get("tie_word_embeddings", True)
    parameters = body + (positions + 2) * h + v * projected * (1 if tied else 2)
    return Shape(parameters, body + v * projected, layers, h, v)


def model_shape(
    config: dict, name: str, words: dict[str, int], parameters: dict[str, int]
) -> Shape:
    """Return the shape of the model `name` of a run's config.

    `words`: vocabulary of word tokenizers by corpus; `parameters`: counts by model. Unknown: the
    message says what is missing and what to provide.
    """
    spec, help = config["models"][name], f"give --parameters {name}=COUNT"
    if name in parameters:
        return Shape(parameters[name], parameters[name])
    try:
        source = spec["pretrained"]
        if isinstance(source, dict):
            pool = config["founders"][source["founders"]]["model"]
            founder = pool if isinstance(pool, str) else pool[0]
            return model_shape(config, founder, words, parameters)
        if source:
            return _pretrained_shape(source)
        settings = {"max_position_embeddings": spec["context_tokens"], "tie_word_embeddings": True}
        settings |= spec["settings"]
        if "vocab_size" not in settings:
            settings["vocab_size"] = _vocabulary(spec["tokenizer"], words)
        return shape({"model_type": spec["architecture"]} | settings)
    except Unknown as reason:
        raise Unknown(f"models.{name}: {reason}; {help}") from None


def _pretrained_shape(source: str) -> Shape:
    """Return the shape of a pretrained model; of other families, the number of its weights alone.

    Without the width of its layers, the FLOPs leave out the attention to other tokens.
    """
    config = _pretrained(source)
    try:
        return shape(config)
    except Unknown:
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise
        count = _weights(folder)
        parts = [config, *(part for part in config.values() if isinstance(part, dict))]
        sizes = (part.get("vocab_size") for part in parts)
        vocabulary = next((size for size in sizes if isinstance(size, int)), 0)
        return Shape(count, count, vocabulary=vocabulary)


def _weights(folder: Path) -> int:
    """Count the weights of a folder from the headers of its safetensors files.

    Unknown: there are no readable files, or the weights are quantised (packed into integers).
    """
    try:
        found = tensors(folder).items()
    except ValueError as reason:
        raise Unknown(str(reason)) from None
    weights = {
        name: tensor
        for name, tensor in found
        if not name.endswith(BUFFERS)
        and not (len(tensor.shape) == 4 and tensor.shape[:2] == (1, 1))
    }
    packed = [name for name, tensor in weights.items() if not tensor.is_floating]
    if packed or any(name.endswith(SCALES) for name in weights):
        name = packed[0] if packed else next(n for n in weights if n.endswith(SCALES))
        raise Unknown(f"{str(folder)!r} holds quantised weights, e.g. {name!r}")
    return sum(tensor.size for tensor in weights.values())


def _pretrained(source: str) -> dict:
    folder = Path(source).expanduser()
    if folder.is_dir():
        try:
            return read_config(folder)
        except ValueError as reason:
            raise Unknown(str(reason)) from None
    if source in published()["models"]:
        return published()["models"][source]
    raise Unknown(
        f"pretrained {source!r} is not a local folder, and its size is not in "
        "pollination/analysis/cost/published.yaml"
    )


def _vocabulary(tokenizer: dict, words: dict[str, int]) -> int:
    if tokenizer["kind"] == "bpe":
        return tokenizer["vocab_size"]
    if tokenizer["kind"] == "word":
        if tokenizer["corpus"] not in words:
            raise Unknown(
                f"tokenizer.corpus {tokenizer['corpus']!r}: its number of words is unknown until "
                "the run reads it"
            )
        return words[tokenizer["corpus"]]
    source = tokenizer.get("source", "")
    file = Path(source).expanduser() / "tokenizer.json"
    if file.is_file():
        content = json.loads(file.read_text(encoding="utf-8"))
        vocabulary = content["model"].get("vocab", {})
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else range(len(vocabulary))
        return 1 + max([*ids, *(token["id"] for token in content.get("added_tokens", []))])
    if source in published()["tokenizers"]:
        return published()["tokenizers"][source]
    raise Unknown(
        f"tokenizer.source {source!r}: the size of its vocabulary is not in "
        "pollination/analysis/cost/published.yaml; set settings.vocab_size"
    )
