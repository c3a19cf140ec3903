"""`generate.engine: vllm`: everything but the drawing of tokens is the code of `native`.

vLLM itself is replaced by a stand-in that draws as `native` does, so whole shards can be compared.
The last test calls the real one where it is installed.
"""

import inspect
import logging
import os
import sys
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from snakemake.iocontainers import Namedlist
from transformers import LlamaConfig, LlamaForCausalLM

from pollination.analysis.cost import estimate
from pollination.analysis.cost.rates import read_rates
from pollination.core import artifacts, resume
from pollination.core.artifacts import digest
from pollination.core.job import Job, Stopped
from pollination.core.seeds import derive_seed
from pollination.core.settings import definition, lean, with_defaults
from pollination.evolution import shards
from pollination.evolution.parents import write_text
from pollination.evolution.shards import write_shard
from pollination.models import vllm_engine
from pollination.models.checkpoint import load_member, save_model
from pollination.models.completion import complete
from pollination.models.vllm_engine import VllmModel
from pollination.plan.config.resolve import resolve
from pollination.plan.inputs import writing_environment
from pollination.plan.plan import Plan
from tests.conftest import TOY, snakemake
from tests.evolution.test_shards import PROMPTS, SETTINGS, StopAfter, tokenizer  # noqa: F401
from tests.models import vllm_stand_in
from tests.models.test_sampling import EOS, random_prompts, tiny_model

LOG = logging.getLogger("test")
VLLM = {"engine": "vllm"}


@pytest.fixture
def vllm(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", vllm_stand_in)


@pytest.fixture(scope="module")
def member(tmp_path_factory, tokenizer):  # noqa: F811
    """The folder of a member."""
    folder = tmp_path_factory.mktemp("member")
    save_model(tiny_model("gpt2", seed=2), folder)
    tokenizer.save_pretrained(folder)
    return folder


def write(model, tokenizer, out, stop=None, work=None, **changes):  # noqa: F811
    counts = write_shard(
        model, tokenizer, PROMPTS, SETTINGS | changes, 7, 0, out, LOG, stop, work, "k"
    )
    return counts, digest(out)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"decoding": "greedy", "tokens": None, "repetition_penalty": 1.2},
        {"decoding": "sample", "top_k": 9, "min_new_tokens": 30, "budget_counts": "text"},
    ],
    ids=str,
)
def test_only_the_drawing_is_another(vllm, member, tmp_path, changes):
    native, own = load_member(member)
    settings = SETTINGS | changes
    model = VllmModel(member, "fp32", settings)
    found = write(model, model.tokenizer, tmp_path / "vllm.parquet", **changes)
    assert found == write(native, own, tmp_path / "native.parquet", **changes)
    assert model.llm.given["max_model_len"] == 32 + 20
    assert model.llm.given["skip_tokenizer_init"] and not model.llm.given["enable_prefix_caching"]


def test_the_order_of_the_queue_changes_no_text(vllm, member, tmp_path, monkeypatch):
    model = VllmModel(member, "fp32", SETTINGS)
    whole = write(model, model.tokenizer, tmp_path / "whole.parquet")
    sent = {params.seed for params in model.llm.params}
    assert {derive_seed(7, "row", 0, n) for n in range(whole[0]["rows_drawn"])} <= sent
    monkeypatch.setattr(vllm_engine, "ROWS", 3)
    monkeypatch.setattr(shards, "ROWS", 1)
    assert write(model, model.tokenizer, tmp_path / "small.parquet") == whole


