"""A sweep becomes named experiments: their names, their founders, and the lines of mistakes."""

import copy

import pytest
import yaml

from pollination.cli import main
from pollination.plan.config.loading import read_yaml
from pollination.plan.config.places import Places
from pollination.plan.config.resolve import ConfigError, check_files, resolve
from pollination.plan.config.sweep import leaves
from pollination.plan.config.values import runs_of
from pollination.plan.jobs import jobs
from pollination.plan.plan import Plan
from tests.conftest import TOY, planned, snakemake

RAW = yaml.safe_load(TOY.read_text())
HEAD = TOY.read_text(encoding="utf-8").split("experiments:")[0]


def swept(sweep, **more) -> dict:
    """The toy's config with one swept experiment, as a person writes it."""
    raw = copy.deepcopy(RAW)
    noise = {"select": {"task": "knowledge"}, "sweep": sweep}
    line = {"population": 1, "weights": "own", "text": "own"}
    return raw | {"experiments": {"noise": noise | more, "line": line}}


def mistakes(raw: dict, source="my.yaml") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_files(resolve(raw, source), source)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    "sweep, names",
    [
        (
            {"mutate.scale": [0, 0.01], "population": [4, 9]},
            ["mutate-scale0.population4", "mutate-scale0.population9"]
            + ["mutate-scale0.01.population4", "mutate-scale0.01.population9"],
        ),
        (
            {"zip": {"mutate.scale": [0, 0.01], "population": [4, 9]}},
            ["mutate-scale0.population4", "mutate-scale0.01.population9"],
        ),
        (
            {
                "population": [4],
                "zip": {"mutate.scale": [0, 0.5], "select.rule": ["truncation", "random"]},
            },
            [
                "population4.mutate-scale0.select-rule-truncation",
                "population4.mutate-scale0.5.select-rule-random",
            ],
        ),
        (
            [{"population": 4}, {"population": 9, "train.learning_rate": 1e-5}],
            ["population4", "population9.train-learning_rate1e-05"],
        ),
        (
            {"population": [4], "train.tokens": [None, 500], "train.betas": [[0.9, 0.95]]},
            ["population4.train-tokens-null.train-betas0.9-0.95"]
            + ["population4.train-tokens500.train-betas0.9-0.95"],
        ),
    ],
)
def test_a_grid_a_zip_and_a_list_become_named_experiments(sweep, names):
    config = resolve(swept(sweep))
    assert list(config["experiments"]) == [*(f"noise.{name}" for name in names), "line"]
    assert list(config["sweeps"]["noise"]["variants"]) == [f"noise.{name}" for name in names]
    for name, variant in config["sweeps"]["noise"]["variants"].items():
        for key, value in variant["values"].items():
            node = config["experiments"][name]
            for part in key.split("."):
                node = node[part]
            assert node == value
        assert "sweep" not in config["experiments"][name]


def test_a_variant_is_the_experiment_that_a_person_would_have_written():
    variant = resolve(swept({"mutate.scale": [0.5]}, population=4))["experiments"]
    raw = swept({}, population=4, mutate={"scale": 0.5})
    by_hand = resolve(raw)
    assert variant["noise.mutate-scale0.5"] == by_hand["experiments"]["noise"]
    assert "sweeps" not in by_hand


def test_a_sweep_overrides_the_defaults():
    raw = swept({"train.epochs": [2, 7]}, population=4)
    raw["defaults"]["train"]["epochs"] = 5
    experiments = resolve(raw)["experiments"]
    epochs = {name: one["train"]["epochs"] for name, one in experiments.items()}
    assert epochs == {"noise.train-epochs2": 2, "noise.train-epochs7": 7, "line": 5}


def test_every_key_of_an_experiment_but_its_seeds_can_be_swept():
    keys = {"mutate.scale", "generate.temperature", "train.learning_rate", "select.rule"}
    assert keys | {"human.fraction", "population", "founders", "text_of"} <= set(leaves())
    assert not {"seed", "seeds", "replicates", "sweep", "mutate"} & set(leaves())


def test_a_new_value_changes_no_job_of_the_others():
    before = resolve(swept({"population": [4], "mutate.scale": [0.01]}, seeds=[1, 2]))
    sweep = {"population": [1, 4], "mutate.scale": [0, 0.01, 0.1]}
    after = resolve(swept(sweep, seeds=[1, 2]))
    assert len(after["sweeps"]["noise"]["variants"]) == 6
    for name, experiment in before["experiments"].items():
        assert after["experiments"][name] == experiment
    outputs = {job.output for job in jobs(Plan(after, "r"))}
    assert {job.output for job in jobs(Plan(before, "r"))} <= outputs


def test_swept_experiments_share_their_founders():
    scales = [n / 100 for n in range(20)]
    plan = Plan(resolve(swept({"mutate.scale": scales}, population=4)), "r")
    assert len(plan.config["experiments"]) == 21 and plan.pool_sizes == {"human": 4}
    rules = [job.kind.rule for job in jobs(plan)]
    assert rules.count("train_founder") == 4
    children = plan.config["experiments"]["line"]["generations"] - 1
    assert rules.count("train_child") == 20 * 4 * children + children


