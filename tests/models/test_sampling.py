"""The sampler: exact nucleus, rows independent of their batch, agreement with transformers."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, OPTConfig
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from pollination.models import drawing, paths, static_decoder
from pollination.models.drawing import Decoding, draw, nucleus_probabilities, row_keys
from pollination.models.sampling import sample
from tests.conftest import shared

torch.set_num_threads(1)  # in models this small, threads only wait for each other
EOS, VOCABULARY, CONTEXT = 2, 97, 64
FAMILIES = ("llama", "gpt2", "opt")


def tiny_model(family: str, seed: int = 0, vocabulary: int = VOCABULARY):
    """A seeded random model in fp32 whose large weights keep its choices far from ties."""
    special = {
        "vocab_size": vocabulary,
        "bos_token_id": EOS,
        "eos_token_id": EOS,
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }
    config = {
        "llama": lambda: LlamaConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            initializer_range=0.4,
            **special,
        ),
        "gpt2": lambda: GPT2Config(
            n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT, initializer_range=0.4, **special
        ),
        "opt": lambda: OPTConfig(
            hidden_size=32,
            word_embed_proj_dim=32,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            init_std=0.4,
            **special,
        ),
    }[family]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def random_prompts(lengths, seed: int = 0, vocabulary: int = VOCABULARY) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(3, vocabulary, (length,), generator=generator).tolist() for length in lengths
    ]


def warped(logits, temperature, top_k, top_p):
    """Return transformers' distribution in float64: its fp32 softmax has errors above 1e-6."""
    scores = TemperatureLogitsWarper(float(temperature))(None, logits.double())
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    return scores.softmax(-1)


@pytest.mark.parametrize("top_k", [0, 1, 50, 700, 5000])
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 0.999, 1.0])
def test_nucleus_is_that_of_transformers(top_k, top_p):
    generator = torch.Generator().manual_seed(top_k)
    for spread, temperature in ((0.1, 1.0), (3.0, 0.7), (8.0, 2.0)):
        logits = spread * torch.randn(8, 3001, generator=generator)
        ours = nucleus_probabilities(
            logits, Decoding("nucleus", temperature=temperature, top_k=top_k, top_p=top_p)
        )
        theirs = warped(logits, temperature, top_k, top_p)
        assert torch.equal(ours > 0, theirs > 0)
        torch.testing.assert_close(ours.double(), theirs, atol=1e-6, rtol=0)


def test_nucleus_keeps_the_token_that_crosses_and_one_at_least():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    for top_p, kept in ((0.49, 1), (0.6, 2), (0.79, 2), (0.81, 3), (1e-9, 1)):
        assert (
            int((nucleus_probabilities(logits, Decoding(top_p=top_p, temperature=1.0)) > 0).sum())
            == kept
        )


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding("nucleus", top_p=0.9, temperature=1.0),
        Decoding("nucleus", top_p=0.95, temperature=2.0, top_k=700),
        Decoding("sample", temperature=1.0, top_k=80),
        Decoding("nucleus", top_p=0.9, top_k=3),
    ],
)
@pytest.mark.parametrize("spread", [0.05, 1.5, 4.0, 40.0])
def test_looking_at_few_tokens_first_draws_what_a_full_sort_draws(decoding, spread, monkeypatch):
    """Return flat rows (nuclei far wider than the prefilter), peaked rows and ties."""
    generator = torch.Generator().manual_seed(3)
    logits = spread * torch.randn(60, 4099, generator=generator)
    logits[::3] = logits[::3].round()
    keys = row_keys(list(range(60)), 1)[:, 0]
    few, sound = draw(logits.clone(), keys, decoding)
    monkeypatch.setattr(drawing, "WIDTHS", ())
    every, _ = draw(logits.clone(), keys, decoding)
    assert sound.all() and torch.equal(few, every)
    assert (nucleus_probabilities(logits, decoding).gather(1, few[:, None]) > 0).all()