@pytest.mark.parametrize("looks", [0, 30])
def test_a_stopped_shard_resumes_with_the_batches_that_it_had_finished(
    vllm, member, tmp_path, monkeypatch, looks
):
    """A batch of 4 rows looks 5 times: before it and in each step of the stand-in, one per row."""
    monkeypatch.setattr(vllm_engine, "ROWS", 4)
    work, out = tmp_path / "work", tmp_path / "shard.parquet"
    work.mkdir()

    def begin(stop, path=out):
        model = resume.name(VllmModel(member, "fp32", SETTINGS), "parent")
        with resume.saving(work, stop):
            written = write(model, model.tokenizer, path, stop, work)
        return written, len(model.llm.params)

    whole, rows = begin(StopAfter(10**9), tmp_path / "whole.parquet")
    work.mkdir()
    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        begin(StopAfter(looks))
    assert not out.exists()
    assert begin(StopAfter(10**9)) == (whole, rows - looks // 5 * 4)


@pytest.mark.parametrize("other", [None, 11])
def test_ends_and_barred_ids_reach_vllm(vllm, member, other):
    settings = SETTINGS | {"temperature": 3.0, "top_p": 1.0}
    model, native = VllmModel(member, "fp32", settings), load_member(member)[0]
    if other is not None:
        model.config.eos_token_id = native.config.eos_token_id = [EOS, other]
    never = torch.arange(12, 97, 2)
    given = random_prompts([3, 9, 1, 0]), [1, 2, 3, 4], settings, EOS
    texts = list(complete(model, *given, never=never))
    assert texts == list(complete(native, *given, never=never))
    assert any(EOS in text for text in texts) and not set(never.tolist()) & set(sum(texts, []))
    with pytest.raises(ValueError, match=r"can bar at most 1,024 ids, but the model has 1,025 "):
        list(complete(model, *given, never=torch.arange(1025)))


def test_weights_that_are_broken_are_named(vllm, member):
    model = VllmModel(member, "fp32", SETTINGS)
    with torch.no_grad():
        model.llm.model.transformer.ln_f.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"non-finite logits \(NaN or infinity\)\. Its weights"):
        list(complete(model, [[5]], [1], SETTINGS, EOS))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda one: one.outputs.clear(), "answered 2 of 3 prompts"),
        (lambda one: one.outputs[0].token_ids.pop(), r"broke off a text after 5 tokens \(abort\)"),
        (lambda one: one.outputs[0].token_ids.append(5), "broke off a text after 7 tokens"),
        (lambda one: one.outputs[0].token_ids.clear(), "broke off a text after 0 tokens"),
        (lambda one: one.outputs[0].token_ids.__setitem__(1, 97), "wrote the id 97, which is no"),
        (lambda one: one.outputs[0].token_ids.__setitem__(1, 9), "wrote the id 9, which is no to"),
        (lambda one: setattr(one.outputs[0], "cumulative_logprob", None), "gave no probability"),
    ],
)
def test_replies_that_are_no_whole_texts_are_refused(vllm, member, change, reason):
    """A text that was broken off would pass for one that the model ended."""
    settings = SETTINGS | {"min_new_tokens": 6, "max_new_tokens": 6}
    model = VllmModel(member, "fp32", settings)
    step, changed = model.llm.llm_engine.step, []

    def damaged():
        told = step()
        for one in told:
            if one.finished and not changed:
                changed.append(one)
                one.outputs[0].finish_reason = "abort"
                change(one)
        return told

    model.llm.llm_engine.step = damaged
    given = random_prompts([3, 9, 1]), [1, 2, 3], settings, EOS
    with pytest.raises(ValueError, match=f"engine: vllm 0.33.0 {reason}.*; allowed: one whole"):
        list(complete(model, *given, never=torch.tensor([9])))
    assert len(list(complete(model, *given))) == 3


def test_one_line_says_why_vllm_is_not_there_or_cannot_load(
    vllm,
    member,
    tmp_path,
    monkeypatch,
    tokenizer,  # noqa: F811
):
    save_model(tiny_model("opt"), tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError) as refused:
        VllmModel(tmp_path, "fp32", SETTINGS)
    assert str(refused.value) == (
        f"generate.engine: vllm cannot load the model of {tmp_path} (Model architectures "
        "['OPTForCausalLM'] are not supported for now.); allowed: native, vllm. Correct this, or "
        "set generate.engine: native"
    )
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ValueError, match="needs the package vllm .* Add --sdm conda"):
        VllmModel(member, "fp32", SETTINGS)


def test_the_record_of_a_shard_names_engine_and_precision(vllm, member, tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    pq.write_table(
        pa.table({"doc_id": [name for name, _ in PROMPTS], "text": [text for _, text in PROMPTS]}),
        tmp_path / "prompts.parquet",
    )
    generate = with_defaults(SETTINGS | VLLM | {"tokens": 200}, definition("generate"))
    given = SimpleNamespace(
        rule="generate_shard",
        threads=1,
        config={},
        log=[str(tmp_path / "a.log")],
        input=Namedlist(
            fromdict={
                "members": str(member / "model.safetensors"),
                "prompts": str(tmp_path / "prompts.parquet"),
            }
        ),
        output=Namedlist(
            fromdict={"shard": str(tmp_path / "s.parquet"), "run": str(tmp_path / "s.run.json")}
        ),
        params=Namedlist(fromdict={"generate": generate, "seed": 1, "cpu_threads": 1}),
        wildcards=Namedlist(fromdict={"rank": "0", "gen": "1", "shard": "0"}),
    )
    with Job(given) as job:
        write_text(job, tmp_path / "s.parquet")
    record = artifacts.read_json(tmp_path / "s.run.json")
    assert record["params"]["generate"]["engine"] == "vllm"
    assert record["hardware"] == record["hardware"] | {
        "engine": "vllm 0.33.0",
        "precision": "fp32",
        "batch_invariant": "yes",
    }
    assert pq.read_table(tmp_path / "s.parquet").num_rows > 5
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"decoding": "beam", "tokens": None},
            "decoding: 'beam' has no equal in vLLM (engine: vllm); allowed with it: nucleus, sampl",
        ),
        ({"temperature": 0.001}, "temperature: vLLM (engine: vllm) would raise 0.001 to 0.01; "),
        ({"precision": "fp32"}, "precision: 'fp32' cannot be kept by vLLM (engine: vllm); "),
        ({}, "engine: 'vllm' needs a GPU, but the config sets device: cpu; allowed with it: na"),
    ],
    ids=str,
)
def test_check_refuses_what_vllm_does_in_another_way(changes, line):
    raw = yaml.safe_load(TOY.read_text()) | ({} if changes else {"device": "cpu"})
    raw.setdefault("defaults", {})["generate"] = raw["defaults"].get("generate", {}) | changes
    resolve(raw)
    raw["defaults"]["generate"] |= VLLM
    with pytest.raises(ValueError) as refused:
        resolve(raw)
    assert f"experiments.population.generate.{line}" in str(refused.value)