def test_replicates_of_a_variant_are_its_own():
    config = resolve(
        swept(
            [{"mutate.scale": 0}, {"mutate.scale": 0, "train.schedule": "constant"}],
            population=4,
            seeds=[1, 2],
        )
    )
    assert config["figures"]["population"] == ["noise.mutate-scale0.s1", "noise.mutate-scale0.s2"]
    variants = config["sweeps"]["noise"]["variants"]
    assert variants["noise.mutate-scale0"]["runs"] == [
        "noise.mutate-scale0.s1",
        "noise.mutate-scale0.s2",
    ]
    runs = runs_of(["a", "a.s1", "a.scale0", "a.scale0.s7", "ab.s1"])
    assert runs == {"a": ["a", "a.s1"], "a.scale0": ["a.scale0", "a.scale0.s7"], "ab": ["ab.s1"]}


def test_figures_name_a_variant_and_in_a_list_the_sweep_stands_for_all():
    raw = swept({"mutate.scale": [0, 0.1]}, population=4)
    raw["figures"] = {
        "population": "noise.mutate-scale0.1",
        "controls": {"no noise": "noise.mutate-scale0"},
        "comparisons": {"noise": ["line", "noise"], "labels": {"0": "noise.mutate-scale0"}},
        "ecosystems": {"noise": ["noise"]},
    }
    raw["evaluate"]["semantics"] = {"encoder": "tfidf", "experiments": ["noise"]}
    config = resolve(raw)
    figures, both = config["figures"], ["noise.mutate-scale0", "noise.mutate-scale0.1"]
    assert figures["population"] == ["noise.mutate-scale0.1"]
    assert figures["controls"] == {"no noise": ["noise.mutate-scale0"]}
    assert list(figures["comparisons"]["noise"]) == ["line", *both]
    assert figures["comparisons"]["labels"] == {"0": ["noise.mutate-scale0"]}
    assert list(figures["ecosystems"]["noise"]) == both
    assert config["evaluate"]["semantics"]["experiments"] == both
    for role in ({"population": "noise"}, {"comparisons": {"x": {"label": "noise"}}}):
        (said,) = mistakes(raw | {"figures": role})
        assert "'noise' is swept" in said and "noise.mutate-scale0, noise.mutate-scale0.1" in said
    (said,) = mistakes(raw | {"figures": {"line": "noise.scale7"}})
    assert "figures.line: 'noise.scale7' is not in experiments (did you mean" in said


@pytest.mark.parametrize(
    "sweep, key, words",
    [
        ({"mutate.scal": [1]}, "mutate.scal", ["unknown key (did you mean 'mutate.scale'?)"]),
        ({"scale": [1]}, "scale", ["did you mean 'mutate.scale'?"]),
        ({"mutate": [1]}, "mutate", ["it is a section", "mutate.scale, mutate.per"]),
        ({"mutate.scale": []}, "mutate.scale", ["[] is not allowed; write a list of values"]),
        ({"mutate.scale": 0.1}, "mutate.scale", ["0.1 is not allowed; write a list of values"]),
        ({"mutate.scale": [1, 0, 1.0]}, "mutate.scale", ["1 and 1.0 are one value"]),
        ({"mutate.scale": [0, -1]}, "mutate.scale", ["-1 is out of range; allowed: >= 0"]),
        ({"mutate.scale": [{"a": 1}]}, "mutate.scale", ["a value is a mapping"]),
        ({"train.betas": [[0.9, {}]]}, "train.betas", ["a value is a mapping"]),
        ([{"mutate.scale": n} for n in range(1001)], "", ["1,001 variants are too many"]),
        ({"seed": [1, 2]}, "seed", ["cannot be swept; write seeds or replicates"]),
        ({"weights": ["own", "x"]}, "weights", ["'x' is not allowed", "allowed: parent, "]),
        ({"founders": ["human", "x"]}, "founders", ["'x' is not in founders; allowed: human"]),
        ({"population": [4, 5]}, "population", ["also", "to 4", "remove one of them"]),
        ({"select.task": ["knowledge"]}, "select.task", ["sets this key too (to 'knowledge')"]),
        ({"select.rule": ["gone.py:f"]}, "select.rule", ["'gone.py:f'", "there is no file"]),
        ({"zip": {"mutate.scale": [1, 2], "text": ["own"]}}, "zip", ["2, text has 1", "equal"]),
        ({"zip": {}}, "zip", ["{} is not allowed; write a mapping"]),
        (
            {"text": ["own"], "zip": {"text": ["own"]}},
            "text",
            ["it is also a key of zip; remove one of them"],
        ),
        ([{"text": "own"}, {}], "1", ["{} is not a variant"]),
        ([{"mutate.scale": 1}, {"mutate.scale": 1.0}], "", ["two variants", "noise.mutate-scale1"]),
        ({"mutate.scale": list(range(1001))}, "", ["1,001 variants are too many"]),
        ({"select.rule": ["x" * 300]}, "", ["allowed: 200"]),
    ],
)
def test_a_mistake_names_the_sweep_and_the_fix(sweep, key, words):
    said = mistakes(swept(sweep, population=4))
    assert len(said) == 1, said
    assert said[0].startswith(f"my.yaml: experiments.noise.sweep{f'.{key}' if key else ''}: ")
    words = ["sets this key too", *words[1:]] if words[0] == "also" else words
    assert all(word in said[0] for word in words), said


