"""Create, save, load and mutate models of three families. Misfits are refused in one line."""

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoConfig, PreTrainedTokenizerFast

from pollination.core.artifacts import DamagedArtifact
from pollination.data import tokens
from pollination.evolution.mutation import mutate
from pollination.models import checkpoint
from pollination.models.device import pick_device

SETTINGS = {
    "llama": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    "gpt2": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    "opt": {
        "hidden_size": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 16,
    },
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(["<eos>", "<unk>", *"abcdefghijk"])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")


def spec(architecture: str, **settings) -> dict:
    return {
        "architecture": architecture,
        "settings": SETTINGS.get(architecture, {}) | settings,
        "context_tokens": 12,
        "pretrained": None,
    }


@pytest.fixture(params=SETTINGS)
def folder(request, tmp_path):
    """A member's folder with a new model of each family."""
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    checkpoint.write_blueprint(spec(request.param), tokenizer, tmp_path)
    checkpoint.save_model(checkpoint.create_model(tmp_path, seed=1), tmp_path)
    return tmp_path


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(folder):
    same, again, other = (checkpoint.create_model(folder, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert not all(torch.equal(same[name], other[name]) for name in same)


def test_a_saved_model_loads_by_transformers_too_with_equal_logits(folder):
    from transformers import AutoModelForCausalLM

    tokens = torch.tensor([[2, 3, 4, 5]])
    ours, theirs = (
        checkpoint.load_model(folder),
        AutoModelForCausalLM.from_pretrained(folder).eval(),
    )
    with torch.no_grad():
        assert torch.equal(ours(tokens).logits, theirs(tokens).logits)
    assert {p.name for p in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_loading_initialises_nothing(folder, monkeypatch):
    monkeypatch.setattr(
        torch.Tensor,
        "normal_",
        lambda *_, **__: pytest.fail("weights were drawn that a file is read for"),
    )
    before = torch.get_rng_state()
    loaded = checkpoint.load_model(folder)
    assert torch.equal(before, torch.get_rng_state())
    assert not loaded.training and all(
        p.dtype == torch.float32 and p.requires_grad for p in loaded.parameters()
    )


def test_mutation_moves_each_tensor_by_at_most_half_its_spread_times_the_scale(folder):
    state = checkpoint.read_weights(folder / "model.safetensors")
    mutated = mutate(state, 0.01, "tensor", seed=5)
    for name, tensor in state.items():
        moved, bound = (mutated[name] - tensor).abs().max(), 0.005 * tensor.std()
        assert moved <= bound * 1.001
        if tensor.std() > 0:
            assert moved > bound * 0.5
    again = mutate(dict(reversed(state.items())), 0.01, "tensor", seed=5)
    assert all(torch.equal(mutated[name], again[name]) for name in state)
    assert any(
        not torch.equal(mutated[name], tensor)
        for name, tensor in mutate(state, 0.01, "tensor", seed=6).items()
    )


def test_mutation_per_model_uses_one_spread():
    state = {
        "a": torch.zeros(1000),
        "b": torch.ones(1000),
    }  # no spread within a tensor, 0.5 over both
    moved = mutate(state, 0.1, "model", seed=0)["a"]
    assert 0.9 * 0.025 < moved.abs().max() <= 0.0251
    assert torch.equal(mutate(state, 0.1, "tensor", seed=0)["a"], state["a"])


def test_damaged_or_foreign_weights_are_refused(folder):
    path = folder / "model.safetensors"
    state = checkpoint.read_weights(path)
    name = next(iter(state))
    cases = [
        ({k: v for k, v in state.items() if k != name}, "is missing"),
        (state | {"more": torch.zeros(2)}, "does not belong"),
        (state | {name: torch.zeros(3, 3)}, "has shape"),
        (state | {name: torch.full_like(state[name], torch.nan)}, "NaN"),
        (
            state | {name: state[name].clone().index_fill_(0, torch.tensor(0), -torch.inf)},
            "NaN or infinity",
        ),
    ]
    for changed, words in cases:
        save_file(changed, path)
        with pytest.raises(DamagedArtifact, match=words):
            checkpoint.load_model(folder)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DamagedArtifact, match="not a readable safetensors file"):
        checkpoint.load_model(folder)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (spec("lama"), "did you mean 'llama'"),
        (spec("llama", hiden_size=3), "did you mean 'hidden_size'"),
        (
            spec("llama", vocab_size=5),
            "too small for the tokenizer; allowed: an integer of at least 13",
        ),
    ],
)
def test_a_blueprint_that_cannot_be_is_refused(bad, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        checkpoint.write_blueprint(bad, make_tokenizer(), tmp_path)


def test_a_tokenizer_that_does_not_fit_a_pretrained_model_is_refused(folder, tmp_path_factory):
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([f"extra{i}" for i in range(50)])
    out = tmp_path_factory.mktemp("out")
    pretrained = {"pretrained": str(folder), "context_tokens": 12}
    with pytest.raises(ValueError, match="do not fit"):
        checkpoint.write_blueprint(pretrained, tokenizer, out)
    with pytest.raises(
        ValueError, match="context_tokens: 13 exceeds the positions of .*; allowed: at most 12"
    ):
        checkpoint.write_blueprint(pretrained | {"context_tokens": 13}, make_tokenizer(), out)


def test_asking_for_a_gpu_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="'cuda' needs a usable GPU"):
        pick_device("cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(ValueError, match="inside a GPU allocation"):
        pick_device("auto")
    assert pick_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("architecture", "name"), [("gpt2", "n_positions"), ("opt", "max_position_embeddings")]
)
def test_a_setting_by_its_architectures_own_name_is_taken(architecture, name):
    """GPT-2 calls its positions n_positions. `context_tokens` must not replace a given value."""
    made = checkpoint.make_config(spec(architecture, **{name: 128}), make_tokenizer())
    assert made.max_position_embeddings == 128
    assert (
        checkpoint.make_config(spec(architecture), make_tokenizer()).max_position_embeddings == 12
    )


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_tokenizer_is_that_of_its_file_whatever_the_architecture(architecture, tmp_path):
    """Transformers reads a Qwen 2 folder with a class that knows no vocabulary of words."""
    made = make_tokenizer()
    made.save_pretrained(tmp_path)
    sizes = SETTINGS["llama"] | {"num_key_value_heads": 2}
    checkpoint.write_blueprint(spec(architecture, **sizes), made, tmp_path)
    ids = checkpoint.load_tokenizer(tmp_path)("a c  k zz", add_special_tokens=False)["input_ids"]
    assert ids == [2, 4, 12, 1]


def test_a_source_whose_tokenizer_is_read_otherwise_is_refused(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    make_tokenizer().save_pretrained(source)
    AutoConfig.for_model("qwen2").save_pretrained(source)
    with pytest.raises(ValueError, match=r"reads its tokenizer.json as a Qwen2Tokenizer"):
        tokens.make_tokenizer({"kind": "pretrained", "source": str(source)}, None, target, 0)
    assert not target.exists()
