"""Perplexities and greedy continuations that transformers gave for fixed models, by themselves."""

import pytest

from pollination.evaluation.perplexity import perplexity, summarize
from pollination.models.sampling import Decoding, sample
from tests.models.known_answers import NEW, PROMPT, TEXT, by_transformers, fixed_model

# architecture: (perplexity, greedy continuation), of `python -m tests.models.known_answers`
ANSWERS = {
    "llama": (341.035, [13, 55, 42, 51, 3, 7, 55, 48, 29, 7]),
    "gpt2": (605.912, [21, 21, 60, 25, 21, 60, 34, 34, 34, 60]),
    "opt": (42795.426, [40, 38, 40, 38, 40, 38, 40, 38, 4, 24]),
    "gpt_neox": (280.83, [29, 32, 22, 21, 47, 50, 47, 28, 21, 29]),
    "qwen2": (433.411, [53, 59, 60, 4, 38, 4, 49, 49, 34, 15]),
    "qwen3": (371.547, [6, 39, 43, 6, 14, 6, 24, 20, 6, 6]),
    "gemma2": (3670.934, [3, 3, 3, 3, 3, 3, 3, 3, 3, 3]),
    "mistral": (398.21, [60, 5, 52, 52, 47, 55, 57, 24, 23, 6]),
    "phi": (180.532, [39, 50, 48, 39, 50, 48, 39, 50, 48, 39]),
    "mamba": (406.867, [33, 33, 39, 56, 44, 21, 12, 52, 51, 56]),
}


class Text:
    """TEXT as one block, and a second block, so that the model reads a batch."""

    def __len__(self) -> int:
        return 2

    def blocks(self, rows):
        return [(TEXT, TEXT[::-1])[row] for row in rows]


@pytest.mark.parametrize("architecture", ANSWERS)
def test_known_answers(architecture):
    expected, continuation = ANSWERS[architecture]
    model = fixed_model(architecture)
    scored = perplexity(model, Text(), 2)
    assert summarize(scored[:1])["perplexity"] == pytest.approx(expected, rel=1e-4)
    greedy = Decoding("greedy", min_new_tokens=NEW, max_new_tokens=NEW)
    rows = list(sample(model, [PROMPT, PROMPT[:2], PROMPT], [1, 2, 3], greedy, 0, 3))
    assert rows[0] == rows[2] == continuation


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_the_answers_are_those_of_transformers(architecture):
    expected, continuation = by_transformers(architecture)
    assert ANSWERS[architecture] == (pytest.approx(expected, rel=1e-4), continuation)
