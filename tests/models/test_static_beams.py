"""Beam search in steps of fixed shapes, run on the CPU as a GPU captures them."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.gpu_profile import Operations
from pollination.models import beam, fixed_search, paths, refill, static_beams, static_decoder
from pollination.models.beam import beam_search
from pollination.models.contract import STATIC_BEAMS, contract_of, examine
from pollination.models.graphs import Graphs
from tests.models.test_contract import FASTEST, SIZE, config_of, model_of, prompts_of
from tests.models.test_sampling import CONTEXT, EOS, FAMILIES, random_prompts, tiny_model

PROMPTS = random_prompts([1, 3, 9, 17, 9, 30, 2])


@pytest.fixture
def like_a_gpu(monkeypatch):
    """Let the CPU take the steps of a GPU. The first of each refuses reads of the host."""

    def on(static: bool = True) -> None:
        monkeypatch.setattr(paths, "STATIC_DEVICES", ("cpu",) * static)
        monkeypatch.setattr(static_decoder, "BUCKET_TOKENS", 16)
        monkeypatch.setattr(static_beams, "BUCKET_TOKENS", 16)
        monkeypatch.setattr(static_beams, "BASE_TOKENS", 8)
        monkeypatch.setitem(refill.CHECK_STEPS, "cpu", 3)

    return on


@pytest.mark.parametrize(
    "family,least,longest,penalty,more",
    [
        *((family, 0, 20, 1.3, {}) for family in FAMILIES),
        ("llama", 16, 16, 1.0, {}),
        ("gpt2", 0, 24, 1.0, {"length_penalty": 0.5, "early_stopping": True}),
        ("opt", 2, 24, 1.0, {"length_penalty": 2.0, "early_stopping": "never"}),
    ],
)
def test_fixed_steps_find_the_same_texts(family, least, longest, penalty, more, like_a_gpu):
    """Prompts of different lengths, searches that end early, an id that is never chosen."""
    model, never = tiny_model(family), torch.tensor([11])
    settings = 4, longest, least, penalty, EOS
    expected = beam_search(model, PROMPTS, *settings, never=never, **more)
    like_a_gpu()
    assert beam_search(model, PROMPTS, *settings, never=never, **more) == expected
    assert beam_search(model, PROMPTS[2:4], *settings, never=never, **more) == expected[2:4]


@pytest.mark.parametrize("architecture", FASTEST)
def test_the_fast_families_search_in_fixed_steps(architecture, like_a_gpu):
    model, prompts = model_of(architecture), prompts_of(3, 7, 19, 7)
    expected = beam_search(model, prompts, 3, 12, 12, 1.0, 0)
    like_a_gpu()
    assert paths.steps_are_fixed(model, beams=True) and not paths.slower_decoding(model, True)
    assert beam_search(model, prompts, 3, 12, 12, 1.0, 0) == expected


def test_a_search_up_to_the_last_position_of_the_context(like_a_gpu):
    model, prompts = tiny_model("gpt2"), random_prompts([CONTEXT - 8, 3])
    expected = beam_search(model, prompts, 5, 8, 8, 1.0, EOS)
    like_a_gpu()
    assert beam_search(model, prompts, 5, 8, 8, 1.0, EOS) == expected


def test_the_room_of_a_search_and_its_graphs_are_kept(like_a_gpu, monkeypatch):
    model, keys, run = tiny_model("llama"), [], Graphs.run
    contract_of(model)
    like_a_gpu()
    monkeypatch.setattr(
        Graphs, "run", lambda self, key, step: (keys.append((id(self), key)), run(self, key, step))
    )
    settings = {"decoding": "beam", "num_beams": 3, "max_new_tokens": 20, "batch_size": 12}
    texts = list(beam.decode(model, PROMPTS[:4], [0] * 4, settings, EOS))
    first = set(keys)
    assert len(keys) > len(first)
    keys.clear()
    assert list(beam.decode(model, PROMPTS[:4], [0] * 4, settings, EOS)) == texts
    assert set(keys) == first
    keys.clear()
    other = list(beam.decode(model, PROMPTS[:4], [0] * 4, settings | {"min_new_tokens": 20}, EOS))
    assert not set(keys) & first  # another search needs graphs of its own
    assert [len(ids) for ids in other] == [20] * 4


def test_prompts_are_chosen_by_free_memory(monkeypatch):
    model = tiny_model("llama")
    assert fixed_search.prompts_at_once(model, 9, 4, 10) is None  # a CPU
    row_bytes = 256 * 2 * 2 * 2 * 8 * 4 + 4 * 97 * refill.CHOICE_BYTES
    monkeypatch.setattr(
        static_decoder.fitting_rows, "__defaults__", (lambda _: row_bytes * 40 / 0.8,)
    )
    assert fixed_search.prompts_at_once(model, 9, 4, 10) == 32
    monkeypatch.setattr(static_decoder.fitting_rows, "__defaults__", (lambda _: 1e15,))
    static_decoder._fitting.clear()
    assert fixed_search.prompts_at_once(model, 9, 4, 10) == refill.ROWS // 4


def test_a_broken_model_is_named_and_a_stop_is_heard(like_a_gpu):
    model = tiny_model("llama")
    like_a_gpu()
    with pytest.raises(refill.Stopped):
        beam_search(model, PROMPTS, 2, 8, 0, 1.0, EOS, stop=True)
    with torch.no_grad():
        model.lm_head.weight[5] = torch.nan
    with pytest.raises(ValueError, match="non-finite logits .* within 3 new tokens"):
        beam_search(model, PROMPTS, 2, 8, 0, 1.0, EOS)


def test_dynamic_rope_searches_step_by_step():
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    found = examine(config_of("llama", **SIZE, rope_parameters=dynamic))
    assert "on the host" in found.slower[STATIC_BEAMS]


# operations of a captured step of a Llama on a CPU
LAYER, AROUND = 36, 95


def operations(layers: int) -> int:
    model = AutoModelForCausalLM.from_config(
        config_of("llama", **SIZE | {"num_hidden_layers": layers, "num_key_value_heads": 1})
    )
    counts = []
    with pytest.MonkeyPatch.context() as patch:
        run = Graphs.run

        def counted(self, key, step):
            with Operations() as found:
                run(self, key, step)
            counts.append(found.names.total())

        patch.setattr(Graphs, "run", counted)
        beam_search(model.eval(), [[1, 2, 3]] * 2, 3, 4, 4, 1.2, EOS)
    return counts[-1]


def test_a_step_stays_lean(like_a_gpu):
    like_a_gpu()
    two, three = operations(2), operations(3)
    assert three - two <= LAYER
    assert two - 2 * (three - two) <= AROUND
