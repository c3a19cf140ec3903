"""Three sizes of a vocabulary are three numbers, and models without positions have no limit."""

import copy
from functools import wraps

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from pollination.core.artifacts import DamagedArtifact
from pollination.data.tokens import TokenBlocks, largest_id, pack
from pollination.models import beam, checkpoint, sampling
from pollination.models.completion import complete, continue_prompts
from pollination.models.limits import context_limit, embedding_rows, fits, ids_without_token
from tests.models.test_checkpoint import make_tokenizer
from tests.models.test_sampling import EOS, FAMILIES, random_prompts, tiny_model

ROWS = 40  # of the embedding; the tokenizer has 9 tokens with ids up to 29


def tokenizer_with_gaps() -> PreTrainedTokenizerFast:
    ids = [0, 1, 3, 4, 8, 12, 20, 21, 29]
    words = ["<eos>", "<unk>", *"abcdefg"]
    made = Tokenizer(WordLevel(dict(zip(words, ids, strict=True)), unk_token="<unk>"))
    made.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", unk_token="<unk>")


def model_that_prefers_ids_without_token(tokenizer, rows: int = ROWS):
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        eos_token_id=0,
        bos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        model.lm_head.weight.data.normal_()
        known = torch.tensor(sorted(tokenizer.get_vocab().values()))
        model.lm_head.weight.data[known] *= 0.1  # the others have the largest logits
    return model


def barred(model, ids: torch.Tensor):
    """A copy of a model whose head gives the ids no probability."""
    other = copy.deepcopy(model)
    head = torch.nn.Linear(*reversed(model.get_output_embeddings().weight.shape))
    head.weight.data = model.get_output_embeddings().weight.data
    head.bias.data = torch.zeros(head.out_features).index_fill(0, ids, -torch.inf)
    other.set_output_embeddings(head)
    return other


DECODINGS = [
    {"decoding": "greedy", "repetition_penalty": 1.3},
    {"decoding": "nucleus", "top_p": 0.9, "temperature": 1.5},
    {"decoding": "nucleus", "top_p": 1.0, "top_k": 7, "repetition_penalty": 1.2},
    {"decoding": "sample", "temperature": 2.0},
    {"decoding": "beam", "num_beams": 4},
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("settings", DECODINGS)
def test_every_decoding_is_that_of_a_model_without_these_ids(family, settings):
    model, prompts = tiny_model(family), random_prompts([3, 9, 1])
    never = torch.arange(3, 97, 2)
    settings = settings | {"batch_size": 8, "max_new_tokens": 16, "min_new_tokens": 4}
    seeds = [7, 8, 9]
    free = list(complete(model, prompts, seeds, settings, EOS))
    bound = list(complete(model, prompts, seeds, settings, EOS, never=never))
    assert set(never.tolist()) & {i for ids in free for i in ids}
    assert not set(never.tolist()) & {i for ids in bound for i in ids}
    assert bound == list(complete(barred(model, never), prompts, seeds, settings, EOS))
    none = torch.tensor([], dtype=torch.long)
    assert free == list(complete(model, prompts, seeds, settings, EOS, never=none))


@pytest.mark.parametrize("settings", DECODINGS)
def test_text_never_holds_an_id_without_a_token(settings, monkeypatch):
    tokenizer = tokenizer_with_gaps()
    model = model_that_prefers_ids_without_token(tokenizer)
    written: list[list[int]] = []

    def spy(function):
        @wraps(function)
        def kept(*given, **named):
            for ids in function(*given, **named):
                written.append(ids)
                yield ids

        return kept

    monkeypatch.setattr(sampling, "decode", spy(sampling.decode))
    monkeypatch.setattr(beam, "decode", spy(beam.decode))
    settings = settings | {"max_new_tokens": 12, "min_new_tokens": 12}
    table = continue_prompts(model, tokenizer, [("0", "a b"), ("1", "g")], settings, seed=3)
    ids = {i for row in written for i in row}
    assert ids and ids <= set(tokenizer.get_vocab().values())
    for text, row in zip(table.completion, written, strict=True):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == row


def test_the_sizes_of_a_vocabulary(tmp_path):
    tokenizer = tokenizer_with_gaps()
    model = model_that_prefers_ids_without_token(tokenizer)
    assert (len(tokenizer), largest_id(tokenizer), embedding_rows(model)) == (9, 29, ROWS)
    without = ids_without_token(model, tokenizer)
    assert sorted([*without.tolist(), *tokenizer.get_vocab().values()]) == list(range(ROWS))
    about = pack(["a b c g g", "f e"], tokenizer, 4, tmp_path / "text.bin")
    assert about["tokens"] == 8 and TokenBlocks(tmp_path / "text.bin").tokens_NT.max() == 29


def test_a_model_without_spare_ids_has_no_mask():
    model = tiny_model("llama", vocabulary=9)
    words = {word: n for n, word in enumerate(["<eos>", "<unk>", *"abcdefg"])}
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<unk>")), eos_token="<eos>"
    )
    assert ids_without_token(model, made) is None


