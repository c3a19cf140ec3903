"""Each tensor of a checkpoint's files is the model's after a load, or the load names it."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from pollination.core import artifacts
from pollination.core.artifacts import DamagedArtifact
from pollination.models import checkpoint
from pollination.models.trainer import Trainer
from pollination.models.weights import provenance
from tests.models.test_checkpoint import make_tokenizer

WEIGHTS = "model.safetensors"
TOKENS = torch.tensor([[1, 4, 7, 2, 9]])
SMALL = {
    "vocab_size": 13,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
HEADS = {"num_key_value_heads": 1, "head_dim": 8}
FAMILIES = {
    "llama": {},
    "gpt2": {"intermediate_size": None},
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 16, "pad_token_id": 1},
    "gpt_neox": {},
    "bloom": {},
    "mpt": {"d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 32},
    "gemma3_text": HEADS,
    "qwen3": HEADS,
    "mixtral": {"num_local_experts": 3, "num_key_value_heads": 1},
    "qwen2_moe": {"num_experts": 3, "num_experts_per_tok": 2, "num_key_value_heads": 1},
    "mamba": {"state_size": 4},
}


def write(folder: Path, family: str = "llama", **settings) -> Path:
    """Write a pretrained folder with transformers alone: seeded weights in its own file format."""
    default, chosen = AutoConfig.for_model(family), SMALL | FAMILIES[family] | settings
    known = {k: v for k, v in chosen.items() if hasattr(default, k)}
    names = default.attribute_map
    config = AutoConfig.for_model(family, **{names.get(k, k): v for k, v in known.items()})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}


def replace(folder: Path, state: dict[str, torch.Tensor], name: str = WEIGHTS) -> None:
    save_file({k: v.contiguous() for k, v in state.items()}, folder / name, {"format": "pt"})


def change(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def load(folder: Path):
    return checkpoint.load_pretrained(str(folder), checkpoint.load_config(folder))


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(ValueError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS).logits


def theirs(folder: Path) -> torch.Tensor:
    return logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_of_any_family_keeps_its_weights_through_the_run(family, tied, tmp_path):
    """Pretrained folder, blueprint, member and transformers compute the same."""
    source = write(tmp_path / "given", family, tie_word_embeddings=tied)
    expected = theirs(source)
    given = {"pretrained": str(source), "context_tokens": 12}
    made = tmp_path / "made"
    made.mkdir()
    make_tokenizer().save_pretrained(made)
    checkpoint.write_blueprint(given, make_tokenizer(), made)
    blueprint, _ = checkpoint.load_member(made)
    checkpoint.save_model(blueprint, tmp_path / "child")
    child = checkpoint.load_model(tmp_path / "child")
    assert child.config.tie_word_embeddings is tied
    head = child.get_output_embeddings().weight
    assert (head is child.get_input_embeddings().weight) is tied
    for found in (blueprint, child):
        assert torch.equal(logits(found), expected)
    assert torch.equal(theirs(tmp_path / "child"), expected)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma3_text", "mpt", "qwen3"])
def test_two_heads_in_a_file_are_two_whatever_the_config_says(family, tmp_path):
    source = write(tmp_path / "given", family, tie_word_embeddings=False)
    change(source, tie_word_embeddings=True)
    expected = theirs(source)
    whole = load(source)
    assert not whole.config.tie_word_embeddings
    checkpoint.save_model(whole, tmp_path / "made")
    made = json.loads((tmp_path / "made" / "config.json").read_text())
    assert made["tie_word_embeddings"] is False
    again = checkpoint.load_model(tmp_path / "made")
    direct = checkpoint.load_model(source)  # a member's folder with the same contradiction
    assert all(torch.equal(logits(model), expected) for model in (whole, again, direct))
    trained = {
        id(p)
        for group in trainer_of(again, tmp_path).optimizer.param_groups
        for p in group["params"]
    }
    both = again.get_input_embeddings().weight, again.get_output_embeddings().weight
    assert {id(weight) for weight in both} <= trained and both[0] is not both[1]


class Blocks:
    def __len__(self):
        return 4

    def blocks(self, rows):
        return np.zeros((len(rows), 4), dtype=np.int64)


def trainer_of(model, work: Path) -> Trainer:
    settings = {
        "batch_size": 2,
        "micro_batch_size": None,
        "epochs": 1,
        "weight_decay": 0.0,
        "betas": [0.9, 0.95],
        "epsilon": 1e-8,
        "learning_rate": 1e-3,
        "compile": False,
        "dropout": None,
        "activation_checkpointing": False,
        "precision": "fp32",
    }
    log = logging.getLogger("test")
    return Trainer(model, Blocks(), settings, 0, torch.device("cpu"), work, "k", log)


def test_equal_heads_or_one_are_tied_and_an_absent_head_is_not_made_up(tmp_path):
    source = write(tmp_path / "given", tie_word_embeddings=True)
    state = tensors(source)
    replace(source, state | {"lm_head.weight": state["model.embed_tokens.weight"].clone()})
    assert load(source).config.tie_word_embeddings
    replace(source, state)
    assert load(source).config.tie_word_embeddings
    change(source, tie_word_embeddings=False)
    refused(source, "'lm_head.weight' is missing")


def shards(folder: Path) -> list[Path]:
    """Divide a folder's weights into two shards with an index."""
    state = tensors(folder)
    names = sorted(state)
    files = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    for file, half in zip(files, halves, strict=True):
        replace(folder, {name: state[name] for name in half}, file)
    where = {name: file for file, half in zip(files, halves, strict=True) for name in half}
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    (folder / WEIGHTS).unlink()
    return [folder / file for file in files]


