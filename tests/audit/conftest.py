"""The made runs, shared by all tests of this folder."""

import pytest

from pollination.plan.plan import Plan
from tests.audit import made


@pytest.fixture(scope="session")
def study_a(tmp_path_factory) -> Plan:
    return made.study_a(tmp_path_factory.mktemp("a") / "results/data_pollination")


@pytest.fixture(scope="session")
def study_b(tmp_path_factory) -> Plan:
    return made.study_b(tmp_path_factory.mktemp("b") / "results/epistemic_diversity")
