"""Hostile checkpoints are refused in one line.

No code in them runs, no weights are invented, and no absurd sizes are allocated.
"""

import json
import resource
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pollination.core.artifacts import DamagedArtifact
from pollination.data.tokens import make_tokenizer as write_tokenizer
from pollination.models import checkpoint
from tests.models.test_checkpoint import make_tokenizer, spec

PWNED = "pwned"


class Bomb:
    """An object that creates a file when it is unpickled."""

    def __reduce__(self):
        return open, (PWNED, "w")


@pytest.fixture
def user_folder(tmp_path, monkeypatch) -> Path:
    """The folder `given`: a complete Llama, as a user would have it."""
    monkeypatch.chdir(tmp_path)
    folder, tokenizer = tmp_path / "given", make_tokenizer()
    tokenizer.save_pretrained(folder)
    checkpoint.write_blueprint(spec("llama"), tokenizer, folder)
    checkpoint.save_model(checkpoint.create_model(folder, seed=1), folder)
    return folder


def prepare(folder: Path) -> None:
    """Do the work of the job that imports a pretrained model."""
    given = {"pretrained": str(folder), "context_tokens": 12}
    write_tokenizer({"kind": "pretrained", "source": str(folder)}, None, Path("made"), 0)
    checkpoint.write_blueprint(given, checkpoint.load_tokenizer("made"), Path("made"))


def refused(run, words: str) -> None:
    """Assert that `run` soon fails with one line that holds `words`.

    It must use bounded memory, run no code and write no weights.
    """
    before_s, before_kb = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError) as caught:
        run()
    assert words in str(caught.value) and "\n" not in str(caught.value), caught.value
    assert (
        time.monotonic() - before_s < 60
        and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 500_000
    )
    assert not Path(PWNED).exists() and not Path("made/model.safetensors").exists()


def change(folder: Path, file: str = "config.json", **changes) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_whole_checkpoint_is_taken_up_in_half_precision_too(user_folder):
    state = load_file(user_folder / "model.safetensors")
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        save_file(
            {name: tensor.to(kind) for name, tensor in state.items()},
            user_folder / "model.safetensors",
            metadata={"format": "pt"},
        )
        prepare(user_folder)
        made = load_file("made/model.safetensors")
        assert all(
            torch.equal(made[name], tensor.to(kind).float()) for name, tensor in state.items()
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"output_attentions": True},
        {"output_hidden_states": True},
        {"return_dict": False},
        {"architectures": 5},
    ],
)
def test_what_a_configuration_asks_of_a_pass_does_no_harm(user_folder, changes):
    change(user_folder, **changes)
    prepare(user_folder)
    ours, theirs = (
        load_file(folder / "model.safetensors") for folder in (Path("made"), user_folder)
    )
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_a_pickle_is_never_opened(user_folder):
    state = load_file(user_folder / "model.safetensors")
    (user_folder / "model.safetensors").unlink()
    torch.save(state, user_folder / "pytorch_model.bin")  # sound, but a pickle
    refused(lambda: prepare(user_folder), "pickles are not opened")
    torch.save({"model.norm.weight": Bomb()}, user_folder / "pytorch_model.bin")
    refused(lambda: prepare(user_folder), "pickles are not opened")
    torch.load(user_folder / "pytorch_model.bin", weights_only=False)
    assert Path(PWNED).exists()  # loading it does run the code


@pytest.mark.parametrize("known", [True, False])
def test_code_beside_a_model_is_never_run(user_folder, known):
    (user_folder / "evil.py").write_text(
        f"open({PWNED!r}, 'w')\nclass Config: pass\nclass Model: pass\nclass Tokenizer: pass\n"
    )
    classes = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    change(
        user_folder,
        auto_map=classes,
        trust_remote_code=True,
        model_type="llama" if known else "evil",
    )
    change(
        user_folder,
        "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]},
        trust_remote_code=True,
    )
    if known:  # the library's own code builds the named architecture
        prepare(user_folder)
        assert (
            not Path(PWNED).exists() and checkpoint.load_model("made").config.model_type == "llama"
        )
        checkpoint.load_tokenizer(user_folder)
        assert not Path(PWNED).exists()
    else:
        refused(lambda: prepare(user_folder), "code in a model's folder is never run")
        refused(lambda: checkpoint.load_model(user_folder), "code in a model's folder is never run")


