"""A user's own measures: what they see of a member, and what they may return."""

import random

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pollination.evaluation.own_measures import Measured, measure

TEXT = [np.array([1, 2, 3]), np.array([4, 5])]


class Blocks:
    """A packed text."""

    def __len__(self) -> int:
        return 2

    def blocks(self, indices: np.ndarray) -> np.ndarray:
        return np.arange(8).reshape(2, 4)[indices]


@pytest.fixture
def about() -> Measured:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        attention_dropout=0.5,
    )
    return Measured(
        model=LlamaForCausalLM(config).train(),
        tokenizer=None,
        device=torch.device("cpu"),
        batch_size=4,
        samples=pd.DataFrame({"completion": ["a b", "c"]}),
        scores={"perplexity": {"world/test": {"perplexity": 3.0}}},
        seed=1,
        texts={"world/test": lambda: TEXT, "world/train": Blocks},
    )


def own(tmp_path, body: str) -> dict[str, str]:
    path = tmp_path / "measures.py"
    path.write_text(
        f"import random\n\nimport numpy as np\nimport torch\n\n\ndef value(member):\n    {body}\n"
    )
    return {"mine": f"{path}:value"}


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("return len(member.samples)", 2.0),
        ("return {'a': np.float32(0.5), 'b': 2}", {"a": 0.5, "b": 2.0}),
        ("return member.scores['perplexity']['world/test']['perplexity']", 3.0),
        ("return sum(int(ids.sum()) for ids in member.sequences('world/test'))", 15.0),
        ("return [len(ids) for ids in member.sequences('world/train')] == [4, 4] and 1.0", 1.0),
        ("return int(member.model.training or torch.is_grad_enabled())", 0.0),
    ],
)
def test_a_measure_sees_the_member_and_returns_numbers(about, tmp_path, body, value):
    found = measure(own(tmp_path, body), about)
    assert found == {"mine": value}


def test_random_numbers_are_the_same_in_every_run_and_differ_between_measures(about, tmp_path):
    drawn = "return {'a': random.random(), 'b': np.random.rand(), 'c': float(torch.rand(1))}"
    (text,) = own(tmp_path, drawn).values()
    one = measure({"first": text, "second": text}, about)
    random.seed(99)
    assert measure({"second": text}, about)["second"] == one["second"] != one["first"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return None", "returned None"),
        ("return float('nan')", "returned nan"),
        ("return True", "returned True"),
        ("return 'high'", "returned 'high'"),
        ("return {}", "returned {}"),
        ("return {'a': float('inf')}", "returned {'a': inf}"),
        ("return {1: 2.0}", "returned {1: 2.0}"),
        ("return member.sequences('world/tst')", "line 8: ValueError: text 'world/tst' is not in"),
        ("raise KeyError('x')", "line 8: KeyError: 'x'"),
    ],
)
def test_a_measure_that_fails_is_one_line_that_names_it(about, tmp_path, body, words):
    measures = own(tmp_path, body)
    with pytest.raises(ValueError) as caught:
        measure(measures, about)
    said = str(caught.value)
    assert said.startswith(f"evaluate.measures.mine: {measures['mine']}") and "\n" not in said
    assert words in said, said
