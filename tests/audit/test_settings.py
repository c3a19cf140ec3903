"""Tables of settings: the run's values from its config and artifacts, and those of the papers."""

import pandas as pd
import pytest

from pollination.plan.config.catalogue import read_catalogue
from tests.audit import made
from tests.conftest import ROOT

PAPER_A1 = {  # study A, table 1
    "layers": 12,
    "hidden dimension": 768,
    "attention heads": 12,
    "head dimension": 64,
    "feed-forward dimension": 3072,
    "vocabulary": 32_000,
    "context, tokens": 1024,
    "parameters": "about 100 million",
}
PAPER_TRAINING = {  # generation 0; generations 1 to 4
    "learning rate": (1e-3, 2e-4),
    "weight decay": (0.01, 0.01),
    "warm-up steps": (1000, 1000),
}
PAPER_A2 = {  # study A, table 2
    "population N": 16,
    "generations": 5,
    "parents k": 4,
    "mutation scale": 0.01,
    "top-p": 0.9,
    "temperature": 0.7,
    "longest prompt, sentences": 8,
    "synthetic tokens per parent": 1_000_000_000,
    "data seed": 100,
    "evaluation seed": 1234,
    "framework": "TorchTune 0.3.1",
    "Python": "3.12",
    "PyTorch": "2.1.0",
    "CUDA": "12.1",
    "device": "NVIDIA A100 (80GB)",
}
PAPER_B1 = {  # study B, table 1
    "beams": 5,
    "maximum new tokens": 128,
    "minimum new tokens": 128,
    "batch, prompts": 32,
    "block, tokens": 128,
}


def column(rows, name: str) -> dict:
    return {row.setting: getattr(row, name) for row in rows.itertuples()}


def same(found: dict, expected: dict) -> None:
    for setting, value in expected.items():
        if isinstance(value, str):
            assert str(found[setting]) == value
        else:
            assert float(found[setting]) == pytest.approx(value, rel=made.CSV), setting


def test_architecture_and_training(study_a):
    rows = made.draw(study_a, "table_a1")
    model = rows[rows.section == "Model"]
    same(column(model, "paper"), PAPER_A1)
    weights = 32_000 * 768 + 768 * 768  # the two tensors of the made weights
    same(column(model, "population"), PAPER_A1 | {"parameters": weights})
    assert column(model, "paper")["positions"] == column(model, "population")["positions"]
    raw = made.preset("data_pollination")
    founders = raw["founders"]["mmlu"]["train"]
    first = rows[rows.section == "Training, generation 0"]
    later = rows[rows.section == "Training, later generations"]
    same(column(first, "paper"), {key: pair[0] for key, pair in PAPER_TRAINING.items()})
    same(column(later, "paper"), {key: pair[1] for key, pair in PAPER_TRAINING.items()})
    ours = {"learning rate": founders["learning_rate"], "tokens per model": founders["tokens"]}
    same(column(first, "population"), ours | {"batch, sequences": founders["batch_size"]})
    assert column(first, "paper")["batch, sequences"] == "128"
    assert column(later, "paper")["batch, sequences"] == "64"
    assert column(later, "paper")["AdamW betas"] == "0.9, 0.95"
    assert float(column(later, "paper")["AdamW epsilon"]) == 1e-8
    assert float(column(later, "paper")["largest gradient norm"]) == 1.0


def test_evolution_evaluation_and_software(study_a):
    rows = made.draw(study_a, "table_a2")
    paper, ours, line = (column(rows, name) for name in ("paper", "population", "line"))
    same(paper, PAPER_A2)
    assert paper["training seed"] == "42; line 42, 123, 456"
    raw = made.preset("data_pollination")
    expected = {"population N": 16, "generations": made.GENERATIONS, "parents k": 4}
    expected |= {"mutation scale": raw["defaults"]["mutate"]["scale"], "PyTorch": "2.13.0"}
    expected |= {"synthetic tokens per parent": raw["defaults"]["generate"]["tokens"]}
    expected |= {"device": "NVIDIA H200", "CUDA": "12.4", "training seed": 42}
    same(ours, expected)
    same(line, {"population N": 1, "mutation scale": 0})
    shots = {"mmlu": 5, "winogrande": 5, "mathqa": 0, "social_iqa": 0}
    for task, number in shots.items():
        assert paper[f"task {task}"] == f"{number} shots"
        said = f"{made.QUESTIONS:,} of {2 * made.QUESTIONS:,} questions, {number} shots"
        assert ours[f"task {task}"].startswith(said)


def test_generation(study_b):
    rows = made.draw(study_b, "table_b1")
    paper, ours = column(rows, "paper"), column(rows, "population")
    same(paper, PAPER_B1)
    assert paper["temperature"].startswith("0.0") and paper["repetition penalty"].startswith("0.0")
    generate = made.preset("epistemic_diversity")["defaults"]["generate"]
    expected = {"beams": generate["num_beams"], "block, tokens": 128, "decoding": "beam"}
    same(ours, expected | {"maximum new tokens": 128, "minimum new tokens": 128})


def test_batch_of_generation(study_b):
    """The paper's batch of 32 counts prompts; the key counts rows, beams included."""
    rows = made.draw(study_b, "table_b1")
    generate = made.preset("epistemic_diversity")["defaults"]["generate"]
    prompts = generate["batch_size"] / generate["num_beams"]
    assert float(column(rows, "population")["batch, prompts"]) == prompts == 32


def test_pairs_of_deployed_models():
    """Study A, appendix B.1: 27 models in five families, 64 pairs within and 287 between them."""
    family = pd.read_csv(ROOT / "config/paper/models.csv").groupby("family").size()
    within = (family * (family - 1) // 2).sum()
    n = family.sum()
    assert (n, len(family), within, n * (n - 1) // 2 - within) == (27, 5, 64, 287)
    found = pd.Series([m["family"] for m in read_catalogue("config/paper/models.csv").values()])
    assert found.value_counts().to_dict() == family.to_dict()


def test_models_of_the_preset_of_study_a(study_a):
    """Section 5.1: four populations of 16 over five generations."""
    raw = made.preset("data_pollination")
    shown = study_a.config["figures"]["paper"]["figure_a6"].values()
    names = [name for entry in shown for (name,) in entry.values()]
    sizes = [raw["experiments"][n].get("population", raw["defaults"]["population"]) for n in names]
    assert sum(sizes) * raw["defaults"]["generations"] == 320


def test_training_of_study_b(study_b):
    """Section 3.2: 7,500 blocks of 128 tokens, five epochs, learning rate 1e-5, the best kept."""
    for pool in ("opt1", "gpt2_16"):
        founders = study_b.config["founders"][pool]
        train = founders["train"]
        assert (
            train["tokens"] / study_b.config["models"][founders["model"]]["context_tokens"] == 7500
        )
        assert (train["epochs"], train["learning_rate"], train["checkpoint"]) == (5, 1e-5, "best")
    assert study_b.config["experiments"]["opt_m16"]["train"]["epochs"] == 5