ABSURD = [
    ({"hidden_size": 10**9}, "parameters"),
    ({"hidden_size": 10**30}, "no model can be built"),
    ({"num_hidden_layers": 10**6}, "asks for 1,000,000 layers"),
    ({"intermediate_size": 10**11}, "parameters"),
    ({"vocab_size": 10**12}, "parameters"),
    ({"hidden_size": -4}, ""),
    ({"hidden_size": "16"}, "given"),
    ({"num_attention_heads": 0}, "given"),
    ({"num_attention_heads": 3}, "given"),
    ({"model_type": ["llama"]}, "given"),
]


@pytest.mark.parametrize(("changes", "words"), ABSURD)
def test_absurd_sizes_are_refused_before_memory_is_allocated(user_folder, changes, words):
    change(user_folder, **changes)
    refused(lambda: prepare(user_folder), words)
    refused(lambda: checkpoint.load_model(user_folder), words)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"model_type": "llama"', b"[" * 100_000]
)
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_files_of_rubbish_are_refused(user_folder, file, content):
    (user_folder / file).write_bytes(content)
    refused(lambda: prepare(user_folder), "given")
    refused(lambda: checkpoint.load_member(user_folder), "given")


def without_first(state):
    return dict(list(state.items())[1:])


def first(value):
    return lambda state: state | {next(iter(state)): value(next(iter(state.values())))}


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (without_first, "missing"),
        (first(lambda tensor: tensor[:1].clone()), ""),
        (first(lambda tensor: tensor.to(torch.int32)), "int"),
        (first(lambda tensor: torch.full_like(tensor, torch.nan)), "NaN"),
        (first(lambda tensor: torch.full_like(tensor, -torch.inf)), "NaN or infinity"),
    ],
)
def test_weights_that_are_not_whole_are_refused_not_made_up(user_folder, tamper, words):
    path = user_folder / "model.safetensors"
    save_file(tamper(load_file(path)), path, metadata={"format": "pt"})
    refused(lambda: prepare(user_folder), "")
    refused(lambda: checkpoint.load_model(user_folder), words)


def test_tensors_that_do_not_belong_are_refused(user_folder):
    path = user_folder / "model.safetensors"
    save_file(load_file(path) | {"more": torch.zeros(2)}, path, metadata={"format": "pt"})
    refused(lambda: prepare(user_folder), "'more' is not part of this architecture")
    with pytest.raises(DamagedArtifact, match="does not belong"):
        checkpoint.load_model(user_folder)


def test_a_tokenizer_whose_ids_the_model_does_not_know_is_refused(user_folder):
    path = user_folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["k"] = 10**6  # the same number of tokens, but a far larger id
    path.write_text(json.dumps(tokenizer))
    refused(lambda: prepare(user_folder), "tokenizer and model do not fit")
    refused(lambda: checkpoint.load_member(user_folder), "ids up to 1000000")
    tokenizer["model"]["vocab"] |= {f"more{n}": 20 + n for n in range(50)}
    path.write_text(json.dumps(tokenizer))
    refused(lambda: checkpoint.load_member(user_folder), "ids up to")


def test_a_tokenizer_without_an_end_of_text_is_refused(user_folder):
    change(user_folder, "tokenizer_config.json", eos_token=None)
    refused(lambda: prepare(user_folder), "no eos token")
    refused(lambda: checkpoint.load_member(user_folder), "no eos token")


def test_a_members_folder_is_read_like_any_other(user_folder):
    model, tokenizer = checkpoint.load_member(user_folder)
    assert tokenizer.eos_token_id == 0 and model.get_input_embeddings().num_embeddings == 13
    shutil.rmtree(user_folder)
    refused(lambda: checkpoint.load_member(user_folder), "cannot be loaded")