def test_a_sweep_of_defaults_is_refused():
    raw = swept({"mutate.scale": [0]}, population=4)
    raw["defaults"]["sweep"] = {"mutate.scale": [1]}
    (said,) = mistakes(raw)
    assert said.startswith("my.yaml: defaults.sweep: ") and "experiments.NAME.sweep" in said


@pytest.mark.parametrize(
    "body, key, line",
    [
        ("sweep:\n      mutate.scale:\n        - 0\n        - -1", "sweep.mutate.scale", 4),
        ("sweep:\n      zip:\n        text: [own, own]\n        population: [4,\n          -5]",
         "sweep.population", 5),
        ("sweep:\n      - population: 4\n      - population: 5\n      - population: 9",
         "sweep.population", 3),
        ("sweep:\n      mutate.scale: [1]\n      weights:\n        - parent\n        - own",
         "sweep.weights", 5),
        ("weights: own\n    sweep:\n      mutate.scale: [0, 1]", "sweep", 2),
        ("founders: x\n    sweep:\n      mutate.scale: [0, 1]", "founders", 1),
        ("text_of: x\n    seeds: [1, 2]\n    text: pool\n    sweep: {select.k: [2]}", "text_of", 1),
        ("sweep:\n      mutate.scale: [0]\n      mutat.per: [0]", "sweep.mutat.per", 3),
    ],
)  # fmt: skip
def test_the_line_that_the_user_wrote_is_named_and_no_variant(tmp_path, body, key, line):
    own = "" if "population" in body else "\n    population: 4"
    top = "experiments:\n  noise:\n    select: {task: knowledge}"
    path = tmp_path / "my.yaml"
    path.write_text(f"{HEAD}{top}{own}\n    {body}\n", encoding="utf-8")
    places = Places([path])
    with pytest.raises(ConfigError) as caught:
        check_files(resolve(read_yaml(str(path)), places), places)
    number = len(f"{HEAD}{top}{own}".splitlines()) + line
    found = [one for one in str(caught.value).splitlines() if f": experiments.noise.{key}: " in one]
    assert found and found[0].startswith(f"{path}:{number}: "), str(caught.value)
    keys = {one.split(": ")[1] for one in str(caught.value).splitlines()}
    assert not any("noise.scale" in one or "noise.population" in one for one in keys)


def test_a_mistake_of_some_variants_names_their_values():
    (said,) = mistakes(swept({"mutate.scale": [0, 1]}, population=4, weights="own"))
    assert "experiments.noise.sweep: weights: 'own' with selection cannot be mutated" in said
    assert said.endswith("(the variant with mutate.scale: 1)")


@pytest.mark.parametrize(
    ("sweep", "same"),
    [
        ([{"mutate.scale": 0.0}, {"train.epochs": 1}], "mutate-scale0 and noise.train-epochs1"),
        (
            {"mutate.scale": [0, 1], "mutate.per": ["tensor", "model"]},
            "mutate-scale0.mutate-per-tensor and noise.mutate-scale0.mutate-per-model",
        ),
    ],
)
def test_variants_that_are_one_experiment_are_refused(sweep, same):
    (said,) = mistakes(swept(sweep, population=4))
    assert f"experiments.noise.sweep: the variants noise.{same} are the same" in said


def test_an_overlay_sets_a_sweep(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump(RAW), encoding="utf-8")
    text = (
        f"run: small\noverlay:\n  base: {base}\n  drop: [experiments.population.mutate]\n  set:\n"
        "    experiments.population.sweep:\n      mutate.scale:\n        - 0\n        - SCALE\n"
    )
    path = tmp_path / "my.yaml"
    path.write_text(text.replace("SCALE", "0.5"), encoding="utf-8")
    config = resolve(read_yaml(str(path)), Places([path]))
    assert list(config["experiments"])[-2:] == [
        "population.mutate-scale0",
        "population.mutate-scale0.5",
    ]
    path.write_text(text.replace("SCALE", "-1"), encoding="utf-8")
    (said,) = mistakes(read_yaml(str(path)), Places([path]))
    assert said.startswith(f"{path}:9: experiments.population.sweep.mutate.scale: -1 is out")


def test_commands_and_a_dry_run_know_the_variants(tmp_path, monkeypatch, capsys):
    raw = swept({"mutate.scale": [0, 0.01, 1]}, population=4, generations=2)
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["check", "--configfile", str(path)]) == 0
    assert "Experiments: 4; models to train: 18, including 4 founders" in capsys.readouterr().out
    found = planned(snakemake(tmp_path, "-n", configfile=path))
    assert (found["train_founder"], found["train_child"]) == (4, 12 + 2)
    assert found["draw_sweep"] == 1