def test_shards_are_read_as_their_index_names_them_or_not_at_all(tmp_path):
    source = write(tmp_path / "given")
    expected, whole = theirs(source), tmp_path / "whole.safetensors"
    shutil.copy(source / WEIGHTS, whole)
    files = shards(source)
    assert torch.equal(logits(load(source)), expected)

    shutil.copy(files[0], source / "model-00003-of-00003.safetensors")
    refused(source, "model-00003-of-00003.safetensors", "no index names it")
    (source / "model-00003-of-00003.safetensors").unlink()

    shutil.copy(whole, source / WEIGHTS)  # left from an earlier save
    refused(source, "model.safetensors.index.json", "out of date")
    (source / WEIGHTS).unlink()

    replace(source, load_file(files[0]) | {"model.norm.weight": torch.ones(16)}, files[0].name)
    refused(source, "'model.norm.weight' stands in two files")
    files[1].unlink()
    refused(source, files[1].name)

    index = json.loads((source / f"{WEIGHTS}.index.json").read_text())
    shutil.copy(whole, files[0])
    index["weight_map"] = dict.fromkeys(load_file(whole), files[0].name)
    (source / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    load(source)
    index["weight_map"]["more"] = files[0].name
    (source / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    refused(source, "'more' is missing")
    (source / f"{WEIGHTS}.index.json").write_text('{"weight_map": []}')
    refused(source, "index.json is not readable")


def test_an_index_of_the_single_file_is_no_second_checkpoint(tmp_path):
    source = write(tmp_path / "given")
    index = {"weight_map": dict.fromkeys(tensors(source), WEIGHTS)}
    (source / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    load(source)


def test_a_prefix_that_transformers_knows_is_mapped_and_another_refused(tmp_path):
    source = write(tmp_path / "given", "gpt2", tie_word_embeddings=True)
    expected, state = theirs(source), tensors(source)
    bare = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    replace(source, bare)  # as the hub has GPT-2
    assert bare.keys() != state.keys() and torch.equal(logits(load(source)), expected)
    replace(source, {f"module.{name}": tensor for name, tensor in state.items()})
    refused(source, "is missing")
    replace(source, state | {"wte.weight": state["transformer.wte.weight"] + 1})
    refused(source, "wte.weight")  # one parameter under two names


def test_an_expert_that_is_damaged_or_absent_is_named(tmp_path):
    """Transformers joins the experts of a layer into one tensor and back."""
    source = write(tmp_path / "given", "mixtral", tie_word_embeddings=False)
    state = tensors(source)
    name = next(name for name in state if ".experts.1." in name)
    replace(source, {key: tensor for key, tensor in state.items() if key != name})
    refused(source, "given")
    replace(source, state | {name.replace(".1.", ".7."): state[name].clone()})
    refused(source, "given")


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_other_precisions_are_cast(kind, tmp_path):
    source = write(tmp_path / "given")
    state = {name: tensor.to(kind) + 1e-12 for name, tensor in tensors(source).items()}
    replace(source, state)
    loaded = load(source).state_dict()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in state.items())


def test_what_is_no_floating_point_number_of_16_bits_or_more_is_refused(tmp_path):
    source = write(tmp_path / "given")
    state, name = tensors(source), "model.layers.0.mlp.up_proj.weight"
    replace(source, state | {name: state[name].to(torch.float8_e4m3fn)})
    refused(source, name, "F8_E4M3")
    with pytest.raises(DamagedArtifact, match="float8"):
        checkpoint.load_model(source)
    replace(source, state | {name: state[name].double() * 1e300})
    refused(source, name, "NaN or infinity")


def test_buffers_of_old_checkpoints_are_compared_where_the_model_has_them(tmp_path):
    source = write(tmp_path / "given")
    state = tensors(source)
    turns = 10000.0 ** (-torch.arange(0, 8, 2) / 8)
    name = "model.layers.1.self_attn.rotary_emb.inv_freq"
    for kind in (torch.float32, torch.float16):
        replace(source, state | {name: turns.to(kind)})
        load(source)
    replace(source, state | {name: turns**2})  # trained with another base than the config's
    refused(source, name, "rotation")

    other = write(tmp_path / "masks", "gpt2")
    mask = torch.ones(32, 32, dtype=torch.bool).tril()[None, None]
    below = torch.tensor(-1e4)
    for name, tensor in (("attn.bias", mask), ("attn.masked_bias", below), ("a.mask", mask)):
        replace(other, tensors(other) | {f"transformer.h.0.{name}": tensor})
        load(other)
    replace(other, tensors(other) | {"transformer.h.0.a.mask": mask.float() + 0.1})
    refused(other, "h.0.a.mask", "not part of this architecture")


def test_a_shape_that_does_not_fit_is_named(tmp_path):
    source = write(tmp_path / "given", tie_word_embeddings=True)
    change(source, vocab_size=12)
    refused(source, "'model.embed_tokens.weight' has shape (13, 16), not (12, 16)")


@pytest.mark.parametrize(
    "extra",
    ["lm_head.bias", "score.weight", "v_head.summary.weight", "model.layers.2.mlp.a.weight"],
)
def test_a_tensor_without_a_place_is_refused(extra, tmp_path):
    source = write(tmp_path / "given", tie_word_embeddings=True)
    replace(source, tensors(source) | {extra: torch.ones(13)})
    refused(source, repr(extra), "not part of this architecture")


@pytest.mark.parametrize(
    ("change_folder", "words"),
    [
        (lambda f: (f / "adapter_config.json").write_text("{}"), ["adapter", "merge_and_unload"]),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b""), ["adapter"]),
        (lambda f: (f / "value_head.safetensors").write_bytes(b""), ["value_head.safetensors"]),
        (lambda f: change(f, quantization_config={"quant_method": "gptq"}), ["quantised"]),
        (lambda f: change(f, transformers_weights="x.safetensors"), ["transformers_weights"]),
        (
            lambda f: change(f, architectures=["LlamaForSequenceClassification"]),
            ["LlamaForSequenceClassification", "not a causal language model"],
        ),
    ],
)
def test_a_folder_of_something_else_is_refused(change_folder, words, tmp_path):
    source = write(tmp_path / "given")
    change_folder(source)
    refused(source, *words)


