"""The average of several models' weights."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from pollination.core.artifacts import digest
from pollination.evolution.averaging import write_average


def models(tmp_path, *states):
    paths = [tmp_path / f"{number}.safetensors" for number in range(len(states))]
    for path, state in zip(paths, states, strict=True):
        save_file(state, str(path), metadata={"format": "pt"})
    return paths


def test_weights_are_averaged_by_their_shares_and_tables_stay(tmp_path):
    table = torch.arange(3)
    states = [
        {"w": torch.tensor([0.0, 4.0]).to(torch.bfloat16), "table": table},
        {"w": torch.tensor([8.0, 0.0]).to(torch.bfloat16), "table": table + 1},
    ]
    target = tmp_path / "average.safetensors"
    write_average(models(tmp_path, *states), [0.25, 0.75], target)
    found = load_file(target)
    assert found["w"].tolist() == [6.0, 1.0] and found["w"].dtype == torch.bfloat16
    assert found["table"].tolist() == [0, 1, 2]


def test_an_average_of_one_model_has_its_bytes(tmp_path):
    (path,) = models(tmp_path, {"w": torch.rand(5, generator=torch.Generator().manual_seed(1))})
    write_average([path], [1.0], tmp_path / "average.safetensors")
    assert digest(path) == digest(tmp_path / "average.safetensors")


def test_models_that_differ_or_are_not_finite_are_refused(tmp_path):
    target = tmp_path / "average.safetensors"
    one, other = {"w": torch.zeros(2)}, {"v": torch.zeros(2)}
    for states, words in (
        ((one, {"w": torch.zeros(3)}), "differ in tensor 'w'"),
        ((one, other), "differ in tensor 'v'"),
        ((one, {"w": torch.tensor([0.0, torch.inf])}), "weight 'w' of the average .* not finite"),
    ):
        with pytest.raises(ValueError, match=words):
            write_average(models(tmp_path, *states), [0.5, 0.5], target)
    assert not target.exists()
