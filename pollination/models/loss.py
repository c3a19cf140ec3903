"""Compute next-token cross-entropy and its gradient in chunks, without holding all logits.

A chunk of positions yields its loss. Then its logits become their own gradient in place (softmax
minus one-hot), and this gives the gradients of the hidden states and of the head's weights. The
backward pass keeps only tensors of the sizes of hidden states and head.

Shapes: B sequences, T tokens of each, N = B (T - 1) predicted positions, C hidden width, V
vocabulary, P positions of a chunk.
"""

from collections.abc import Callable

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from pollination.models.attention import CAUSAL, attention
from pollination.models.device import is_strict
from pollination.models.head import Head

# size of a chunk's float32 logits; smaller chunks have slower matrix products
LOGITS_BYTES = {"cpu": 2**27, "cuda": 2**30}

Loss = Callable[[torch.Tensor], torch.Tensor]


def _compile(function: Callable) -> Callable:
    """Return a compiled function. With strict determinism, each shape has code of its own.

    Otherwise the code depends on the order of shapes, and a resume has another order.
    """
    return torch.compile(function, dynamic=False if is_strict() else None)


def whole_loss(model: PreTrainedModel, compiled: bool = False) -> Loss:
    """Return a function from tokens (B, T) to their mean next-token cross-entropy (nats, float32).

    It holds all logits at once. With `compiled`, torch.compile compiles the model.
    """
    forward = _compile(model) if compiled else model

    def loss(tokens_BT: torch.Tensor) -> torch.Tensor:
        logits_BTV = forward(input_ids=tokens_BT[:, :-1], use_cache=False).logits
        return functional.cross_entropy(
            logits_BTV.flatten(0, 1).float(), tokens_BT[:, 1:].flatten()
        )

    return loss


def chunked_loss(model: PreTrainedModel, head: Head, compiled: bool = False) -> Loss:
    """Return the function of `whole_loss`, computed in chunks. It can be differentiated once.

    `head` must give the model's logits.
    """
    weights = model.get_output_embeddings()
    base = _compile(model.base_model) if compiled else model.base_model
    chunk = _compile(_chunk) if compiled else _chunk

    def loss(tokens_BT: torch.Tensor) -> torch.Tensor:
        hidden_BTC = base(input_ids=tokens_BT[:, :-1], use_cache=False).last_hidden_state
        return _ChunkedCrossEntropy.apply(
            hidden_BTC.flatten(0, 1),
            weights.weight,
            weights.bias,
            tokens_BT[:, 1:].flatten(),
            head,
            chunk,
            torch.is_grad_enabled(),
        )

    return loss


def unmasked(model: PreTrainedModel, loss: Loss) -> Loss:
    """Return `loss` with causal attention that has no mask.

    While torch.compile traces a model, transformers always builds a mask (B, 1, T, T). Attention
    with a mask has no flash kernel.
    """

    def unmasked_loss(tokens_BT: torch.Tensor) -> torch.Tensor:
        with attention(model, CAUSAL, keep_mode=True):
            return loss(tokens_BT)

    return unmasked_loss


def _chunk(logits_PV: torch.Tensor, targets_P: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (summed loss, its gradient in the logits). Overwrite float32 logits."""
    scores_PV, rows_P = logits_PV.float(), torch.arange(len(targets_P), device=targets_P.device)
    largest_P, wanted_P = scores_PV.amax(-1), scores_PV[rows_P, targets_P]
    torch.softmax(scores_PV, -1, out=scores_PV)
    # the largest probability is 1 / (sum of exponentials), which softmax does not return
    losses_P = largest_P - wanted_P - scores_PV.amax(-1).log()
    gradient_PV = scores_PV.to(logits_PV.dtype)
    gradient_PV[rows_P, targets_P] = (-losses_P).expm1().to(logits_PV.dtype)
    return losses_P.sum(), gradient_PV


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of the logits of hidden (N, C) against targets (N,).

    The head's weight is (V, C), its bias (V,) or None. Under autocast, products have its precision.
    `chunk` is _chunk, compiled or not. No gradient is computed without `differentiate`.
    """

    @staticmethod
    def forward(ctx, hidden_NC, weight_VC, bias_V, targets_N, head, chunk, differentiate):
        device = hidden_NC.device.type
        precision = (
            torch.get_autocast_dtype(device)
            if torch.is_autocast_enabled(device)
            else weight_VC.dtype
        )
        step = max(1, LOGITS_BYTES[device] // (4 * len(weight_VC)))
        total = torch.zeros((), device=hidden_NC.device)
        with torch.autocast(device, enabled=False):
            hidden, weight = hidden_NC.to(precision), weight_VC.to(precision)
            bias = None if bias_V is None else bias_V.to(precision)
            hidden_grad, weight_grad = torch.empty_like(hidden), torch.zeros_like(weight_VC)
            bias_grad = None if bias_V is None else torch.zeros_like(bias_V)
            for hidden_PC, grad_PC, targets_P in zip(
                hidden.split(step), hidden_grad.split(step), targets_N.split(step), strict=True
            ):
                products_PV = hidden_PC @ weight.T
                if bias is not None:
                    products_PV += bias
                logits_PV = head.bound(products_PV)
                slope = None if head.plain or not differentiate else head.slope(logits_PV)
                loss, logits_grad_PV = chunk(logits_PV, targets_P)
                total += loss
                if not differentiate:
                    continue
                if slope is not None:
                    logits_grad_PV = logits_grad_PV * slope
                grad_PC.copy_(logits_grad_PV @ weight)
                weight_grad += logits_grad_PV.T @ hidden_PC
                if bias_grad is not None:
                    bias_grad += logits_grad_PV.sum(0)
                del logits_grad_PV, products_PV, logits_PV  # frees memory for the next chunk
        ctx.save_for_backward(hidden_grad.to(hidden_NC.dtype), weight_grad, bias_grad)
        return total / len(hidden_NC)

    @staticmethod
    def backward(ctx, grad):
        hidden_grad, weight_grad, bias_grad = ctx.saved_tensors
        scale = grad / len(hidden_grad)
        bias_grad = None if bias_grad is None else bias_grad * scale
        return hidden_grad * scale, weight_grad * scale, bias_grad, None, None, None, None
