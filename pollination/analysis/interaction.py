"""Effective numbers of sources of the children's text, as the interaction graph gives them.

All numbers are Hill numbers of order 1 (Hill 1973), exp(-sum w ln w) of shares w, as D of study B
(equation 1). With the shares s_cw(g) of the writers w of child c in generation g:

- sources of a child: shares s_cw of its synthetic text, and the share of human text as one more;
- kinds of a child: shares F_c(g) = sum over w of s_cw(g) F_w(g - 1) of the founders' kinds in the
  ancestry of its synthetic text. F_c(0) is 1 for the founder's own kind (plan/layout.py: kinds);
- D of a generation: shares of the kinds in the synthetic text of all children, mean of F_c(g).

With `human.accumulate`, they describe the text of the newest round.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

from pollination.analysis import ecosystems
from pollination.plan import layout
from pollination.plan.graph import shares
from pollination.plan.lineage import slots
from pollination.plan.operators import text_of
from pollination.plan.plan import Plan

Kinds = dict[tuple, float]
"""Kind of founder -> its share."""


def effective(shares_of: Iterable[float]) -> float:
    """Return the effective number; shares that differ by rounding count as equal."""
    return ecosystems.hill_shannon(round(share, 12) for share in shares_of)


def total(parts: Iterable[tuple[float, Kinds]]) -> Kinds:
    """Return the sum of shares, each part with its weight."""
    found: Kinds = defaultdict(float)
    for weight, kinds in parts:
        for kind, share in kinds.items():
            found[kind] += weight * share
    return found


def ancestry(plan: Plan, name: str, slot: Callable[[int, int], int]) -> list[list[Kinds]]:
    """Return generation -> member -> the founders' kinds in the ancestry of its synthetic text.

    `slot(generation, rank)`: the slot that held a rank.
    """
    found: list[list[Kinds]] = [[{kind: 1.0} for kind in layout.kinds(plan, name)]]
    for g in range(1, plan.experiment(name)["generations"]):
        found.append(
            [
                total(
                    (share, found[g - 1][slot(g - 1, rank)])
                    for rank, share in shares(plan, name, g, member).items()
                )
                for member in range(plan.experiment(name)["population"])
            ]
        )
    return found


def diversity(plan: Plan, name: str) -> float:
    """Return D of an ecosystem: the effective number of kinds that write its first synthetic text.

    Members write equal shares unless a graph says otherwise (study B, equation 1). Under selection
    the writers' kinds are known only after the run, and D counts the members' kinds.
    """
    kinds = layout.kinds(plan, name)
    if not text_of(plan.experiment(name)).is_graph or layout.selects(plan, name):
        return ecosystems.diversity(kinds)
    return effective(
        total(
            (share, {kinds[rank]: 1.0})
            for member in range(len(kinds))
            for rank, share in shares(plan, name, 1, member).items()
        ).values()
    )


def rows(plan: Plan, name: str) -> list[dict]:
    """Return one row per child of an experiment with a graph.

    Columns: experiment, generation, member, writers (rank:share of the synthetic text), human (its
    share), sources, kinds, diversity (D of the generation).
    """
    human, every = plan.experiment(name)["human"]["fraction"], []
    for g, generation in enumerate(ancestry(plan, name, slots(plan, name))):
        together = total((1.0, mine) for mine in generation)
        for member, mine in enumerate(generation) if g else ():
            read = shares(plan, name, g, member)
            parts = [(1 - human) * share for share in read.values()]
            every.append(
                {
                    "experiment": name,
                    "generation": g,
                    "member": member,
                    "writers": " ".join(f"{rank}:{share:.6g}" for rank, share in read.items()),
                    "human": human,
                    "sources": effective([*parts, human]),
                    "kinds": effective(mine.values()),
                    "diversity": effective(together.values()),
                }
            )
    return every
