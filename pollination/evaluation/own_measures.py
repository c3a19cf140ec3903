"""Call the user's own measures: functions named in the config, one call per member."""

import math
import random
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pollination.core import userfile
from pollination.core.seeds import derive_seed

ALLOWED = "a finite number, or a mapping of printable names to finite numbers"


@dataclass(frozen=True)
class Measured:
    """The view of a member that a measure gets."""

    model: PreTrainedModel
    """In fp32 on `device`, in evaluation mode; gradients are off."""
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    batch_size: int
    """The config's evaluate.batch_size."""
    samples: pd.DataFrame
    """The member's samples.parquet: prompt_id, prompt, completion, seed."""
    scores: dict
    """The member's scores.json without `measures`: tasks, perplexity, truth."""
    seed: int
    """The same for all members. It also seeds Python, NumPy and torch."""
    texts: Mapping[str, Callable[[], Any]] = field(repr=False)
    """CORPUS/SPLIT of evaluate.perplexity -> a function that reads the text."""

    def sequences(self, text: str) -> list[np.ndarray]:
        """Return the token ids (T,) of each sequence of a held-out text.

        Sequences are those of perplexity: blocks, or documents without end-of-text tokens.
        ValueError: evaluate.perplexity does not name the text.
        """
        if text not in self.texts:
            raise ValueError(
                f"text {text!r} is not in evaluate.perplexity; allowed: {', '.join(self.texts)}"
            )
        read = self.texts[text]()
        return list(read.blocks(np.arange(len(read))) if hasattr(read, "blocks") else read)


def measure(measures: dict[str, str], about: Measured) -> dict[str, float | dict[str, float]]:
    """Return name -> the result of each measure. ValueError names the file of a failing measure."""
    return {name: _value(name, text, about) for name, text in measures.items()}


def _value(name: str, text: str, about: Measured) -> float | dict[str, float]:
    own = userfile.load(f"evaluate.measures.{name}", text)
    seed = derive_seed(about.seed, "measure", name)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    about.model.eval()
    with torch.no_grad():
        copies = {"samples": about.samples.copy(), "scores": deepcopy(about.scores)}
        returned = own(replace(about, seed=seed, **copies))
    if isinstance(returned, Mapping):
        if returned and all(
            isinstance(key, str) and key.isprintable() and key and _finite(one)
            for key, one in returned.items()
        ):
            return {key: float(one) for key, one in returned.items()}
    elif _finite(returned):
        return float(returned)
    raise own.refuse(returned, ALLOWED)


def _finite(value: Any) -> bool:
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False
