"""The made runs, shared by all tests of this folder."""

import pytest

from pollination.figures import style
from pollination.plan.plan import Plan
from tests.audit import made


@pytest.fixture(scope="module", autouse=True)
def numbers_alone():
    """Figures write their CSV alone: pictures take most of the time, and other tests draw them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "save", lambda figure, rows, out: style.write_csv(rows, out))
        yield


@pytest.fixture(scope="session")
def study_a(tmp_path_factory) -> Plan:
    return made.study_a(tmp_path_factory.mktemp("a") / "results/data_pollination")


@pytest.fixture(scope="session")
def study_b(tmp_path_factory) -> Plan:
    return made.study_b(tmp_path_factory.mktemp("b") / "results/epistemic_diversity")
