"""`python -m pollination cost`: counts of parameters, FLOPs by hand, jobs, disk and time, before
anything has run.
"""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from pollination.analysis.cost import estimate
from pollination.analysis.cost.disk import on_disk
from pollination.analysis.cost.rates import Rates, read_rates
from pollination.analysis.cost.schedule import makespan
from pollination.analysis.cost.shapes import Shape, Unknown, model_shape, published, shape
from pollination.analysis.cost.texts import Texts
from pollination.analysis.cost.work import PACK_THREADS, READ_CHARACTERS
from pollination.cli import main
from pollination.core.settings import lean, schema, whole
from pollination.data import vocabulary
from pollination.plan.config.resolve import resolve
from pollination.plan.plan import Plan
from tests.conftest import ROOT, TOY, TOY_PLAN

PAPER = ROOT / "config/paper"
SMALL = {
    "llama": {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "vocab_size": 300,
    },
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 300, "n_positions": 32},
    "opt": {
        "hidden_size": 64,
        "ffn_dim": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 300,
        "max_position_embeddings": 32,
    },
}


def plan_of(configfile: Path, **change) -> Plan:
    config = resolve(yaml.safe_load(configfile.read_text()) | change, str(configfile))
    return Plan(config, f"results/{config['run']}")


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("llama", {"tie_word_embeddings": True}),
        (
            "llama",
            {
                "num_key_value_heads": 2,
                "attention_bias": True,
                "mlp_bias": True,
                "tie_word_embeddings": False,
            },
        ),
        ("llama", {"head_dim": 24}),
        ("gpt2", {}),
        ("gpt2", {"n_inner": 100, "tie_word_embeddings": False}),
        ("opt", {"word_embed_proj_dim": 64}),
        ("opt", {"word_embed_proj_dim": 32, "do_layer_norm_before": False}),
        (
            "opt",
            {
                "word_embed_proj_dim": 64,
                "enable_bias": False,
                "layer_norm_elementwise_affine": False,
            },
        ),
    ],
)
def test_parameters_are_those_of_transformers(family, more):
    config = AutoConfig.for_model(
        family, bos_token_id=1, eos_token_id=1, pad_token_id=None, **SMALL[family], **more
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    real = sum(p.numel() for p in model.parameters())
    assert shape({"model_type": family} | SMALL[family] | more).parameters == real
    assert (
        shape(json.loads(config.to_json_string())).parameters == real
    )  # as a folder's config.json says it
    tables = {"llama": 0, "gpt2": 32 * 64, "opt": 34 * 64}[
        family
    ]  # positions are looked up, and so is an input table of its own
    tables += 300 * 64 if not config.tie_word_embeddings else 0
    assert shape({"model_type": family} | SMALL[family] | more).multiplied == real - tables


def test_published_models_have_their_known_sizes():
    known = {
        "facebook/opt-125m": 125_239_296,
        "facebook/opt-350m": 331_196_416,
        "openai-community/gpt2": 124_439_808,
    }
    known |= {
        "openai-community/gpt2-medium": 354_823_168,
        "HuggingFaceTB/SmolLM2-135M": 134_515_008,
        "meta-llama/Llama-3.2-1B": 1_235_814_400,
        "Qwen/Qwen3-1.7B": 1_720_574_976 - 28 * 2 * 128,
        "allenai/OLMo-2-0425-1B": 1_484_916_736 - 16 * 2 * 2048,
    }
    assert {name: shape(published()["models"][name]).parameters for name in known} == known


def test_study_a_agrees_with_the_calculation_in_the_docs():
    found = estimate(plan_of(PAPER / "data_pollination.yaml"), read_rates("a100"))
    assert found.models == {"llama100m": (137_841_408, 448)}
    # docs/cost.md: 6 x 137,841,408 + 12 x 12 x 768 x 1024 = 940,294,656 FLOPs a token, 976,562
    # blocks of 1024 tokens a model
    for rule, models in (("train_founder", 64), ("train_child", 384)):
        assert (
            found.rules[rule].jobs == models
            and found.rules[rule].tokens["train"] == models * 976_562 * 1024
        )
        assert found.rules[rule].flops == pytest.approx(models * 976_562 * 1024 * 940_294_656)
    assert found.rules["generate_shard"].jobs == 112 * 8
    assert found.rules["generate_shard"].tokens["write"] == pytest.approx(
        112e9
    )  # corpora of a billion tokens, 64 of them the populations'
    assert found.disk["weights of members"] == 448 * 4 * 137_841_408
    assert found.waves["mmlu"]["train"] == pytest.approx(5.7, abs=0.1)  # two waves of 8
    assert not found.unknown
    # 17.5e9 tokens of 4.0 characters, counted as 4.2, at 10 million/s: 0.46 h; the search for
    # questions (on_overlap: remove) at 3.3 million/s: 1.40 h
    built = found.rules["build_corpus"]
    assert built.hours == pytest.approx(0.46 + 1.40, abs=0.01)
    # GPUs at 400 W, one core of 5 W beside each, PUE 1.56, 473 g per kWh
    others = found.core_hours - found.gpu_hours
    watt_hours = found.gpu_hours * 405 + others * 5
    assert found.energy_kwh == pytest.approx(watt_hours * 1.56 / 1000)
    assert found.co2_kg == pytest.approx(found.energy_kwh * 0.473)
    for number in ("940,294,656", "137,841,408", f"{found.flops:.2e}"):
        assert number in (ROOT / "docs/cost.md").read_text(), number


@pytest.mark.parametrize(
    ("name", "models"), [("data_pollination", 448), ("epistemic_diversity", 5203)]
)
def test_full_presets_take_seconds(name, models, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    begun_s = time.process_time()
    assert (
        main(
            [
                "cost",
                "--configfile",
                str(PAPER / f"{name}.yaml"),
                "--json",
                str(tmp_path / "cost.json"),
            ]
        )
        == 0
    )
    assert time.process_time() - begun_s < 10
    out = capsys.readouterr().out
    assert f"{models:,} models to train" in out and "by published figures" in out
    found = json.loads((tmp_path / "cost.json").read_text())
    assert (
        found["totals"]["models"] == models
        and found["hardware"]["published"]
        and found["totals"]["gpu_hours"] > 100
    )


def test_it_imports_no_torch():
    code = (
        "import pollination.cli.cost, pollination.cli.verify, pollination.cli.reproduce, "
        "pollination.cli.diff, sys"
    )
    code += "; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_what_is_not_known_is_said_and_never_guessed(capsys, tmp_path):
    raw = yaml.safe_load(TOY.read_text())
    raw["models"]["toy"] |= {"architecture": "gpt_neox"}
    raw["tasks"]["other"] = {"kind": "lm_eval", "template": "hellaswag"}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(raw))
    assert main(["cost", "--configfile", str(path), "--hardware", "a100"]) == 1
    out = capsys.readouterr().out
    assert "14 x toy, ? parameters" in out
    assert (
        "? models.toy: the parameters of architecture 'gpt_neox' cannot be counted; supported: "
        "llama, gpt2, opt; give --parameters toy=COUNT" in out
    )
    assert (
        "? tasks.other: the size of template 'hellaswag' is not in "
        "pollination/analysis/cost/published.yaml" in out
    )
    main(["cost", "--configfile", str(path), "--hardware", "a100", "--parameters", "toy=1000000"])
    assert "14 x toy, 1.0M parameters" in capsys.readouterr().out
    with pytest.raises(Unknown, match="may add parameters"):
        shape({"model_type": "llama", "vocab_size": 10, "num_experts": 4})


@pytest.mark.parametrize(
    "words",
    [
        ("--gpus", "0"),
        ("--hardware", "abacus"),
        ("--parameters", "toy=many"),
        ("--parameters", "no=5"),
    ],
)
def test_a_wrong_argument_is_one_line(words, capsys):
    assert main(["cost", "--configfile", str(TOY), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_pretrained_folder_says_its_size(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "opt", **SMALL["opt"], "word_embed_proj_dim": 64})
    )
    config = {
        "models": {"m": {"pretrained": str(tmp_path)}, "n": {"pretrained": {"founders": "p"}}},
        "founders": {"p": {"model": "m"}},
    }
    assert (
        model_shape(config, "n", {}, {})
        == model_shape(config, "m", {}, {})
        == shape({"model_type": "opt", **SMALL["opt"], "word_embed_proj_dim": 64})
    )


def test_tokens_of_ecosystems_are_exact():
    """Study B: 7,500 blocks of 128 tokens over M models, continued by as many tokens, dealt
    equally.
    """
    plan = plan_of(PAPER / "epistemic_diversity.yaml")
    texts = Texts(plan)
    assert texts.segment("opt1", 0) == 7500 * 128
    assert [texts.segment("opt16", m) for m in (0, 15)] == [469 * 128, 468 * 128]
    assert texts.written("opt_m1", 0, 0) == (7500 * 128, 7500 * 128)
    assert sum(texts.written("opt_m16", 3, rank)[0] for rank in range(16)) == 7500 * 128
    assert texts.child("opt_m16", 4, 7) == 7500 // 16 * 128
    assert texts.child("opt_again", 4, 0) == 7500 * 128  # human text again


def test_rates_are_a_straight_line_of_flops(tmp_path):
    same = {
        "model_type": "llama",
        "vocab_size": 100,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
    }
    small, large = (
        same | {"num_hidden_layers": layers, "tie_word_embeddings": True} for layers in (1, 9)
    )
    points = [
        {"model": small, "context_tokens": 64, "tokens_per_s": 1000.0},
        {"model": large, "context_tokens": 64, "tokens_per_s": 250.0},
    ]
    points = [point | {"source": "here"} for point in points]
    measured = {"name": "this", "start_s": 3.0} | dict.fromkeys(("train", "write", "score"), points)
    (tmp_path / "throughput.json").write_text(json.dumps(measured))
    rates = read_rates(None, tmp_path / "throughput.json")
    assert not rates.published
    for config, seconds in ((small, 0.001), (large, 0.004)):
        assert rates.seconds(
            {"train": 1.0}, {"train": shape(config).training(64)}
        ) == pytest.approx(3.0 + seconds)
    assert read_rates(None, tmp_path / "none.json").name == "NVIDIA A100 80GB"


def test_scoring_has_a_rate_of_its_own():
    """The published rate of scoring is one for fp32: fewer FLOP/s than those of training."""
    known = published()["hardware"]
    assert all({"train", "write", "score"} <= entry.keys() for entry in known.values())
    for name in ("a100", "h100", "h200"):
        rates = read_rates(name)
        assert rates.lines["score"][1] > 5 * rates.lines["train"][1]
        assert any(source.startswith("score: ") for source in rates.sources)


def test_measured_rates_without_scoring_are_refused(tmp_path, capsys, monkeypatch):
    (tmp_path / "results").mkdir()
    point = {"model": "tiny", "context_tokens": 64, "tokens_per_s": 1000.0, "source": "here"}
    measured = {"name": "2 threads of X", "start_s": 3.0, "train": [point], "write": [point]}
    (tmp_path / "results/throughput.json").write_text(json.dumps(measured))
    monkeypatch.chdir(tmp_path)
    assert main(["cost", "--configfile", str(TOY)]) == 2
    said = capsys.readouterr().err
    assert "throughput.json: there is no rate of score; measure again: python -m" in said


def a_config(folder: Path, **change) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(TOY.read_text()) | change))
    return str(path)


