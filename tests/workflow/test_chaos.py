"""A short campaign of random faults; `make chaos HOURS=...` is the long one (docs/reliability.md
has its figures).
"""

import pytest

from tests import chaos
from tests.conftest import TOY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(finished) -> tuple[dict[str, str], int]:
    results = finished / "results"
    size = sum(path.stat().st_blocks * 512 for path in results.rglob("*") if path.is_file())
    return chaos.digests(results / "toy"), size


@pytest.mark.parametrize("seed", [1])  # a seed at which a campaign failed stays here
def test_whatever_breaks_the_run_ends_like_an_undisturbed_one(undisturbed, seed):
    """Each kind of fault that this machine can have, once."""
    said: list[str] = []
    run = chaos.campaign(
        TOY,
        seed,
        lambda faults: len(faults) >= 9 or faults.total() >= 12,
        undisturbed,
        interval_s=(2, 7),
        say=said.append,
    )
    assert run.faults.total() >= 9 and run.starts > 2, said
    print(
        "\n".join([*said, *run.tracebacks])
    )  # of Snakemake, whose own files may not be written either


def test_a_campaign_notices_what_is_not_as_it_was(undisturbed):
    """The guard that all the others lean on: with another reference it fails."""
    reference, victim = undisturbed[0], "population/gen1/member0/model.safetensors"
    chaos.same(reference, reference)
    with pytest.raises(AssertionError, match=f"1 artifacts differ from the reference: {victim}"):
        chaos.same({**reference, victim: "0" * 64}, reference)
    with pytest.raises(AssertionError, match="1 artifacts differ"):
        chaos.same(
            {name: digest for name, digest in reference.items() if name != victim}, reference
        )
