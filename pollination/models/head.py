"""The way from a model's last hidden states to its logits."""

from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Head:
    """Logits are `cap` tanh(x / `cap`), with x = `scale` (weight times hidden state + bias).

    Without `cap` they are x. Weight and bias are those of the model's output embeddings.
    """

    scale: float = 1.0  # Cohere and Granite
    cap: float | None = None  # Gemma 2

    @property
    def plain(self) -> bool:
        return self.scale == 1.0 and self.cap is None

    def logits(self, model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits (..., V) of hidden states (..., C), in float32.

        In bf16, logits of 16 and more would be rounded to eighths, and many choices would tie.
        """
        head = model.get_output_embeddings()
        if hidden.dtype == torch.float32:
            return self.bound(head(hidden))
        bias = getattr(head, "bias", None)
        bias = None if bias is None else bias.float()
        return self.bound(functional.linear(hidden.float(), head.weight.float(), bias))

    def bound(self, products: torch.Tensor) -> torch.Tensor:
        """Return the logits of weight times hidden state + bias."""
        if self.scale != 1.0:
            products = products * self.scale
        return products if self.cap is None else self.cap * (products / self.cap).tanh()

    def slope(self, logits: torch.Tensor) -> torch.Tensor | float:
        """Return the derivative of `bound`, given its result."""
        return self.scale if self.cap is None else self.scale * (1 - (logits / self.cap) ** 2)
