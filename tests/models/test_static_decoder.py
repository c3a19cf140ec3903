"""Steps of fixed shapes, run on the CPU as a GPU captures them: texts, refusals, kernels."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.gpu_profile import Operations
from pollination.models import drawing, paths, refill, static_decoder
from pollination.models.contract import STATIC, contract_of, examine
from pollination.models.drawing import Decoding
from pollination.models.graphs import Graphs, host_reads_refused
from pollination.models.sampling import sample
from pollination.models.static_decoder import StaticDecoder, fitting_rows, room_of
from tests.models.test_contract import SIZE, config_of
from tests.models.test_sampling import CONTEXT, EOS, FAMILIES, random_prompts, tiny_model

PROMPTS = random_prompts([1, 3, 17, 9, 30, 2, 9, 5, 1, 12, 26, 4, 9, 7, 3, 11, 2])
SEEDS = list(range(100, 100 + len(PROMPTS)))
NEW = CONTEXT - 30
DECODINGS = [
    Decoding(max_new_tokens=NEW, temperature=1.0, repetition_penalty=1.2),
    Decoding(max_new_tokens=NEW, temperature=1.2, top_k=20, min_new_tokens=7),
    Decoding("greedy", max_new_tokens=NEW, repetition_penalty=1.2),
    Decoding("sample", max_new_tokens=NEW, temperature=1.0),
]


@pytest.fixture
def like_a_gpu(monkeypatch):
    """Let the CPU take the steps and draws of a GPU. Each first step refuses reads of the host."""
    monkeypatch.setattr(paths, "STATIC_DEVICES", ("cpu",))
    monkeypatch.setattr(drawing, "NARROW_ON", ())
    monkeypatch.setattr(static_decoder, "BUCKET_TOKENS", 16)
    monkeypatch.setitem(refill.CHECK_STEPS, "cpu", 5)


def write(model, decoding: Decoding, rows: int, order=None, never=None) -> list[list[int]]:
    order = list(order or range(len(PROMPTS)))
    prompts, seeds = [PROMPTS[n] for n in order], [SEEDS[n] for n in order]
    return list(sample(model, prompts, seeds, decoding, EOS, rows, never=never))


@pytest.mark.parametrize(
    "family,decoding",
    [*((family, DECODINGS[0]) for family in FAMILIES), *(("llama", one) for one in DECODINGS[1:])],
)
def test_refilled_rows_write_the_texts_of_other_steps(family, decoding, like_a_gpu, monkeypatch):
    """A text is the same alone, among others, in a row that was refilled, and in another order."""
    model, never = tiny_model(family), torch.tensor([11, 40])
    with monkeypatch.context() as usual:
        usual.setattr(paths, "STATIC_DEVICES", ())
        expected = write(model, decoding, 6, never=never)
    assert len({len(ids) for ids in expected}) > 1
    for rows in (1, 6, 32):
        assert write(model, decoding, rows, never=never) == expected
    backwards = range(len(PROMPTS))[::-1]
    assert write(model, decoding, 4, backwards, never)[::-1] == expected


def test_a_room_and_its_graphs_are_kept(like_a_gpu, monkeypatch):
    model, keys, run = tiny_model("llama"), [], Graphs.run
    contract_of(model)  # it takes steps, too
    monkeypatch.setattr(
        Graphs, "run", lambda self, key, step: (keys.append((id(self), key)), run(self, key, step))
    )
    write(model, DECODINGS[0], 8)
    assert {size for _, (size, _) in (k for k in keys if isinstance(k[1], tuple))} <= {1, 2, 4, 8}
    first, room = set(keys), room_of(model, 8, CONTEXT)
    assert len(keys) > 3 * len(first)  # each is captured once and replayed often
    keys.clear()
    write(model, DECODINGS[0], 8)
    assert set(keys) == first and room_of(model, 8, CONTEXT) is room


def test_a_room_is_made_anew_where_its_graphs_would_be_wrong():
    model = tiny_model("llama")
    room = room_of(model, 4, 32)
    assert room_of(model, 3, 20) is room
    assert room_of(model, 5, 32) is not room
    room = room_of(model, 4, 32)
    model.load_state_dict(model.double().state_dict())
    assert room_of(model, 4, 32) is not room  # the weights have moved
    other = tiny_model("llama")
    room_of(other, 4, 32)
    assert list(static_decoder._rooms) == [other]  # one model's at a time


def test_a_broken_model_is_named_and_a_stop_is_heard(like_a_gpu):
    model = tiny_model("llama")
    with pytest.raises(refill.Stopped):
        list(sample(model, PROMPTS, SEEDS, DECODINGS[0], EOS, 4, stop=True))
    with torch.no_grad():
        model.lm_head.weight[5] = torch.nan
    with pytest.raises(ValueError, match="non-finite logits .* within 5 new tokens"):
        write(model, DECODINGS[0], 4)


def test_rows_are_chosen_by_free_memory():
    """Each row of this model needs 2 layers x 2 x 2 heads x 8 x 4 bytes per token."""
    model, slot_bytes = tiny_model("llama"), 2 * 2 * 2 * 8 * 4
    row_bytes = 256 * slot_bytes + 1000

    def rows(free: float | None, tokens: int = 200) -> int | None:
        if tokens == 200:
            static_decoder._fitting.clear()
        return fitting_rows(model, tokens, 1000, 1024, free=lambda _: free)

    assert rows(None) is None  # a CPU
    assert rows(row_bytes * 700 / 0.8) == 672  # a multiple of 32
    assert rows(row_bytes * 7.5 / 0.8) == 7
    assert rows(1) == 1 and rows(1e15) == 1024
    assert rows(row_bytes, 100) == 1024  # the process keeps the room that it has
    assert rows(row_bytes * 700 / 0.8, 257) == 352


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.max().item(),
        lambda x: x[x > 0],
        lambda x: x[[0, 1]],
        lambda x: x.nonzero(),
        lambda x: x if x.any() else -x,
        lambda x: x.masked_select(x > 0),
        lambda x: x + torch.tensor([1, 2, 3], device=x.device),
    ],
)
def test_a_step_that_reads_numbers_on_the_host_is_refused(read, mode):
    with mode(), host_reads_refused(), pytest.raises(ValueError, match="numbers on the host"):
        read(torch.arange(3))


def test_dynamic_rope_takes_no_steps_of_fixed_shapes():
    """It compares the longest text with its table, on the host. Other rotations are fixed."""
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    found = examine(config_of("llama", **SIZE, rope_parameters=dynamic))
    assert "on the host" in found.slower[STATIC]
    linear = dynamic | {"rope_type": "linear"}
    assert examine(config_of("llama", **SIZE, rope_parameters=linear)).slower == {}


def test_a_decoder_may_hold_fewer_rows_than_prompts():
    model = tiny_model("llama")
    with torch.inference_mode():
        decoder = StaticDecoder(model, PROMPTS, 4, 3)
        assert decoder.read().shape == (3, 97) and decoder.room.rows == 3


# operations of a step of a Llama on a CPU; a GPU starts a kernel or more for each
LAYER, AROUND, CHOICE = 36, 20, 153


def operations(layers: int, **changes) -> tuple[int, int]:
    """The operations of a forward step and of a choice, as they are captured."""
    config = config_of("llama", **SIZE | {"num_hidden_layers": layers} | changes)
    model = AutoModelForCausalLM.from_config(config).eval()
    counts: dict = {}
    run = Graphs.run

    def counted(self, key, step):
        with Operations() as found:
            run(self, key, step)
        counts[isinstance(key, tuple)] = found.names.total()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Graphs, "run", counted)
        decoding = Decoding(max_new_tokens=4, min_new_tokens=4, repetition_penalty=1.2, top_k=9)
        list(sample(model, [[1, 2, 3]] * 4, [0] * 4, decoding, EOS, 4))
    return counts[True], counts[False]


@pytest.mark.parametrize("heads", [1, 2])
def test_a_step_stays_lean(heads, like_a_gpu):
    (two, choice), (three, _) = (operations(n, num_key_value_heads=heads) for n in (2, 3))
    assert three - two <= LAYER
    assert two - 2 * (three - two) <= AROUND
    assert choice <= CHOICE
