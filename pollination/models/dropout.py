"""Apply dropout in training, with random numbers that depend only on seed, step and micro-batch.

A model is in train mode, and has other dropout probabilities than its configuration, only inside
`Dropout.on`. So validation, evaluation and the saved configuration never see them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from pollination.core.seeds import derive_seed

CHECKED_TOKENS = 128
LAYERS = ("layerdrop", "layer_drop", "drop_path")  # these skip whole layers


class Dropout:
    """The dropout of one training. `setting` is `own` or the probability of every dropout.

    A number p sets each dropout probability of modules and configurations to p. It sets layerdrop
    (OPT: skip a whole layer) to 0, because that is another method.
    """

    def __init__(self, model: PreTrainedModel, setting: float | str, seed: int) -> None:
        self.model, self.setting, self.seed = model, setting, seed
        # (attributes, name, value in training, value elsewhere)
        self.changes = [] if setting == "own" else _changes(model, float(setting))

    def __str__(self) -> str:
        if self.setting != "own":
            return f"{self.setting} everywhere"
        return ", ".join(f"{n} {p}" for n, p in _probabilities(vars(self.model.config))) or "none"

    @contextmanager
    def on(self, *place: int) -> Iterator[None]:
        """Put the model into train mode, with the random numbers of `place` (step, micro-batch).

        Afterwards it is in evaluation mode, and torch's global generators are as before.
        """
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        try:
            for attributes, name, value, _ in self.changes:
                attributes[name] = value
            self.model.train()
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(derive_seed(self.seed, "dropout", *place))
                yield
        finally:
            self.model.eval()
            for attributes, name, _, value in self.changes:
                attributes[name] = value

    @torch.no_grad()
    def check(self, tokens_BT: torch.Tensor) -> None:
        """Check that two seeds give different logits in training.

        A model whose own configuration names no dropout above 0 drops nothing with `own`.
        ValueError: two seeds give the same, although something should be dropped.
        """
        own = _probabilities(vars(self.model.config))
        if self.setting == "own" and not any(p for _, p in own):
            return
        tokens_BT = tokens_BT[:1, :CHECKED_TOKENS].to(self.model.device)

        def logits() -> torch.Tensor:
            return self.model(input_ids=tokens_BT, use_cache=False).logits.float()

        large = Dropout(self.model, self.setting if self.setting == "own" else 0.5, self.seed)
        dropped = []
        for place in range(2):
            with large.on(place):
                dropped.append(logits())
        # the difference of two equal passes is 0, or the rounding of a GPU
        if (dropped[0] - dropped[1]).abs().max() > (logits() - logits()).abs().max():
            return
        raise ValueError(
            f"train.dropout: {self.setting!r} has no effect on architecture "
            f"{self.model.config.model_type!r} (dropout in its configuration: "
            f"{Dropout(self.model, 'own', self.seed)}); allowed: 0.0, or a number above 0 if the "
            "architecture has dropout. Set train.dropout: 0.0"
        )


def _probabilities(attributes: dict) -> list[tuple[str, float]]:
    """Return (name, value) of the dropout probabilities among attributes."""
    return [
        (name, value)
        for name, value in attributes.items()
        if "drop" in name and type(value) in (float, int) and 0 <= value < 1
    ]


def _changes(model: PreTrainedModel, p: float) -> list[tuple[dict, str, float, float]]:
    found = []
    configs = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
    for owner in [*model.modules(), *configs.values()]:
        named = _probabilities(vars(owner))
        if isinstance(owner, nn.modules.dropout._DropoutNd):
            named.append(("p", owner.p))
        for name, value in named:
            skips = any(word in name for word in LAYERS)
            found.append((vars(owner), name, 0.0 if skips else p, value))
    return found
