"""`pollination check` finds what can be known without training, and names the line."""

import copy
import json
import struct
from pathlib import Path

import pytest
import yaml

from pollination.cli import main
from tests.conftest import TOY

RAW = yaml.safe_load(TOY.read_text(encoding="utf-8"))
RAW["corpora"]["world"] |= {"documents": 300, "people": 4}
RAW["founders"]["human"]["train"]["tokens"] = 640


def config(folder: Path, changes: dict) -> Path:
    """Write a small config with changes by path; every key has a line of its own."""
    raw = copy.deepcopy(RAW)
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = raw
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = value
    (folder / "my.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return folder / "my.yaml"


def errors(capsys, folder: Path, changes: dict, *words: str) -> list[str]:
    """The mistakes that the command names; each has the file and a line that holds its key."""
    path = config(folder, changes)
    status = main(["check", "--configfile", str(path), *words])
    found = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert status == (1 if found else 0)
    lines = path.read_text(encoding="utf-8").splitlines()
    said = []
    for line in found:
        place, key, rest = line.removeprefix(f"error: {path}:").split(": ", 2)
        number = int(place.removesuffix(" (default)"))
        assert lines[number - 1].strip(" -").split(":")[0] in line, (lines[number - 1], line)
        said.append(f"{key}: {rest}")
    return said


def questions(folder: Path, split: str) -> str:
    """Write winogrande-like questions in mathqa's columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"Problem": f"what is {n} plus {n}?", "options": "a ) 1 , b ) 2 , c ) 3", "correct": "a"}
        for n in range(6)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
    return str(folder / f"{split}.parquet")


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"models.toy.architecture": "lama"}, "models.toy.architecture: 'lama' is not a causal"),
        ({"models.toy.architecture": "vit"}, "models.toy.architecture: 'vit' is not a causal"),
        (
            {"tasks.w": {"kind": "lm_eval", "template": "winograned"}},
            "tasks.w.template: 'winograned' is not a task, group or tag of lm-eval (did you mean",
        ),
        (
            {"founders.human.train.tokens": 1_500_000},
            "founders.human.train.tokens: 1,500,000: founder 3 needs 5,999,872 tokens",
        ),
        ({"founders.human.train.tokens": 40}, "founders.human.train.tokens: 40: founder 3 gets"),
        (
            {"models.toy": {"pretrained": ""}},
            "models.toy.pretrained: '' has the wrong size; allowed: at least 1 characters",
        ),
        (
            {"models.toy": {"pretrained": "not a model"}},
            "models.toy.pretrained: 'not a model': there is no such folder",
        ),
        (
            {"defaults.generate.max_prompt_tokens": 60},
            "experiments.population.generate.max_prompt_tokens: 60 and max_new_tokens 32 exceed",
        ),
        (
            {"defaults.generate.min_completion_tokens": 33},
            "experiments.population.generate.min_completion_tokens: 33 exceeds max_new_tokens",
        ),
        ({"data": ""}, "data: '' has the wrong size"),
    ],
)
def test_names_and_sizes_are_checked_without_torch(capsys, tmp_path, changes, said):
    found = errors(capsys, tmp_path, changes)
    assert found and found[0].startswith(said), found


def test_limits_themselves_are_allowed(capsys, tmp_path):
    changes = {"max_prompt_tokens": 32, "max_new_tokens": 32, "min_completion_tokens": 32}
    assert not errors(
        capsys, tmp_path, {f"defaults.generate.{key}": value for key, value in changes.items()}
    )


@pytest.mark.parametrize("template", ["winogrande", "mmlu", "ai2_arc", "hellaswag", "mmlu_anatomy"])
def test_tasks_groups_and_tags_of_lm_eval_are_known(template):
    from pollination.plan.config.libraries import check_templates

    mistakes: list[str] = []
    check_templates({"tasks.x.template": template}, mistakes)
    assert not mistakes


def test_the_architectures_are_those_of_transformers():
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    from pollination.plan.config.libraries import causal_architectures

    assert set(causal_architectures()) == set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def safetensors(folder: Path, tensors: dict, config: dict, missing: int = 0) -> None:
    """Write a model folder of zeros without torch; `missing` bytes are cut off."""
    size = {"F32": 4, "BF16": 2, "I32": 4}
    header, stop = {}, 0
    for name, (dtype, shape) in tensors.items():
        count = size[dtype]
        for length in shape:
            count *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [stop, stop + count]}
        stop += count
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + stop - missing)


WEIGHTS = {"embed": ("BF16", [100, 8]), "layers.0.mlp": ("F32", [8, 32])}


@pytest.mark.parametrize(
    "kind, missing, index, said",
    [
        ("qwen2", 1, None, "but its header describes"),
        ("vit", 0, None, "model_type: 'vit' is not a causal language model"),
        ("qwen2", 0, {"weight_map": {"a": "absent.safetensors"}}, "lists it; complete the folder"),
        ("qwen2", 0, {}, "not the index of a model's files"),
    ],
)
def test_the_files_of_a_pretrained_folder_are_checked(capsys, tmp_path, kind, missing, index, said):
    folder = tmp_path / "model"
    safetensors(folder, WEIGHTS, {"model_type": kind}, missing)
    if index is not None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    model = {"pretrained": str(folder), "context_tokens": 64}
    found = errors(capsys, tmp_path, {"models.toy": model})
    assert len(found) == 1 and found[0].startswith("models.toy.pretrained: ") and said in found[0]


@pytest.mark.parametrize(
    "stated", [{"n_positions": 63}, {"text_config": {"max_position_embeddings": 63}}, {}]
)
def test_a_context_beyond_the_positions_of_a_pretrained_folder_is_refused(capsys, tmp_path, stated):
    folder = tmp_path / "model"
    safetensors(folder, WEIGHTS, {"model_type": "gpt2"} | stated)
    model = {"pretrained": str(folder), "context_tokens": 64}
    found = errors(capsys, tmp_path, {"models.toy": model})
    said = f"models.toy.context_tokens: 64 exceeds the positions of '{folder}'; allowed: at most 63"
    assert [one.startswith(said) for one in found] == [True] * bool(stated)


def test_cost_counts_a_pretrained_folder_of_any_architecture(capsys, tmp_path):
    folder = tmp_path / "model"
    model = {"models.toy": {"pretrained": str(folder), "context_tokens": 64}}
    buffers = {"h.0.attn.rotary.inv_freq": ("F32", [4]), "h.0.mask": ("F32", [1, 1, 64, 64])}
    safetensors(folder, WEIGHTS | buffers, {"model_type": "qwen2", "vocab_size": 100})
    words = ["--configfile", str(config(tmp_path, model)), "--hardware", "cpu"]
    main(["cost", *words])
    out = capsys.readouterr().out
    assert "14 x toy, 1,056 parameters" in out and "at least" not in out
    safetensors(folder, WEIGHTS | {"x.qweight": ("I32", [9, 9])}, {"model_type": "qwen2"})
    assert main(["cost", *words]) == 1
    out = capsys.readouterr().out
    assert "holds quantised weights, e.g. 'x.qweight'; give --parameters toy=COUNT" in out
    assert "Disk: at least " in out and "14 x toy, ? parameters" in out


# check --deep

TRAIN = RAW["founders"]["human"]["train"] | {"tokens": 2100}
DEEP = [
    (
        {"models.toy.settings.hidden_size": 65, "models.toy.settings.num_attention_heads": 4},
        "models.toy.settings: llama rejects them",
    ),
    (
        {"models.toy.settings.num_key_value_heads": 3},
        "models.toy: architecture 'llama' with these settings does not run",
    ),
    (
        {"models.toy.settings.hiden_size": 64},
        "models.toy.settings.hiden_size: unknown to architecture 'llama'",
    ),
    ({"models.toy.settings.vocab_size": 9}, "models.toy.settings.vocab_size: 9 is too small"),
    (
        {"models.toy.settings.max_position_embeddings": 16},
        "experiments.population.generate.max_new_tokens: 32 leaves no room for a prompt",
    ),
    (
        {"founders.human.train.tokens": 3200},
        "founders.human.train.tokens: 3,200: founder 3 needs 12,800 tokens of text, but its corpus",
    ),
    (
        {"defaults.generate.shards": 200},
        "experiments.population.generate.shards: 200 shards exceed the ",
    ),
    (
        {"models.toy.architecture": "bert"},
        "models.toy: architecture 'bert' cannot be used as a causal language model (logits depend",
    ),
    (
        {"founders.human.train": TRAIN | {"checkpoint": "best"}, "models.toy.context_tokens": 700},
        "corpora.world: models.toy: validation: ",
    ),
]


@pytest.mark.parametrize("changes, said", DEEP)
def test_deep_finds_what_the_jobs_would_refuse(capsys, tmp_path, monkeypatch, changes, said):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert not errors(capsys, tmp_path, changes)
    found = errors(capsys, tmp_path, changes, "--deep")
    assert found and found[0].startswith(said), found
    assert not list(here.iterdir())


def test_deep_replaces_the_estimate_of_the_text(capsys, tmp_path):
    """Digits have a token for every two characters, twice as many as the estimate."""
    (tmp_path / "digits.txt").write_text(("1 2 3 4 5 6 7 8 9 0 " * 10 + "\n") * 400)
    mine = {"kind": "files", "path": str(tmp_path / "digits.txt"), "txt_documents": "line"}
    changes = {
        "corpora.mine": mine,
        "models.toy.tokenizer.corpus": "mine",
        "founders.human.corpus": "mine",
        "founders.human.train.tokens": 6400,
    }
    assert not errors(capsys, tmp_path, changes)
    words = ["check", "--configfile", str(config(tmp_path, changes))]
    said = "warning: founders.human.train.tokens: 6,400: founder 3 needs 25,600 tokens of text"
    main(words)
    assert said in capsys.readouterr().err
    assert main([*words, "--deep"]) == 0
    assert "founders.human.train.tokens" not in capsys.readouterr().err


def test_deep_stages_benchmarks(capsys, tmp_path):
    test = questions(tmp_path, "test")
    task = {"kind": "lm_eval", "template": "mathqa", "data": {"test": test}}
    assert not errors(capsys, tmp_path, {"tasks.w": task}, "--deep")
    task |= {"data": {"train": test}}
    found = errors(capsys, tmp_path, {"tasks.w": task}, "--deep")
    assert len(found) == 1 and found[0].startswith("tasks.w: template 'mathqa' is evaluated on")
    task = {"kind": "lm_eval", "template": "mmlu", "data": {"test": test}, "num_fewshot": 5}
    found = errors(capsys, tmp_path, {"tasks.w": task}, "--deep")
    assert len(found) == 1 and "takes its few-shot examples from split 'dev'" in found[0]


def test_deep_imports_own_functions(capsys, tmp_path):
    (tmp_path / "own.py").write_text(
        "import nothing_of_this_name\ndef best(m, k, rng): return []\n"
    )
    rule = {"experiments.population.select.rule": f"{tmp_path}/own.py:best"}
    assert not errors(capsys, tmp_path, rule)
    found = errors(capsys, tmp_path, rule, "--deep")
    assert len(found) == 1 and "line 1: ModuleNotFoundError" in found[0]


def test_an_engine_that_is_not_installed_is_a_warning(capsys, tmp_path):
    for engine, count in (("vllm", 1), ("native", 0)):
        path = config(tmp_path, {"defaults.generate.engine": engine})
        assert main(["check", "--configfile", str(path)]) == 0
        said = capsys.readouterr().err
        assert said.count("'vllm' is not installed here; add --sdm conda to the first") == count


def test_deep_ends_with_what_it_could_not_check(capsys, monkeypatch, tmp_path):
    # In a process of its own, the command says so before this library is imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    changes = {
        "models.toy.tokenizer": {"kind": "pretrained", "source": "nobody/nothing"},
        "corpora.far": {"kind": "hub", "name": "nobody/nothing", "max_tokens": 100},
        "evaluate.perplexity": [{"corpus": "far", "split": "test"}],
        "tasks.w": {"kind": "lm_eval", "template": "piqa"},
        "evaluate.semantics.encoder": "nobody/encoder",
    }
    path = config(tmp_path, changes)
    assert main(["check", "--configfile", str(path), "--deep"]) == 0
    out = capsys.readouterr().out
    _, said = out.split("Not checked:\n")
    for name in (
        "corpora.far: its text is on the hub",
        "models.toy: its tokenizer 'nobody/nothing' is on the hub",
        "founders.human: the tokens of corpora.world for models.toy are not counted",
        "tasks.w: its questions are on the hub",
        "evaluate.semantics.encoder: 'nobody/encoder' is on the hub",
    ):
        assert f"  {name}\n" in said
