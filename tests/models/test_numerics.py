"""NaN and infinity stop their job in one line and never reach a selection.

The perplexities of fixed weights are known.
"""

import json
import logging
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from pollination.analysis.fingerprint.results import read_results
from pollination.analysis.theory.tables import recursion
from pollination.core import artifacts
from pollination.evaluation.perplexity import perplexity, summarize
from pollination.evolution.mutation import write_parent
from pollination.evolution.selection import select
from pollination.models import checkpoint
from pollination.models.beam import beam_search
from pollination.models.trainer import Trainer
from tests.conftest import TOY, snakemake
from tests.models.test_checkpoint import make_tokenizer, spec

NOT_FINITE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("value", NOT_FINITE)
def test_an_artifact_names_the_value_that_is_not_finite_and_is_not_written(tmp_path, value):
    with pytest.raises(ValueError, match=r"tasks\.a\.1\.accuracy: .* is not a finite number"):
        artifacts.write_json(tmp_path / "a.json", {"tasks": {"a": [0.5, {"accuracy": value}]}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("written", ["NaN", "Infinity", "-Infinity", "null", '"0.5"', "1.5", "[]"])
def test_a_score_that_is_none_is_not_ranked(tmp_path, written):
    paths = [tmp_path / f"{n}.json" for n in range(2)]
    for path, accuracy in zip(paths, ("0.5", written), strict=True):
        path.write_text(f'{{"tasks": {{"t": {{"accuracy": {accuracy}, "stderr": 0.1}}}}}}')
    table = pd.DataFrame({"task": ["t"], "doc_id": [0], "score": [1.0]})
    artifacts.write_table(tmp_path / "answers.parquet", table)
    with pytest.raises(ValueError, match=r"1.json: the accuracy on benchmark 't' is .*cannot rank"):
        select(paths, [tmp_path / "answers.parquet"] * 2, "t", 1, 0)
    with pytest.raises(ValueError, match="the accuracy on benchmark 'other' is None"):
        select(paths, [tmp_path / "answers.parquet"] * 2, "other", 1, 0)


@pytest.fixture
def folder(tmp_path) -> Path:
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    checkpoint.write_blueprint(spec("llama"), tokenizer, tmp_path)
    checkpoint.save_model(checkpoint.create_model(tmp_path, seed=1), tmp_path)
    return tmp_path


class Text:
    """Blocks that repeat one token."""

    def __len__(self):
        return 8

    def blocks(self, indices):
        return np.full((len(indices), 12), 3, dtype=np.int64)


def trainer(folder: Path, **changes) -> Trainer:
    settings = yaml.safe_load(
        "{epochs: 1, batch_size: 4, micro_batch_size: null, weight_decay: 0.0, "
        "learning_rate: 1.0e-3, betas: [0.9, 0.95], epsilon: 1.0e-8,"
        " compile: null, precision: fp32, max_grad_norm: 1.0, warmup_steps: 0, schedule: constant, "
        "dropout: 0.0, activation_checkpointing: false, "
        "validation_blocks: 4, min_lr_ratio: 0.0}"
    )
    model, log = checkpoint.load_model(folder), logging.getLogger("test")
    return Trainer(
        model,
        Text(),
        settings | changes,
        0,
        torch.device("cpu"),
        folder,
        "key",
        log,
        None,
        changes.get("validation"),
    )


def test_weights_that_the_last_step_ruined_are_not_handed_on(folder):
    ruined = trainer(folder, batch_size=8)  # one step: its loss is finite, but its update is not
    step = ruined.optimizer.step
    ruined.optimizer.step = lambda: (step(), ruined.names["model.norm.weight"].data.fill_(math.inf))
    with pytest.raises(
        ValueError,
        match="at step 1: weight 'model.norm.weight' holds NaN or infinity; "
        "lower train.learning_rate",
    ):
        ruined.run()


def test_a_validation_loss_that_is_not_finite_stops_the_training(folder):
    ruined = trainer(folder, validation=Text())
    ruined.validate = lambda: math.nan
    with pytest.raises(ValueError, match="the validation loss is nan"):
        ruined.run()
    assert not (folder / "best.safetensors").exists()


def test_a_mutation_that_leaves_the_range_of_numbers_is_not_written(folder):
    source, target = folder / "model.safetensors", folder / "parent.safetensors"
    with pytest.raises(ValueError, match="mutate.scale: 1e\\+300"):
        write_parent(source, target, 1e300, "tensor", 0)
    save_file(
        {name: tensor * math.nan for name, tensor in checkpoint.read_weights(source).items()},
        source,
        metadata={"format": "pt"},
    )
    with pytest.raises(ValueError, match="is not finite"):
        write_parent(source, target, 0, "tensor", 0)
    assert not target.exists()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_beams_stop_at_what_is_not_finite(folder, value):
    model = checkpoint.load_model(folder)
    with torch.no_grad():
        model.model.norm.weight.fill_(value)
    with pytest.raises(ValueError, match="non-finite logits"):
        list(beam_search(model, [[3, 4]], 2, 4, 0, 1.0, 0))


@pytest.mark.parametrize(
    "change", [{"noise": 1e9}, {"n": 2, "generations": 2000}, {"dimensions": 9}]
)
def test_the_theory_stays_within_the_range_of_numbers(change):
    theory = {
        "n": 10,
        "k": 2,
        "generations": 3,
        "runs": 10,
        "shown": 1,
        "variance": "unbiased",
        "noise": 0.0,
        "dimensions": 1,
        "seed": 0,
    }
    for table in recursion(theory | change):
        assert np.isfinite(table.select_dtypes("number")).all().all()


def test_scores_of_a_fingerprint_that_are_not_finite_are_left_out(tmp_path):
    words = [{"word": str(score), "score": score} for score in (math.nan, math.inf, 2.0)]
    (tmp_path / "a.json").write_text(
        json.dumps([{"model_name": "a", "top_repetitive_words": words}])
    )
    (found,) = read_results(tmp_path / "a.json", logging.getLogger("test"))
    assert [entry["word"] for entry in found["top_repetitive_words"]] == ["2.0"]


# Perplexities that are known


def uniform(shape: torch.Size, number: int) -> torch.Tensor:
    """Set weights in [-0.5, 0.5) with integers alone (SplitMix64), independent of any library.

    They are larger than the initial weights of a model.
    """
    bits = np.arange(math.prod(shape), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(
        number << 32
    )
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return torch.from_numpy((bits >> np.uint64(11)) * 2.0**-53 - 0.5).reshape(shape).float()


SIZES = {
    "llama": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 4},
    "opt": {
        "hidden_size": 16,
        "ffn_dim": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "word_embed_proj_dim": 8,
        "pad_token_id": 1,
    },
}


def known_model(family: str, **changes):
    positions = {"n_positions": 24} if family == "gpt2" else {"max_position_embeddings": 24}
    config = AutoConfig.for_model(
        family,
        vocab_size=30,
        eos_token_id=0,
        bos_token_id=0,
        **positions,
        **(SIZES[family] | changes),
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for number, (name, tensor) in enumerate(sorted(model.named_parameters())):
            size = (
                4.0 if any(part in name for part in ("q_proj", "k_proj", "c_attn")) else 1.0
            )  # attention that is far from uniform
            tensor.copy_(
                size * uniform(tensor.shape, number)
                + (1.0 if "norm" in name or "ln_" in name else 0.0) * (tensor.dim() == 1)
            )
    return model


def known(model) -> float:
    texts = [
        np.array([(7 * n + 3 * i * i) % 29 + 1 for i in range(length)])
        for n, length in enumerate((5, 13, 22, 1))
    ]
    return summarize(perplexity(model, texts, 2, eos_id=0))["nll_per_token"]


KNOWN = {"llama": 4.077838, "gpt2": 4.998748, "opt": 4.074555}  # nats per token
CHANGES = {  # a silent change of a library -> how to apply it to a model
    "llama": {
        "rotary base": {"rope_theta": 500.0},
        "norm's epsilon": {"rms_norm_eps": 0.1},
        "activation": {"hidden_act": "gelu"},
    },
    "gpt2": {
        "scale of attention": {"scale_attn_weights": False},
        "scale by layer": {"scale_attn_by_inverse_layer_idx": True},
        "activation": {"activation_function": "relu"},
    },
    "opt": {
        "place of the norms": {"do_layer_norm_before": False},
        "activation": {"activation_function": "gelu"},
    },
}


@pytest.mark.parametrize("family", KNOWN)
def test_the_perplexity_of_fixed_weights_is_known(family):
    assert known(known_model(family)) == pytest.approx(KNOWN[family], abs=1e-4)


@pytest.mark.parametrize(
    ("family", "what"), [(family, what) for family, changes in CHANGES.items() for what in changes]
)
def test_a_change_of_the_library_would_show(family, what):
    changed = known_model(family, **CHANGES[family][what])
    assert abs(known(changed) - KNOWN[family]) > 5e-4


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_a_change_of_the_attentions_scale_would_show(family):
    model = known_model(family)
    layers = [
        module for module in model.modules() if isinstance(getattr(module, "scaling", None), float)
    ]
    for module in layers:
        module.scaling *= 0.9
    assert len(layers) == 2 and abs(known(model) - KNOWN[family]) > 5e-4


# A population that fails


@pytest.mark.slow
def test_a_population_all_of_whose_members_fail_stops_its_experiment_not_the_run(tmp_path):
    raw = yaml.safe_load(TOY.read_text())
    raw["founders"]["broken"] = raw["founders"]["human"] | {
        "train": raw["founders"]["human"]["train"] | {"learning_rate": 1.0e6}
    }
    raw["tasks"].pop("coreference")
    raw["defaults"]["generations"] = 2
    raw["evaluate"] = {"samples": {"num_prompts": 2, "max_new_tokens": 4}}
    raw["experiments"] = {
        "fails": {"population": 4, "founders": "broken", "select": {"task": "knowledge"}},
        "line": {"population": 1, "weights": "own", "text": "own"},
    }
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(raw))
    run = "results/toy"
    wanted = [f"{run}/fails/gen0/selection.json", f"{run}/line/gen1/member0/scores.json"]
    output = snakemake(
        tmp_path, "--keep-going", "--", *wanted, configfile=tmp_path / "a.yaml", ok=False
    )  # exit status 1
    lines = [line for line in output.splitlines() if line.startswith("  error: ")]
    assert output.count("failed: train_founder broken member") == len(lines) == 4 and all(
        "lower train.learning_rate" in line for line in lines
    ), output[-3000:]
    assert "Traceback" not in output
    assert (tmp_path / wanted[1]).is_file() and not (tmp_path / run / "fails").exists()
    left = [
        path.name
        for path in (tmp_path / run / "founders/broken").rglob("*")
        if path.is_file() and "/." not in str(path)
    ]
    assert not left