def test_a_blueprint_with_gaps_and_padding_is_used_to_the_end(tmp_path):
    tokenizer = tokenizer_with_gaps()
    spec = {
        "architecture": "gpt2",
        "settings": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        "context_tokens": 12,
        "pretrained": None,
    }
    tokenizer.save_pretrained(tmp_path)
    for size in ({}, {"vocab_size": 64}):
        checkpoint.write_blueprint(
            spec | {"settings": spec["settings"] | size}, tokenizer, tmp_path
        )
        checkpoint.save_model(checkpoint.create_model(tmp_path, 0), tmp_path)
        model, loaded = checkpoint.load_member(tmp_path)
        assert embedding_rows(model) == size.get("vocab_size", 30)
        assert len(ids_without_token(model, loaded)) == embedding_rows(model) - 9


def test_special_tokens_beyond_the_embedding_do_not_count_and_words_do(tmp_path):
    """Gemma 3's tokenizer has a token for images, which its text models have no row for."""
    tokenizer = make_tokenizer()
    rows = largest_id(tokenizer) + 1
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    assert largest_id(tokenizer) == rows and fits(tokenizer, rows) and not fits(tokenizer, rows - 1)
    tokenizer.save_pretrained(tmp_path)
    checkpoint.save_model(model_that_prefers_ids_without_token(make_tokenizer(), rows), tmp_path)
    model, loaded = checkpoint.load_member(tmp_path)
    assert embedding_rows(model) == rows and ids_without_token(model, loaded) is None
    for change in (
        lambda t: t.add_tokens(["word"]),
        lambda t: t.add_special_tokens({"eos_token": "<end>"}),
    ):
        other = make_tokenizer()
        change(other)
        other.save_pretrained(tmp_path)
        with pytest.raises(DamagedArtifact, match=f"ids up to {rows}"):
            checkpoint.load_member(tmp_path)


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (AutoConfig.for_model("bloom"), None),
        (AutoConfig.for_model("mamba"), None),
        (AutoConfig.for_model("recurrent_gemma"), None),
        (AutoConfig.for_model("xlnet"), None),  # its max_position_embeddings is -1
        (AutoConfig.for_model("mpt", max_seq_len=77), 77),
        (AutoConfig.for_model("gpt2", n_positions=77), 77),
        (AutoConfig.for_model("whisper", max_target_positions=77), 77),
        (Gemma3Config(text_config={"max_position_embeddings": 77}), 77),
    ],
)
def test_the_limit_of_positions_under_any_name(config, limit):
    assert context_limit(config) == limit


@pytest.mark.parametrize(
    ("family", "name"), [("mpt", "max_seq_len"), ("opt", "max_position_embeddings")]
)
def test_a_new_model_has_the_positions_that_are_asked_for(family, name):
    spec = {"architecture": family, "settings": {}, "context_tokens": 300}
    config = checkpoint.make_config(spec, tokenizer_with_gaps())
    assert getattr(config, name) == context_limit(config) == 300