@pytest.mark.parametrize("fast", [True, False])
def test_an_architecture_that_needs_fp32_is_refused_where_vllm_would_round_it(monkeypatch, fast):
    """`auto` chooses fp32 for it. A GPU without units for TF32 keeps fp32."""
    monkeypatch.setattr(vllm_engine, "has_fast_units", lambda _: fast)
    gpu = torch.device("cuda")
    vllm_engine.check_precision("bf16", gpu)
    vllm_engine.check_precision("fp32", torch.device("cpu"))
    with pytest.raises(ValueError, match="may round to TF32") if fast else nullcontext():
        vllm_engine.check_precision("fp32", gpu)


def test_jobs_of_a_native_run_keep_their_params_and_their_environment():
    node = definition("generate")
    assert "engine" not in lean(with_defaults({}, node), node)
    assert lean(with_defaults(VLLM, node), node)["engine"] == "vllm"
    raw = yaml.safe_load(TOY.read_text())
    raw["experiments"]["line"]["generate"] = VLLM
    plan = Plan(resolve(raw), "results/toy")
    environments = [writing_environment(plan, name) for name in ("population", "line")]
    assert environments == ["../envs/pollination.yaml", "../envs/vllm.yaml"]
    notes = estimate(plan, read_rates("a100")).notes
    assert [note for note in notes if "line: its text is timed with the rates of native" in note]
    assert not any("population: its text" in note for note in notes)


def test_a_run_without_vllm_ends_before_its_first_job(tmp_path):
    if find_spec("vllm"):
        pytest.skip("vLLM is installed")
    raw = yaml.safe_load(TOY.read_text())
    raw["experiments"]["line"]["generate"] = VLLM
    (tmp_path / "line.yaml").write_text(yaml.safe_dump(raw))
    told = snakemake(tmp_path, configfile=tmp_path / "line.yaml", ok=False)
    assert "error: experiments.line.generate.engine: 'vllm' is not installed here; all" in told
    assert not (tmp_path / "results").exists()


def test_snakemake_installs_the_environment_of_vllm(tmp_path):
    conda, config = tmp_path / "conda", tmp_path / "line.yaml"
    conda.write_text(CONDA)
    conda.chmod(0o755)
    raw = yaml.safe_load(TOY.read_text())
    raw["experiments"]["line"]["generate"] = VLLM
    config.write_text(yaml.safe_dump(raw))
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = ("--sdm", "conda", "--list-conda-envs")
    told = snakemake(tmp_path, *words, configfile=config, env=environment)
    listed = {line.split("\t")[0].strip() for line in told.splitlines() if ".yaml\t" in line}
    assert {os.path.basename(path) for path in listed} == {"pollination.yaml", "vllm.yaml"}


CONDA = """#!/bin/sh
case "$1" in
    info) echo '{"conda_prefix": "/", "conda_version": "25.1.0", "platform": "linux-64"}' ;;
    config) echo '{"get": {"channel_priority": "strict"}}' ;;
    *) echo "conda 25.1.0" ;;
esac
"""


def test_the_real_vllm_has_this_interface_and_keeps_seeds(tmp_path, tokenizer):  # noqa: F811
    real = pytest.importorskip("vllm", reason="vLLM is not installed; envs/vllm.yaml has it")
    arguments = import_module("vllm.engine.arg_utils").EngineArgs
    current_platform = import_module("vllm.platforms").current_platform
    assert set(vllm_stand_in.CONSTRUCTOR) < set(inspect.signature(real.LLM).parameters)
    assert set(vllm_stand_in.ENGINE) < set(arguments.__dataclass_fields__)
    fields = set(vllm_stand_in.SamplingParams.__dataclass_fields__)
    assert fields < set(real.SamplingParams.__struct_fields__)
    if not (torch.cuda.is_available() or current_platform.is_cpu()):
        pytest.skip("this build of vLLM needs a GPU, and none is usable")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.4}
    save_model(LlamaForCausalLM(LlamaConfig(vocab_size=97, eos_token_id=EOS, **sizes)), tmp_path)
    tokenizer.save_pretrained(tmp_path)
    native, model = load_member(tmp_path)[0], VllmModel(tmp_path, "fp32", SETTINGS)
    never, seeds = torch.arange(12, 97, 2), [1, 2, 3]
    prompts = random_prompts([3, 9, 1])
    greedy = SETTINGS | {"decoding": "greedy", "repetition_penalty": 1.2, "min_new_tokens": 5}
    given = prompts, seeds, greedy, EOS
    assert list(complete(model, *given, never=never)) == list(complete(native, *given, never=never))
    texts = list(complete(model, prompts, seeds, SETTINGS, EOS))
    backwards = list(complete(model, prompts[::-1], seeds[::-1], SETTINGS, EOS))
    assert texts == backwards[::-1]
    assert texts != list(complete(model, prompts, [4, 5, 6], SETTINGS, EOS))
