"""From draws to a verdict: interval, decision, power, Holm's correction (docs/claims.md)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri
from scipy.stats import t as student

from pollination.analysis.claims.noise import DRAWS, Draws
from pollination.plan.claims import Claim

LEVEL, POWER = 0.95, 0.8
SEARCH = 0.99  # for the best of several, which chance can produce in more than one way
VERDICTS = ("supported", "contradicted", "undecided", "no data")


@dataclass
class Finding:
    """One test of one claim.

    `draws` (S,) of the statistic, None if the variance between runs is unknown; `questions` (S,)
    resamples questions only.
    """

    instance: str
    estimate: float
    draws: np.ndarray | None
    questions: np.ndarray | None = None
    replicates: str = ""
    variance: str = "own"
    exact: bool = False
    """Calculated, not sampled: there is no noise, so no test."""
    level: float = LEVEL
    discrete: bool = False
    note: str = ""
    selecting_estimate: float | None = None
    """The estimate on the questions that select parents; None if nothing selects on the task."""
    gap: np.ndarray | None = field(default=None, repr=False)
    """Draws of the difference that decides a discrete statistic, whose own power is undefined."""


def measure(
    draws: Draws,
    function: Callable[[np.ndarray], np.ndarray],
    instance: str,
    columns=slice(None),
    **more,
) -> Finding:
    """Return a finding from `function` of draws (S, n, K) -> (S,), which uses `columns` of K."""
    full = draws.full if bool(draws.known[columns].all()) else None
    variance = draws.variance if full is not None or draws.full is None else "unknown"
    gap = more.pop("gap", None)
    counts = [str(count) for count in draws.replicates]
    return Finding(
        instance,
        float(function(draws.point[None])[0]),
        None if full is None else function(full),
        function(draws.questions),
        counts[0] if len(set(counts)) == 1 else " and ".join(counts),
        variance,
        gap=None if gap is None or full is None else gap(full),
        **more,
    )


def around(estimate: float, low: float, high: float) -> np.ndarray:
    """Return (S,): a distribution with this 95 % interval, which another module computed."""
    z = ndtri((np.arange(DRAWS) + 0.5) / DRAWS)
    half_width = np.where(z < 0, max(estimate - low, 0.0), max(high - estimate, 0.0))
    return estimate + z / ndtri((1 + LEVEL) / 2) * half_width


def student_draws(estimate: float, stderr: float, degrees: int) -> np.ndarray:
    """Return (S,): Student's t around an estimate."""
    return estimate + stderr * student.ppf((np.arange(DRAWS) + 0.5) / DRAWS, degrees)


def ends(draws: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def decide(claim: Claim, low: float, high: float) -> str:
    """Return the verdict: the whole interval on the claimed side, on the other, or neither."""
    if claim.margin is not None:
        if claim.null - claim.margin <= low and high <= claim.null + claim.margin:
            return "supported"
        return (
            "contradicted"
            if low > claim.null + claim.margin or high < claim.null - claim.margin
            else "undecided"
        )
    return "supported" if low > claim.null else "contradicted" if high < claim.null else "undecided"


def p_value(claim: Claim, draws: np.ndarray) -> float:
    """Return the two-sided p-value: twice the share of draws on the less likely side.

    For an equivalence, the end that is harder to show counts.
    """

    def share(wrong: np.ndarray) -> float:
        return (1 + int(wrong.sum())) / (1 + len(draws))

    if claim.margin is not None:
        low, high = draws < claim.null - claim.margin, draws > claim.null + claim.margin
        return min(1.0, 2 * min(max(share(low), share(high)), share(~low), share(~high)))
    return min(1.0, 2 * min(share(draws <= claim.null), share(draws > claim.null)))


def power(claim: Claim, finding: Finding) -> dict[str, float | None]:
    """Return {power, detectable} from the spread of the draws around the estimate.

    power: the probability of showing the study's own value (equivalence: no difference at all).
    detectable: the distance from the null (equivalence: the margin) that has 80 % power.
    """
    if finding.draws is None or finding.exact:
        return {"power": None if finding.exact else 0.0, "detectable": None}
    draws = finding.gap if finding.discrete else finding.draws
    if draws is None:
        return {"power": None, "detectable": None}
    noise = draws - (float(np.median(draws)) if finding.discrete else finding.estimate)
    low, high = ends(noise)
    if claim.margin is not None and not finding.discrete:
        inside = (noise + high <= claim.margin) & (noise + low >= -claim.margin)
        return {
            "power": float(inside.mean()),
            "detectable": float(np.quantile(np.maximum(noise + high, -noise - low), POWER)),
        }
    detectable = -low - float(np.quantile(noise, 1 - POWER))
    if claim.paper is None or finding.discrete:
        return {"power": None, "detectable": float(detectable)}
    return {
        "power": float((claim.paper - claim.null + noise + low > 0).mean()),
        "detectable": float(detectable),
    }


def row(claim: Claim, finding: Finding) -> dict:
    """Return one test as the page and claims.json show it."""
    drawn = finding.questions if finding.draws is None else finding.draws
    assert drawn is not None, "every finding has draws of its runs or of its questions"
    level = max(finding.level, SEARCH) if finding.discrete else finding.level
    low, high = ends(drawn, level)
    alone = None if finding.questions is None else decide(claim, *ends(finding.questions, level))
    verdict = "undecided" if finding.draws is None else decide(claim, low, high)
    tested = None if finding.exact else finding.draws
    return (
        _declared(claim, finding.instance)
        | {"estimate": finding.estimate, "low": low, "high": high, "level": level}
        | {
            "replicates": finding.replicates,
            "variance_between_runs": finding.variance,
            "in_this_run": alone,
        }
        | {"verdict": verdict, "p": None if tested is None else p_value(claim, tested)}
        | power(claim, finding)
        | {"power_is_of": "gap" if finding.discrete else "statistic", "note": finding.note}
        | (
            {}
            if finding.selecting_estimate is None
            else {"selecting_estimate": finding.selecting_estimate}
        )
    )


def _declared(claim: Claim, instance: str) -> dict:
    """Return the columns that the claim itself fills."""
    return {
        "id": claim.id,
        "study": claim.study,
        "target": claim.target,
        "claim": claim.sentence,
        "tested_on": instance,
        "statistic": claim.statistic,
        "unit": claim.unit,
        "null": claim.null,
        "margin": claim.margin,
        "paper": claim.paper,
    }


def no_data(claim: Claim, why: str) -> dict:
    columns = row(claim, Finding("", 0.0, np.zeros(2), np.zeros(2), discrete=True))
    return (
        dict.fromkeys(columns)
        | _declared(claim, "")
        | {"level": LEVEL, "verdict": "no data", "note": why}
    )


def correct(rows: list[dict]) -> None:
    """Add `verdict_of_all`: the verdict over all tests of the run together (Holm 1979, at 5 %)."""
    tested = sorted((test for test in rows if test["p"] is not None), key=lambda test: test["p"])
    rejected = True
    for place, test in enumerate(tested):
        rejected = rejected and test["p"] <= (1 - LEVEL) / (len(tested) - place)
        test["verdict_of_all"] = test["verdict"] if rejected else "undecided"
    for test in rows:
        test.setdefault("verdict_of_all", test["verdict"])
