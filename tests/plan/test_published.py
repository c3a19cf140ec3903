"""The presets of published settings (config/published), each against a plan written by hand."""

import pytest
import yaml

from pollination.plan import synthetic
from pollination.plan.config.resolve import resolve
from pollination.plan.inputs import child_inputs, training
from pollination.plan.plan import Plan
from pollination.plan.synthetic import mixture, mixture_inputs
from tests.conftest import ROOT

FOLDER = ROOT / "config/published"
BASE, OWN = "models/pretrained", "{e}/gen1/member{m}"
# experiment -> (weights, text of each child of generation 2, other human text, its settings)
WRITTEN = {
    "shumailov_2024": {
        "no_human_text": (BASE, ["gen1/synthetic0"], None, (0.0, "none")),
        "a_tenth": (BASE, ["gen1/synthetic0"], "human", (0.1, "none")),
    },
    "kazdan_2025": {
        "replace": (BASE, ["gen1/synthetic0"], None, (0.0, "none")),
        "accumulate": (BASE, ["gen0/synthetic0 gen1/synthetic0"], "segment", (0.0, "all")),
        "accumulate_subsample": (
            BASE,
            ["gen0/synthetic0 gen1/synthetic0"],
            "segment",
            (0.0, "fixed"),
        ),
    },
    "vu_2025": {
        "alpha_50": (OWN, ["gen1/deal0", "gen1/deal1"], "human", (0.5, "none")),
        "alpha_100": (OWN, ["gen1/deal0", "gen1/deal1"], None, (0.0, "none")),
        "alone_50": (OWN, ["gen1/synthetic0", "gen1/synthetic1"], "human", (0.5, "none")),
        "crossed": (OWN, ["gen1/synthetic1", "gen1/synthetic0"], None, (0.0, "none")),
    },
    "wu_2026": {
        name: (OWN, text, "human", (0.1, "none"))
        for name, text in {
            "complete": [f"gen1/deal{m}" for m in range(4)],
            "alone": [f"gen1/synthetic{m}" for m in range(4)],
            "cycle": [f"gen1/synthetic{m}" for m in (3, 0, 1, 2)],
            "star": ["gen1/mix0", *["gen1/synthetic0"] * 3],
            "chain": [f"gen1/synthetic{m}" for m in (0, 0, 1, 2)],
            "classes": [f"gen1/mix{m}" for m in range(4)],
            "islands": [f"gen1/mix{m}" for m in range(4)],
        }.items()
    },
}


def plan_of(name: str) -> Plan:
    raw = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert raw["run"] == name
    return Plan(resolve(raw), "r")


def test_every_preset_has_a_plan_written_by_hand():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_preset_has_the_plan_that_its_paper_describes(name):
    plan = plan_of(name)
    assert list(plan.config["experiments"]) == list(WRITTEN[name])
    for e, (weights, texts, human, (fraction, accumulate)) in WRITTEN[name].items():
        assert plan.experiment(e)["population"] == len(texts)
        settings = training(plan, f"{e}/gen2")["human"]
        assert settings == {"fraction": fraction, "accumulate": accumulate}
        for m, text in enumerate(texts):
            given = child_inputs(plan, e, 2, m)
            assert given["weights"] == [f"r/{weights.format(e=e, m=m)}/model.safetensors"]
            read = [path.rsplit("/", 1)[0].removeprefix(f"r/{e}/") for path in given["text"]]
            assert read == text.split()
            assert {"human", "segment"} & set(given) == ({human} if human else set())


def test_the_mixtures_of_the_digraphs_have_the_shares_written_by_hand():
    plan = plan_of("wu_2026")

    def mixed(e: str, generation: int, member: int) -> dict[str, float]:
        files = mixture_inputs(plan, e, generation - 1, member)
        shares = mixture(plan, e, generation - 1, member)
        return {path.split("/")[3]: round(s, 4) for path, s in zip(files, shares, strict=True)}

    def of(*ranks: int, share: float) -> dict[str, float]:
        return {f"synthetic{rank}": share for rank in ranks}

    assert mixed("star", 2, 0) == of(1, 2, 3, share=0.3333)
    assert mixed("classes", 2, 3) == of(2, 3, share=0.5)
    assert mixed("islands", 1, 3) == of(2, 3, share=0.5)
    assert mixed("islands", 2, 3) == of(0, 1, share=0.125) | of(2, 3, share=0.375)
    assert list(synthetic.writers(plan, "chain", 1)) == [0, 1, 2]  # nobody reads the last model