def test_a_change_that_transformers_makes_after_loading_is_noticed(tmp_path, monkeypatch):
    source = write(tmp_path / "given")
    kind = type(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source)))
    original = kind.tie_weights

    def and_zero_a_row(self, *given, **named):
        original(self, *given, **named)
        if not self.get_input_embeddings().weight.is_meta:
            self.get_input_embeddings().weight.data[0].zero_()

    monkeypatch.setattr(kind, "tie_weights", and_zero_a_row)
    refused(source, "'model.embed_tokens.weight' is not what the loaded model holds")


def test_a_resume_takes_no_weights_of_another_model(tmp_path):
    model = load(write(tmp_path / "given"))
    trainer = trainer_of(model, tmp_path)
    state = {name: p.detach().clone() for name, p in model.named_parameters()}
    for wrong in (
        {k: v for k, v in state.items() if k != "model.norm.weight"},
        state | {"model.norm.weight": torch.ones(1)},
        state | {"lm_head.bias": torch.ones(13)},
    ):
        save_file(wrong, tmp_path / "best.safetensors")
        with (
            safe_open(str(tmp_path / "best.safetensors"), "pt") as file,
            pytest.raises(ValueError, match="does not hold the weights of this model"),
        ):
            trainer.restore(file, "")


def test_a_folder_with_a_record_is_compared_with_it(tmp_path):
    """The folder of a run's member. A `run.json` of something else is no record."""
    read = ("config.json", "model.safetensors", "tokenizer.json", "special_tokens_map.json")
    for name in (*read, "README.md"):
        (tmp_path / name).write_bytes(b"12345678")
    digests = {name: artifacts.digest(tmp_path / name) for name in read}
    for record in ([1], {"outputs": 1}, {"outputs": digests}):
        (tmp_path / "run.json").write_text(json.dumps(record))
        assert provenance(str(tmp_path)) == digests
    (tmp_path / "model.safetensors").write_bytes(b"12345679")
    with pytest.raises(
        DamagedArtifact, match=r"model.safetensors: damaged: its digest .* run.json"
    ):
        provenance(str(tmp_path))