def test_device_cpu_takes_cores_and_no_gpu(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = a_config(tmp_path, device="cpu", cpu_threads=2)
    words = ["cost", "--configfile", path]
    assert main([*words, "--cores", "5", "--json", "cost.json"]) == 0
    out = capsys.readouterr().out
    assert "one or two CPU cores (the config sets device: cpu), by published figures" in out
    assert "A job that runs a model takes 2 of its cores." in out
    assert "Time with 4 cores (--cores)" in out  # two models at once, each on two cores
    assert "GPU h" not in out and "A100" not in out and "W per GPU" not in out
    found = json.loads(Path("cost.json").read_text())
    assert (found["time"]["gpus"], found["time"]["models_at_once"]) == (0, 2)
    assert found["totals"]["gpu_hours"] == 0 and found["hardware"]["device"] == "cpu"
    trained = found["rules"]["train_child"]
    assert trained["core_hours"] == pytest.approx(2 * trained["hours"])
    for wrong, said in (
        (["--gpus", "4"], "--gpus: the hours are those of one or two CPU cores; give --cores"),
        (["--hardware", "a100"], "contradicts the config, which sets device: cpu; allowed: cpu"),
        (["--cores", "0"], "--cores: 0 is out of range; allowed: 1 or more"),
    ):
        assert main([*words, *wrong]) == 2
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1
    assert main(["cost", "--configfile", str(TOY), "--hardware", "a100", "--cores", "4"]) == 2
    assert (
        "--cores: the hours are those of NVIDIA A100 80GB; give --gpus" in capsys.readouterr().err
    )


def test_measured_rates_of_another_device_are_not_taken(tmp_path):
    point = {"model": "tiny", "context_tokens": 64, "tokens_per_s": 1000.0, "source": "here"}
    kinds = {key: [point] for key in ("train", "write", "score")}
    file = tmp_path / "throughput.json"
    for name, device, watts in (
        ("NVIDIA H200", "cuda", 700),
        ("NVIDIA A100 80GB PCIe", "cuda", 300),
        ("NVIDIA H100 80GB HBM3", "cuda", 700),
        ("2 threads of AMD EPYC", "cpu", math.nan),  # as files of earlier versions
    ):
        file.write_text(json.dumps({"name": name, "start_s": 3.0} | kinds))
        rates = read_rates(None, file)
        assert (rates.name, rates.device) == (name, device)
        assert rates.watts == pytest.approx(watts, nan_ok=True)
        other, taken = ("cpu", "one or two CPU cores"), ("cuda", "NVIDIA A100 80GB")
        for wanted, instead in (other, taken):
            found = read_rates(None, file, wanted)
            assert found.name == (name if wanted == device else instead)
    measured = {"name": "X", "device": "cuda", "watts": 123.0, "start_s": 3.0} | kinds
    measured["processor"] = {"pack_tokens_per_s": 7.0}
    file.write_text(json.dumps(measured))
    rates = read_rates(None, file)
    assert rates.watts == 123 and rates.processor["pack_tokens_per_s"] == 7
    slower = estimate(TOY_PLAN, rates).rules["pack_tokens"]
    assert slower.hours > 1 and slower.core_hours == pytest.approx(4 * slower.hours)


def test_energy_follows_its_keys_and_an_unknown_power_is_said(tmp_path, capsys):
    point = {"model": "tiny", "context_tokens": 64, "tokens_per_s": 1000.0, "source": "here"}
    kinds = {key: [point] for key in ("train", "write", "score")}
    file = tmp_path / "throughput.json"
    file.write_text(json.dumps({"name": "Accelerator 9", "start_s": 3.0} | kinds))
    rates = read_rates(None, file)
    plan = plan_of(TOY)
    found = estimate(plan, rates)
    assert math.isnan(found.energy_kwh) and found.as_json()["totals"]["co2_kg"] is None
    assert any("set energy.gpu_watts" in line for line in found.unknown)
    plan = plan_of(TOY, energy={"gpu_watts": 250, "pue": 1, "grid_g_per_kwh": 0})
    found = estimate(plan, rates)
    watt_hours = found.gpu_hours * 250 + found.core_hours * 5
    assert found.energy_kwh == pytest.approx(watt_hours / 1000) and found.co2_kg == 0
    assert not found.unknown
    for key, value in (("pue", 0.9), ("gpu_watts", 0), ("grid_g_per_kwh", -1)):
        assert main(["cost", "--configfile", a_config(tmp_path, energy={key: value})]) == 2
        assert f"energy.{key}" in capsys.readouterr().err


def test_the_key_of_energy_changes_no_param_of_a_rule():
    config = resolve(yaml.safe_load(TOY.read_text()))
    assert config["energy"]["pue"] == 1.56 and "energy" not in lean(config, schema())
    assert whole(lean(config, schema()), schema()) == config


def test_pools_that_start_from_another_pool_are_scheduled():
    """Teachers, then students, then their children: none waits for itself."""
    unit = Rates("unit", 100.0, dict.fromkeys(("train", "write", "score"), (0.0, 0.0)), (), False)
    plan = plan_of(ROOT / "config/test/ecosystem.yaml")
    found = estimate(plan, unit, 1)
    jobs = sum(rule.jobs for rule in found.rules.values() if rule.gpu)
    assert found.seconds == pytest.approx(100 * jobs, rel=0.1)
    # teachers, founders, and twice: write and train; then the last evaluation
    assert found.critical_s > 100 * (2 + 2 * 2 + 1)


def test_threads_of_packing_are_those_of_its_rule():
    rule = (ROOT / "rules/corpus.smk").read_text().split("rule pack_tokens:")[1].split("rule ")[0]
    assert f"    threads: {PACK_THREADS}\n" in rule
    assert vocabulary.READ_CHARACTERS == READ_CHARACTERS


def test_waves_follow_the_number_of_gpus():
    rates = Rates(
        "unit", 100.0, dict.fromkeys(("train", "write", "score"), (0.0, 0.0)), (), False
    )  # a job on a GPU takes 100 s
    found = {gpus: estimate(TOY_PLAN, rates, gpus) for gpus in (1, 2, 4)}
    jobs = sum(rule.jobs for rule in found[1].rules.values() if rule.gpu)
    assert found[1].seconds == pytest.approx(100 * jobs, rel=0.1)  # one GPU: one after another
    assert found[1].seconds > found[2].seconds > found[4].seconds > found[4].critical_s
    # founders, then for each generation: evaluate, write beside mutate, train; and the last
    # evaluation
    assert found[4].critical_s == pytest.approx(100 * (1 + 3 * 2 + 1) + 100 * 0, rel=0.3)
    assert found[2].waves["population"]["train"] == pytest.approx(
        2 * 100 / 3600
    )  # 4 members on 2 GPUs


def test_several_gpus_share_the_work_of_a_training():
    """An A100: the start takes 20 s on each GPU; the work takes half the time on two."""
    found = {}
    for gpus, again in ((1, False), (2, False), (1, True)):
        raw = yaml.safe_load(TOY.read_text())
        raw["founders"]["human"]["train"] |= {"gpus": gpus, "tokens": 10**9}
        raw["founders"]["human"]["train"] |= {"activation_checkpointing": again}
        raw["corpora"]["world"] |= {"documents": 10**9}
        plan = Plan(resolve(raw), "results/toy")
        found[gpus, again] = estimate(plan, read_rates("a100"), 2).rules["train_founder"]
        if gpus == 2:
            with pytest.raises(ValueError, match=r"--gpus: 1, but the trainings .* allowed: 2 or"):
                estimate(plan, read_rates("a100"), 1)
    one, two, twice = (found[case] for case in ((1, False), (2, False), (1, True)))
    assert two.longest_s - 20 == pytest.approx((one.longest_s - 20) / 2)
    assert two.hours == pytest.approx(one.hours + 20 * one.jobs / 3600)
    assert twice.flops == pytest.approx(one.flops * 4 / 3)


def test_makespan_of_a_chain_by_hand():
    plan = plan_of(
        TOY,
        experiments={"line": {"population": 1, "weights": "own", "text": "own", "generations": 2}},
    )
    phases = {
        ("preparation", None, "pack"): (0, [5.0]),
        ("founders human", None, "train"): (1, [10.0]),
    }
    phases |= {
        ("founders human", None, "evaluate"): (1, [2.0]),
        ("line", 0, "write"): (1, [7.0, 7.0]),
    }
    phases |= {("line", 1, "train"): (1, [10.0]), ("line", 1, "evaluate"): (1, [2.0])}
    assert makespan(plan, phases, math.inf) == 5 + 10 + 7 + 10 + 2
    # a training on two GPUs waits for both
    both = phases | {("line", 1, "train"): (2, [10.0])}
    assert makespan(plan, both, 2) == 5 + 10 + 7 + 2 + 10 + 2
    assert makespan(plan, phases, 1) in (5 + 10 + 2 + 14 + 10 + 2, 5 + 10 + 14 + 10 + 2 + 2)


def test_disk_and_jobs_of_a_finished_run_are_as_predicted(finished, monkeypatch):
    monkeypatch.chdir(finished)
    found, real = estimate(TOY_PLAN, read_rates("cpu")), on_disk("results/toy")
    assert found.disk["weights of members"] == pytest.approx(real["weights of members"], rel=0.05)
    assert found.disk["packed tokens"] == pytest.approx(real["packed tokens"], rel=0.15)
    for kind in (
        "synthetic text",
        "scores and samples",
        "corpora",
        "records",
        "tokenizers and settings",
    ):
        assert 1 / 2.5 < found.disk[kind] / real[kind] < 2.5, kind
    assert found.tokens("train") == pytest.approx(sum(_trained(finished)), rel=0.25)


def _trained(folder: Path) -> list[int]:
    """Tokens that each training of a finished run really read: the last line of its metrics."""
    return [
        json.loads(path.read_text().splitlines()[-1])["tokens"]
        for path in folder.rglob("member*/train.jsonl")
        if "/." not in str(path)
    ]


def test_a_shape_by_hand():
    # vocabulary 10, hidden 4, feed-forward 6, one layer, one head, tied: table 40, attention 4 x
    # 16, feed-forward 3 x 24, norms 3 x 4
    tiny = shape(
        {
            "model_type": "llama",
            "vocab_size": 10,
            "hidden_size": 4,
            "intermediate_size": 6,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "tie_word_embeddings": True,
        }
    )
    assert tiny == Shape(188, 188, 1, 4, 10)
    assert tiny.forward(8) == 2 * 188 + 4 * 1 * 4 * 8 == 504
    assert tiny.training(8) == 1512
