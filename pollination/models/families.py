"""Name the architectures with exact fast paths, and replace their attention."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

# Tokens interact in causal attention over all positions only; logits are head times hidden states.
PLAIN_FAMILIES = ("llama", "gpt2", "opt")


@contextmanager
def attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Put a model into evaluation mode with another attention. Restore both on exit."""
    before, training = model.config._attn_implementation, model.training
    model.set_attn_implementation(name)
    model.eval()
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        model.train(training)
