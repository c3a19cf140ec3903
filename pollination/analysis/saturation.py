"""Find benchmarks at their ceiling or floor, where a difference between models cannot show."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Both sides print as 1.00 from here on. At most half a point is left between them, a quarter of the
# loss that the claims count (plan/claims.py, HOLDS_POINTS). Without a chance level, 0.005 is the
# floor for the same reason.
CEILING = 0.995


@dataclass(frozen=True)
class Limit:
    """The end of the scale that every side of a comparison has reached."""

    kind: str
    """`saturated` (all or nearly all answers correct, or none) or `at chance`."""
    level: float
    """Accuracy at this end: 1, 0 or chance."""
    exact: bool = False
    """Whether every model of every side has exactly this accuracy."""

    @property
    def saturated(self) -> bool:
        return self.kind == "saturated"

    @property
    def says(self) -> str:
        if not self.saturated:
            return f"at chance ({self.level:.2f}): no side is distinguishable from guessing"
        share = f"at least {CEILING:.1%}" if self.level else f"at most {1 - CEILING:.1%}"
        share = share.replace("%", " %")
        return f"saturated: every side answers {share} correctly, so no difference can show"


def limit(percent: Sequence[float], questions: int, chance: float | None = None) -> Limit | None:
    """Return the limit that all sides have reached, or None.

    `percent`: the mean accuracy of each side. A side is at chance if its accuracy lies inside the
    95 % interval of a model that guesses `questions` answers (normal approximation).
    """
    shares = np.asarray(percent, dtype=float) / 100
    if (shares >= CEILING).all():
        return Limit("saturated", 1.0, bool((shares == 1).all()))
    if chance:
        reach = 1.96 * np.sqrt(chance * (1 - chance) / questions)
        return Limit("at chance", chance) if (abs(shares - chance) <= reach).all() else None
    if (shares <= 1 - CEILING).all():
        return Limit("saturated", 0.0, bool((shares == 0).all()))
    return None