@pytest.mark.parametrize("top_k", [0, 1, 40, 700, 9000])
@pytest.mark.parametrize("top_p", [1e-6, 0.9, 0.9999, 1.0])
def test_a_threshold_allows_the_tokens_of_a_full_sort(top_k, top_p):
    """With ties too, and with weights that are 0. Ties go to low token ids."""
    generator = torch.Generator().manual_seed(top_k)
    logits = torch.randn(24, 9001, generator=generator) * torch.logspace(-3, 2, 24)[:, None]
    logits[::3] = logits[::3].round()
    logits[1::6] = 0
    logits[2::6, ::2] = -torch.inf
    decoding = Decoding("nucleus", temperature=1.0, top_k=top_k, top_p=top_p)
    found = nucleus_probabilities(logits, decoding) > 0
    weights = drawing._weights(logits.clone(), 1.0)
    by_weight, ids = weights.sort(dim=-1, descending=True, stable=True)
    kept, _ = drawing._support(by_weight, drawing._total(weights), decoding)
    expected = torch.zeros_like(found).scatter(1, ids, torch.arange(9001) < kept[:, None])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(max_new_tokens=1, temperature=6.0),
        Decoding("sample", max_new_tokens=1, temperature=6.0),
    ],
)
def test_first_tokens_follow_the_probabilities(family, decoding):
    """Test 20,000 draws with 20,000 row seeds by chi-square."""
    model, prompt = tiny_model(family), random_prompts([9])[0]
    drawn = torch.tensor(
        [
            ids[0]
            for ids in sample(model, [prompt] * 20_000, list(range(20_000)), decoding, EOS, 2_000)
        ]
    )
    with torch.inference_mode():
        expected = (
            20_000 * nucleus_probabilities(model(torch.tensor([prompt])).logits[:, -1], decoding)[0]
        )
    counts = torch.bincount(drawn, minlength=VOCABULARY)
    inside = expected > 0
    assert counts[~inside].sum() == 0 and inside.sum() > 10
    chi_square = float(((counts - expected)[inside] ** 2 / expected[inside]).sum())
    degrees = int(inside.sum()) - 1
    assert abs(chi_square - degrees) < 3.5 * (2 * degrees) ** 0.5


def test_later_tokens_follow_the_probabilities_too():
    """Pairs of a row's first two tokens follow their joint probability: steps are independent."""
    model, prompt = tiny_model("llama", vocabulary=7), random_prompts([4], vocabulary=7)[0]
    decoding = Decoding("sample", max_new_tokens=2, min_new_tokens=2, temperature=8.0)
    pairs = torch.tensor(
        list(sample(model, [prompt] * 20_000, list(range(20_000)), decoding, EOS, 2_000))
    )
    with torch.no_grad():
        logits = model(torch.tensor([prompt + [token] for token in range(7)])).logits[:, -2:]
    logits[..., EOS] = -torch.inf
    first = nucleus_probabilities(logits[0, :1], decoding)[0]
    expected = (20_000 * first[:, None] * nucleus_probabilities(logits[:, 1], decoding)).flatten()
    counts = torch.bincount(pairs[:, 0] * 7 + pairs[:, 1], minlength=49)
    inside = expected > 0
    assert counts[~inside].sum() == 0 and inside.sum() == 36
    assert float(((counts - expected)[inside] ** 2 / expected[inside]).sum()) < 35 + 3.5 * 70**0.5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("decoding", ["nucleus", "greedy"])
