"""The architectures for which the fast paths are exact, and the swap of their attention."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

# Only causal attention over all positions looks across tokens; logits are head times hidden states.
PLAIN_FAMILIES = ("llama", "gpt2", "opt")


@contextmanager
def attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Put a model into evaluation mode with another attention; on exit, restore both."""
    before, training = model.config._attn_implementation, model.training
    model.set_attn_implementation(name)
    model.eval()
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        model.train(training)
