"""From draws to a verdict: interval, decision, power, and the correction for many tests (docs/claims.md has the formulas)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri
from scipy.stats import t as student

from pollination.claims.declared import Claim
from pollination.claims.noise import DRAWS, Draws

LEVEL, POWER = 0.95, 0.8
SEARCH = 0.99  # where the best of several is looked for, chance has more than one way to an answer
VERDICTS = ("supported", "contradicted", "undecided", "no data")


@dataclass
class Finding:
    """One test of one claim. `draws` (S,) of the statistic, those of `questions` alone beside them; None: how much runs differ is unknown."""

    instance: str
    estimate: float
    draws: np.ndarray | None
    questions: np.ndarray | None = None
    replicates: str = ""
    variance: str = "own"
    exact: bool = False
    """Calculated, not sampled: no chance, so no test."""
    level: float = LEVEL
    discrete: bool = False
    note: str = ""
    gap: np.ndarray | None = field(default=None, repr=False)
    """Draws of the difference whose sign a discrete statistic hangs on: it has power, the statistic has none."""


def measure(draws: Draws, function: Callable[[np.ndarray], np.ndarray], instance: str, columns=slice(None), **more) -> Finding:
    """A finding from `function` of draws (S, n, K) -> (S,), which uses `columns` of the K."""
    known = draws.full is not None and bool(draws.known[columns].all())
    variance = draws.variance if known or draws.full is None else "unknown"
    gap = more.pop("gap", None)
    return Finding(
        instance,
        float(function(draws.point[None])[0]),
        function(draws.full) if known else None,
        function(draws.questions),
        ", ".join(map(str, dict.fromkeys(draws.replicates)))
        if len(set(draws.replicates)) == 1
        else " and ".join(map(str, draws.replicates)),
        variance,
        gap=gap(draws.full) if gap and known else None,
        **more,
    )


def around(estimate: float, low: float, high: float) -> np.ndarray:
    """(S,): a distribution with this 95 % interval, for statistics whose interval comes from elsewhere."""
    z = ndtri((np.arange(DRAWS) + 0.5) / DRAWS)
    return estimate + z / ndtri((1 + LEVEL) / 2) * np.where(z < 0, max(estimate - low, 0.0), max(high - estimate, 0.0))


def student_draws(estimate: float, stderr: float, degrees: int) -> np.ndarray:
    """(S,): Student's t around an estimate."""
    return estimate + stderr * student.ppf((np.arange(DRAWS) + 0.5) / DRAWS, degrees)


def ends(draws: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def decide(claim: Claim, low: float, high: float) -> str:
    """The verdict rule: the whole interval on the claimed side, on the other, or neither."""
    if claim.margin is not None:
        if claim.null - claim.margin <= low and high <= claim.null + claim.margin:
            return "supported"
        return "contradicted" if low > claim.null + claim.margin or high < claim.null - claim.margin else "undecided"
    return "supported" if low > claim.null else "contradicted" if high < claim.null else "undecided"


def p_value(claim: Claim, draws: np.ndarray) -> float:
    """Two-sided: twice the share of draws on the less likely side. Equivalence: of the two ends, the one that is harder to show."""
    share = lambda wrong: (1 + int(wrong.sum())) / (1 + len(draws))  # noqa: E731
    if claim.margin is not None:
        low, high = draws < claim.null - claim.margin, draws > claim.null + claim.margin
        return min(1.0, 2 * min(max(share(low), share(high)), share(~low), share(~high)))
    return min(1.0, 2 * min(share(draws <= claim.null), share(draws > claim.null)))


def power(claim: Claim, finding: Finding) -> dict[str, float | None]:
    """{power, detectable}. detectable: the distance from the null (equivalence: the margin) that has 80 % power; power: the chance to show
    the study's own value, or, of an equivalence, no difference at all. From the draws' spread around the estimate."""
    if finding.draws is None or finding.exact:
        return {"power": None if finding.exact else 0.0, "detectable": None}
    draws = finding.gap if finding.discrete else finding.draws
    if draws is None:
        return {"power": None, "detectable": None}
    noise = draws - (float(np.median(draws)) if finding.discrete else finding.estimate)
    low, high = ends(noise)
    if claim.margin is not None and not finding.discrete:
        inside = (noise + high <= claim.margin) & (noise + low >= -claim.margin)
        return {"power": float(inside.mean()), "detectable": float(np.quantile(np.maximum(noise + high, -noise - low), POWER))}
    detectable = -low - float(np.quantile(noise, 1 - POWER))
    if claim.paper is None or finding.discrete:
        return {"power": None, "detectable": float(detectable)}
    return {"power": float((claim.paper - claim.null + noise + low > 0).mean()), "detectable": float(detectable)}


def row(claim: Claim, finding: Finding) -> dict:
    """What the page and claims.json say of one test."""
    found = {"id": claim.id, "study": claim.study, "target": claim.target, "claim": claim.sentence, "tested_on": finding.instance}
    found |= {"statistic": claim.statistic, "unit": claim.unit, "null": claim.null, "margin": claim.margin, "paper": claim.paper}
    drawn = finding.questions if finding.draws is None else finding.draws
    level = max(finding.level, SEARCH) if finding.discrete else finding.level
    low, high = ends(drawn, level)
    found |= {"estimate": finding.estimate, "low": low, "high": high, "level": level}
    alone = None if finding.questions is None else decide(claim, *ends(finding.questions, level))
    found |= {"replicates": finding.replicates, "variance_between_runs": finding.variance, "in_this_run": alone}
    found |= {"verdict": "undecided" if finding.draws is None else decide(claim, low, high)}
    found |= {"p": None if finding.draws is None or finding.exact else p_value(claim, finding.draws)}
    return found | power(claim, finding) | {"power_is_of": "gap" if finding.discrete else "statistic", "note": finding.note}


def no_data(claim: Claim, why: str) -> dict:
    found = dict.fromkeys(row(claim, Finding("", 0.0, np.zeros(2), np.zeros(2), discrete=True)))
    found |= {"id": claim.id, "study": claim.study, "target": claim.target, "claim": claim.sentence, "tested_on": ""}
    found |= {"statistic": claim.statistic, "unit": claim.unit, "null": claim.null, "margin": claim.margin, "paper": claim.paper}
    return found | {"level": LEVEL, "verdict": "no data", "note": why}


def correct(rows: list[dict]) -> None:
    """Add `verdict_of_all`: the verdict that holds with all tests of the run taken together (Holm 1979, at 5 %)."""
    tested = sorted((one for one in rows if one["p"] is not None), key=lambda one: one["p"])
    rejected = True
    for place, one in enumerate(tested):
        rejected = rejected and one["p"] <= (1 - LEVEL) / (len(tested) - place)
        one["verdict_of_all"] = one["verdict"] if rejected else "undecided"
    for one in rows:
        one.setdefault("verdict_of_all", one["verdict"])
