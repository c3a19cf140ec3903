"""The captions of the report are valid as Snakemake renders them."""

import io
from types import SimpleNamespace

import pytest
from docutils.core import publish_string
from jinja2 import Environment

from pollination.plan.config.loading import read_yaml
from pollination.plan.config.resolve import resolve
from pollination.plan.figures import FINGERPRINT, THEORY
from pollination.plan.paper import target_setting
from pollination.plan.plan import Plan
from pollination.plan.report import figures
from tests.conftest import ROOT, TOY_PLAN

CONFIGS = [
    *("config/config.yaml", "config/microworld_ecosystem.yaml", "config/paper/theory.yaml"),
    *("config/paper/deployed.yaml", "config/laptop/data_pollination.yaml"),
    *("config/laptop/epistemic_diversity.yaml", "config/test/toy.yaml"),
    "config/published/wu_2026.yaml",
]
SNAKEMAKE = Environment(trim_blocks=True, lstrip_blocks=True)  # as snakemake.report sets it
KEYS = ("title", "draws", "panels")  # of rules/paper.smk


def captions(plan: Plan):
    """Yield (file, wildcards, params) of each caption that a run of the plan renders."""
    yield "workflow", {}, {}
    for name in figures(plan):
        yield name, {}, {}
    for name in THEORY if plan.config["theory"] else ():
        yield name, {}, {}
    for survey in plan.config["fingerprint"]:
        for name in FINGERPRINT:
            yield name, {"survey": survey}, {}
    for target in plan.config["figures"]["paper"]:
        yield "paper", {"target": target}, {key: target_setting(plan, target, key) for key in KEYS}


def test_the_first_page_lists_the_warnings_of_a_small_run():
    template = SNAKEMAKE.from_string((ROOT / "workflow/report/workflow.rst").read_text())
    small = [f"corpora.{name}_: 3 prompt documents, fewer than 20" for name in ("a", "b")]
    for warnings in (small, []):
        job = SimpleNamespace(config=TOY_PLAN.config | {"small": warnings})
        said = io.StringIO()
        page = publish_string(
            template.render(snakemake=job),
            writer="html",
            settings_overrides={"warning_stream": said, "report_level": 2},
        ).decode()
        assert not said.getvalue()
        assert page.count("3 prompt documents, fewer than 20") == len(warnings)
        assert ("This run is small" in page) == bool(warnings)


@pytest.mark.parametrize("path", CONFIGS)
def test_captions_have_no_errors_of_markup(path):
    plan = Plan(resolve(read_yaml(ROOT / path), path), "results/x")
    for name, wildcards, params in captions(plan):
        template = SNAKEMAKE.from_string((ROOT / f"workflow/report/{name}.rst").read_text())
        job = SimpleNamespace(config=plan.config, wildcards=wildcards, params=params)
        said = io.StringIO()
        settings = {"warning_stream": said, "report_level": 2}
        publish_string(template.render(snakemake=job), writer="html", settings_overrides=settings)
        assert not said.getvalue(), (name, wildcards, said.getvalue())
