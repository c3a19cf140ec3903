"""Jensen-Shannon divergence between models: hand-made predictions, and models that are equal or
not.
"""

from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from pollination.evaluation import disagreement as module
from pollination.evaluation.disagreement import disagreement, summarize
from pollination.models.contract import Contract


class Fixed:
    """A model that predicts the same whatever it reads, but `after` once it has read token 1."""

    def __init__(self, p: list[float], after: list[float] | None = None) -> None:
        self.logits, self.after = torch.tensor(p).log(), torch.tensor(after or p).log()
        self.device = torch.device("cpu")
        self.config = SimpleNamespace(contract=asdict(Contract(transformers.__version__)))

    def get_input_embeddings(self):
        return SimpleNamespace(num_embeddings=len(self.logits))

    def __call__(self, input_ids, use_cache):
        return SimpleNamespace(
            logits=torch.where((input_ids == 1)[..., None], self.after, self.logits)
        )


def entropy(p) -> float:
    p = np.array([x for x in p if x > 0])
    return float(-(p * np.log(p)).sum())


ROWS = [np.array([0, 1, 0]), np.array([0, 0]), np.array([2])]


def test_known_answers():
    frame, pairs = disagreement([Fixed([0.5, 0.5, 0.0]), Fixed([0.25, 0.25, 0.5])], ROWS, 4)
    expected = (
        entropy([0.375, 0.375, 0.25]) - (entropy([0.5, 0.5]) + entropy([0.25, 0.25, 0.5])) / 2
    )
    assert frame.js.to_numpy() == pytest.approx([expected, expected], abs=1e-6)
    assert pairs == pytest.approx(np.array([[0, expected], [expected, 0]]), abs=1e-6)
    assert frame.sequence.tolist() == [0, 1] and frame.tokens.tolist() == [
        2,
        1,
    ]  # nothing is predicted of the third
    assert frame.entropy.to_numpy() == pytest.approx(
        (entropy([0.5, 0.5]) + entropy([0.25, 0.25, 0.5])) / 2, abs=1e-6
    )


def test_disjoint_predictions_are_as_many_models_as_there_are_and_equal_ones_are_one():
    apart, (same, other) = (
        [Fixed(row) for row in torch.eye(3).tolist()],
        (Fixed([0.2, 0.3, 0.5]), Fixed([0.2, 0.3, 0.5])),
    )
    frame, pairs = disagreement(apart, ROWS, 4)
    assert summarize(frame, [0, 1, 2])["effective_models"] == pytest.approx(3)
    assert pairs[0, 1] == pytest.approx(np.log(2)) and frame.pairwise.iloc[0] == pytest.approx(
        np.log(2)
    )
    assert summarize(disagreement([same, other], ROWS, 4)[0], [0, 1])["js"] == pytest.approx(
        0, abs=1e-6
    )


def test_tokens_are_weighed_and_micro_batches_change_nothing(monkeypatch):
    models = [
        Fixed([1, 0, 0], after=[0.5, 0.5, 0]),
        Fixed([1, 0, 0], after=[0, 0, 1]),
    ]  # they differ after token 1 alone
    frame, pairs = disagreement(models, ROWS, 4)
    assert frame.js.to_numpy() == pytest.approx([np.log(2) / 2, 0], abs=1e-6)
    assert pairs[0, 1] == pytest.approx(np.log(2) / 3, abs=1e-6)
    monkeypatch.setattr(module, "LOGITS_BYTES", 1)
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    again, other = disagreement(models, ROWS, 4)
    assert again.to_numpy() == pytest.approx(frame.to_numpy()) and other == pytest.approx(pairs)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="at least two models"):
        disagreement([Fixed([1.0, 0, 0])], ROWS, 4)
    with pytest.raises(ValueError, match="not finite"):
        disagreement([Fixed([1.0, 0, 0]), Fixed([float("nan"), 0, 0])], ROWS, 4)
