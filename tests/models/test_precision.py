"""Precision: bf16 where the GPU has it, fp32 on a CPU as before, one line where it is refused."""

import logging
import types

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from pollination.core import resume
from pollination.core.settings import definition, lean, with_defaults
from pollination.models import checkpoint, contract, inference, precision
from pollination.models.contract import contract_of, why_not_bf16
from pollination.models.decoder import Decoder
from pollination.models.paths import decoder_of
from pollination.models.prefix_tree import continuation_logprobs
from pollination.plan.config.resolve import resolve
from tests.conftest import TOY
from tests.models.test_contract import config_of

CPU, GPU = torch.device("cpu"), torch.device("cuda")
LLAMA = {"rms_norm_eps": 1e-6}


@pytest.fixture
def gpu(monkeypatch):
    """A function that lets torch report a GPU of a capability, as a V100 and an A100 do."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    def of(*capability: int) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _=None: "the GPU")

    yield of
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def test_auto_is_bf16_only_where_the_gpu_has_it(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)  # by emulation
    assert precision.choose("auto", CPU, "k") == "fp32"
    for capability, found in (
        ((7, 0), "fp32"),
        ((7, 5), "fp32"),
        ((8, 0), "bf16"),
        ((9, 0), "bf16"),
    ):
        gpu(*capability)
        assert precision.choose("auto", GPU, "k") == found
        assert precision.choose("fp32", GPU, "k") == "fp32"


@pytest.mark.parametrize("asked", ["bf16", "tf32"])
def test_a_gpu_without_it_refuses_it_in_one_line(gpu, asked):
    gpu(7, 0)
    with pytest.raises(ValueError) as refused:
        precision.choose(asked, GPU, "train.precision")
    said = str(refused.value)
    assert said == (
        f"train.precision: '{asked}' needs a GPU of capability 8.0 or higher, but the GPU has 7.0; "
        "allowed here: auto, fp32. Set train.precision: auto"
    )
    gpu(8, 6)
    assert precision.choose(asked, GPU, "train.precision") == asked


def test_a_cpu_computes_bf16_but_not_tf32():
    assert precision.choose("bf16", CPU, "k") == "bf16"
    with pytest.raises(ValueError, match="k: 'tf32' needs a GPU .* on a CPU; .* auto, fp32, bf16"):
        precision.choose("tf32", CPU, "k")


@pytest.mark.parametrize("key", ["evaluate", "defaults.train", "defaults.generate", "founders"])
def test_check_refuses_tf32_on_the_cpu(key):
    raw = yaml.safe_load(TOY.read_text()) | {"device": "cpu"}
    first, _, second = key.partition(".")
    part = raw.setdefault(first, {})
    part = next(iter(part.values())).setdefault("train", {}) if first == "founders" else part
    (part.setdefault(second, {}) if second else part)["precision"] = "tf32"
    with pytest.raises(ValueError, match=r"precision: 'tf32' needs a GPU, but .* device: cpu"):
        resolve(raw)


def test_only_tf32_lets_a_gpu_round_its_products(gpu):
    for name, products, convolutions in (("tf32", "high", True), ("fp32", "highest", False)):
        precision.set_products(name, GPU)
        assert torch.get_float32_matmul_precision() == products
        assert torch.backends.cudnn.allow_tf32 == convolutions
    precision.set_products("bf16", CPU)
    assert torch.get_float32_matmul_precision() == "highest"


def test_old_records_of_writing_and_scoring_stay_valid():
    for section in ("generate", "evaluate"):
        node = definition(section)
        assert "precision" not in lean(with_defaults({}, node), node)
        kept = lean(with_defaults({"precision": "fp32"}, node), node)
        assert kept["precision"] == "fp32"


def made(architecture: str, **changes):
    torch.manual_seed(0)
    config = config_of(architecture, **changes)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def test_cast_keeps_the_frequencies_of_positions_in_fp32():
    """`model.to(torch.bfloat16)` rounds them too, which moves the positions of a long text."""
    model = made("llama")
    rounded = precision.cast(model, torch.bfloat16)
    assert {p.dtype for p in rounded.parameters()} == {torch.bfloat16}
    assert rounded.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.equal(rounded.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)
    assert model.dtype == model.config.dtype == torch.float32
    assert precision.cast(model, torch.float32) is model
    tied = rounded.get_input_embeddings().weight is rounded.get_output_embeddings().weight
    assert tied == model.config.tie_word_embeddings


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt_neox", "mamba"])
def test_the_contract_holds_in_bf16_and_another_path_does_not(architecture, monkeypatch):
    config = config_of(architecture)
    assert why_not_bf16(config) is None
    monkeypatch.setattr(contract, "_rounded", {})
    forward = Decoder._forward
    monkeypatch.setattr(  # a path that is right in fp32 alone
        Decoder,
        "_forward",
        lambda self, tokens_BT, start: (
            forward(self, tokens_BT, start)
            if self.model.dtype == torch.float32
            else forward(self, tokens_BT.flip(0), start)
        ),
    )
    assert "its logits differ" in why_not_bf16(config)


def test_keys_and_values_take_half_the_memory():
    model = precision.cast(made("llama"), torch.bfloat16)
    decoder = decoder_of(model, [[1, 2, 3], [4, 5]], 4)
    assert decoder.read().dtype == torch.float32
    decoder.step(torch.tensor([1, 2]))
    assert {part.dtype for layer in decoder.cache.layers for part in layer.room} == {torch.bfloat16}


def test_scored_choices_do_not_tie_by_rounded_logits():
    """Logits of 16 and more have steps of 1/8 in bf16, so that most of 4,096 would tie."""
    model = made("llama", vocab_size=4096, tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight.mul_(200)
    contract_of(model)
    texts = [np.array([1, 5, 9]) for _ in range(4096)]
    targets = [np.array([token]) for token in range(4096)]
    exact, _ = continuation_logprobs(model, texts, targets)
    rounded = precision.cast(model, torch.bfloat16)
    found, _ = continuation_logprobs(rounded, texts, targets)
    assert len(np.unique(found)) > 4000
    assert np.abs(found - exact).std() < 0.02 * exact.std()
    with torch.no_grad():
        plain = rounded(input_ids=torch.tensor([[1, 5, 9]])).logits[0, -1]
    assert len(plain.unique()) < 2000


class FakeJob(types.SimpleNamespace):
    def note_hardware(self, resumes: bool) -> None:
        self.noted = resumes, dict(self.used)


def job(**given) -> FakeJob:
    params = types.SimpleNamespace(cpu_threads=1)
    log = logging.getLogger("test")
    return FakeJob(device="cpu", params=params, used={}, log=log, **given)


def test_on_a_cpu_auto_is_fp32_and_the_record_stays_as_it_was(tmp_path):
    checkpoint.save_model(made("llama"), tmp_path)
    one = job()
    found = inference.begin(one, "evaluate.precision", "auto", [tmp_path])
    assert found.precision == "fp32" and one.used == {} and one.noted == (False, {})
    assert found.model(tmp_path).dtype == torch.float32


def test_the_record_names_bf16_before_the_hardware_is_noted(tmp_path):
    checkpoint.save_model(made("llama"), tmp_path)
    one = job()
    found = inference.begin(one, "evaluate.precision", "bf16", [tmp_path])
    assert one.noted == (False, {"precision": "bf16"})
    assert found.model(tmp_path).dtype == torch.bfloat16


def test_an_architecture_that_bf16_changes_is_refused_or_computed_in_fp32(
    tmp_path, monkeypatch, caplog
):
    checkpoint.save_model(made("llama"), tmp_path)
    monkeypatch.setattr(inference, "why_not_bf16", lambda _: "its logits differ")
    with pytest.raises(ValueError, match=r"generate.precision: 'bf16' changes .* allowed: auto, f"):
        inference.begin(job(), "generate.precision", "bf16", [tmp_path])
    monkeypatch.setattr(inference, "choose", lambda *_: "bf16")  # as on an A100
    with caplog.at_level("INFO", "test"):
        found = inference.begin(job(), "generate.precision", "auto", [tmp_path])
    assert found.precision == "fp32" and "fp32, because bf16 changes" in caplog.text


def test_a_batch_of_another_precision_is_not_resumed():
    model = made("llama")
    rounded = precision.cast(model, torch.bfloat16)
    keys = [resume.key_of(resume.name(one, "member"), "losses", [1]) for one in (model, rounded)]
    unnamed = types.SimpleNamespace(resume_name=None)
    assert keys[0] != keys[1]
    assert resume.key_of(resume.name(unnamed, "member"), "losses", [1]) == keys[0]
