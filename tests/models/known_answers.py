"""Small fixed models of ten architectures. Their weights come from numpy, so no version of torch
changes them. `python -m tests.models.known_answers` prints what transformers alone answers."""

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

SIZE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
GROUPED = SIZE | {"num_key_value_heads": 1, "head_dim": 16}
ARCHITECTURES = {
    "llama": SIZE,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "opt": SIZE | {"ffn_dim": 64, "word_embed_proj_dim": 16},
    "gpt_neox": SIZE,
    "qwen2": SIZE | {"num_key_value_heads": 1},
    "qwen3": GROUPED,
    "gemma2": GROUPED | {"sliding_window": 8},
    "mistral": SIZE | {"num_key_value_heads": 1, "sliding_window": 8},
    "phi": SIZE,
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}
TEXT = np.random.default_rng(1).integers(1, 61, 40)
PROMPT, NEW = TEXT[:5].tolist(), 10


def fixed_model(architecture: str):
    config = AutoConfig.for_model(
        architecture,
        vocab_size=61,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
        **ARCHITECTURES[architecture],
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    numbers = np.random.default_rng(0)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            drawn = torch.from_numpy(numbers.normal(size=parameter.shape)).float()
            if parameter.ndim < 2:  # a constant is kept, random numbers of torch are not
                constant = bool((parameter == parameter[0]).all())
                parameter.copy_(0.1 * drawn + (parameter if constant else 0))
            else:
                parameter.copy_(drawn * 2 / parameter.shape[-1] ** 0.5)
    return model


def by_transformers(architecture: str) -> tuple[float, list[int]]:
    """Return the perplexity of TEXT after its first token, and how PROMPT goes on greedily."""
    model, ids = fixed_model(architecture), torch.from_numpy(TEXT)[None]
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        written = model.generate(
            torch.tensor([PROMPT]),
            attention_mask=torch.ones((1, len(PROMPT)), dtype=torch.long),
            min_new_tokens=NEW,
            max_new_tokens=NEW,
            do_sample=False,
            pad_token_id=0,
        )
    return round(float(loss.exp()), 3), written[0, len(PROMPT) :].tolist()


if __name__ == "__main__":
    for name in ARCHITECTURES:
        print(f'    "{name}": {by_transformers(name)},')
