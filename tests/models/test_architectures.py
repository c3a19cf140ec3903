"""Every fifth causal language model of transformers: it writes exactly, or is refused by name."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from pollination.models.beam import beam_search
from pollination.models.contract import Unsupported, settle
from pollination.models.sampling import Decoding, sample
from tests.models.test_contract import prompts_of, uncached

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_intermediate_size": 32,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "ssm_state_size": 16,
}
COMMON = {"vocab_size": 61, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}


def small_config(architecture: str):
    """A configuration of at most five million parameters; skips the test if there is none."""
    try:
        default = AutoConfig.for_model(architecture)
        sizes = {name: size for name, size in SMALL.items() if hasattr(default, name)}
        config = AutoConfig.for_model(architecture, **(COMMON | sizes))
        with torch.device("meta"), no_init_weights():
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        pytest.skip(f"these sizes do not make a model: {str(error).splitlines()[:1]}")
    if sum(p.numel() for p in model.parameters()) > 5_000_000:
        pytest.skip("these sizes make a large model")
    return config


@pytest.mark.parametrize("architecture", sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)[::5])
def test_an_architecture_writes_exactly_or_is_refused(architecture):
    config = small_config(architecture)
    try:
        settle(config, "models.mine")
    except Unsupported as error:
        assert f"architecture {architecture!r} " in str(error)
        return
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
    prompts = [(np.array(ids) % 59 + 2).tolist() for ids in prompts_of(3, 7, 15)]
    greedy = Decoding("greedy", min_new_tokens=12, max_new_tokens=12)
    written = [uncached(model, prompt, 12) for prompt in prompts]
    assert list(sample(model, prompts, [1, 2, 3], greedy, 0, 8)) == written
    searched = [beam_search(model, [prompt], 3, 8, 8, 1.0, 0)[0] for prompt in prompts]
    assert beam_search(model, prompts, 3, 8, 8, 1.0, 0) == searched