def test_texts_do_not_depend_on_batching(family, decoding):
    model, prompts = (
        tiny_model(family),
        random_prompts([1, 3, 17, 9, 30, 2, 9, 5, 1, 12, 26, 4, 9, 7, 3, 11, 2]),
    )
    settings = Decoding(decoding, max_new_tokens=24, temperature=1.0, repetition_penalty=1.2)
    seeds = list(range(100, 117))
    alone = list(sample(model, prompts, seeds, settings, EOS, 1))
    assert (
        alone
        == list(sample(model, prompts, seeds, settings, EOS, 3))
        == list(sample(model, prompts, seeds, settings, EOS, 16))
    )
    order = list(reversed(range(17)))
    assert (
        alone
        == list(
            sample(model, [prompts[i] for i in order], [seeds[i] for i in order], settings, EOS, 5)
        )[::-1]
    )
    assert len({len(ids) for ids in alone}) > 1  # rows end at different places


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("static", [False, True])
def test_each_step_has_the_probabilities_of_transformers(family, static, monkeypatch):
    """Ragged prompts up to the last position equal a forward pass of each text alone.

    Transformers' warpers act on its logits.
    """
    monkeypatch.setattr(paths, "STATIC_DEVICES", ("cpu",) * static)
    monkeypatch.setattr(static_decoder, "BUCKET_TOKENS", 16)
    model, texts = (
        tiny_model(family).double(),
        random_prompts([30, 1, 17, 5]),
    )  # float64 sums agree up to rounding
    new = CONTEXT - 30
    following_BT = torch.tensor(random_prompts([new] * 4, seed=1))
    with torch.inference_mode():
        ours = paths.decoder_of(model, texts, new)
        logits_BV = ours.read()
        for t in range(new):
            found_BV = nucleus_probabilities(
                logits_BV, Decoding("nucleus", temperature=2.0, top_p=0.95)
            )
            for row, prompt in enumerate(texts):
                alone = model(torch.tensor([prompt + following_BT[row, :t].tolist()])).logits[:, -1]
                expected = warped(alone, 2.0, 0, 0.95)[0]
                assert torch.equal(found_BV[row] > 0, expected > 0)
                torch.testing.assert_close(found_BV[row].double(), expected, atol=1e-6, rtol=0)
            logits_BV = ours.step(following_BT[:, t]) if t + 1 < new else logits_BV


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("penalty", [1.0, 1.4])
def test_greedy_is_that_of_transformers(family, penalty):
    model, prompts = tiny_model(family, seed=1), random_prompts([4, 1, 11, 30])
    settings = Decoding("greedy", max_new_tokens=20, min_new_tokens=3, repetition_penalty=penalty)
    for prompt, ours in zip(
        prompts, sample(model, prompts, [0] * 4, settings, EOS, 4), strict=True
    ):
        ids = torch.tensor([prompt])
        theirs = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=20,
            min_new_tokens=3,
            repetition_penalty=penalty,
            eos_token_id=EOS,
            pad_token_id=0,
        )
        assert ours == theirs[0, len(prompt) :].tolist()


def test_row_seeds_decide():
    model, prompt = tiny_model("llama"), random_prompts([5])[0]
    settings = Decoding(max_new_tokens=16, temperature=1.0, min_new_tokens=16)
    one, two, again = sample(model, [prompt] * 3, [1, 2, 1], settings, EOS, 3)
    assert one == again != two and len(one) == 16 and EOS not in one


def test_a_full_context_is_used_and_no_more():
    model = tiny_model("gpt2")
    settings = Decoding(max_new_tokens=CONTEXT - 30, min_new_tokens=CONTEXT)
    assert [
        len(ids) for ids in sample(model, random_prompts([30, 2]), [0, 1], settings, EOS, 2)
    ] == [CONTEXT - 30] * 2
    with pytest.raises(
        ValueError, match=r"31 tokens and max_new_tokens 34 exceed the model's context of 64"
    ):
        list(sample(model, random_prompts([31]), [0], settings, EOS, 1))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("decoding", ["nucleus", "sample", "greedy"])
def test_a_broken_model_is_named(value, decoding):
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight[5] = value
    with pytest.raises(ValueError, match="non-finite logits"):
        list(
            sample(
                model, random_prompts([3, 4]), [0, 1], Decoding(decoding, max_new_tokens=4), EOS, 2
            )
        )


def test_a_real_model_with_a_large_vocabulary():
    model = AutoModelForCausalLM.from_pretrained(
        shared("models/stories15M"), dtype=torch.float32
    ).eval()
    prompts = random_prompts(
        [3, 9, 5, 7], vocabulary=32_000
    )  # noise: nuclei of thousands of tokens at the start
    settings = Decoding(max_new_tokens=12, temperature=1.5)
    assert list(sample(model, prompts, [1, 2, 3, 4], settings, 2, 4)) == list(
        sample(model, prompts, [1, 2, 3, 4], settings, 2, 1)
    )
