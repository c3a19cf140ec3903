"""Draw the interaction graph: the writers that each child reads, and their shares of its text.

The weights of a soup have such a graph too: the models that a child averages, and their shares.
The graph of a generation is a pure function of the experiment's settings, its seed and the
generation. Rules import this module, so it must not import numpy.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from pollination.core.seeds import derive_seed
from pollination.plan import layout
from pollination.plan.operators import text_of
from pollination.plan.plan import Plan

Shares = dict[int, float]
"""Rank -> its share of a child's synthetic text. Shares are positive and sum to 1."""
EXACT = 1e-6  # shares that differ by less count as equal


@dataclass(frozen=True)
class Setting:
    """What a rule knows: its keys, with their defaults, the generation, and a source of chance."""

    values: dict
    generation: int
    chance: Callable[..., float]
    """`chance(*use)`: a number in [0, 1), the same for equal uses on every machine."""


def ring(place: int, places: int, _setting: Setting) -> Shares:
    return {(place - 1) % places: 1.0, place: 1.0}


def star(place: int, places: int, setting: Setting) -> Shares:
    hub = setting.values["hub"]
    return mixed(place, places, setting) if place == hub else {hub: 1.0, place: 1.0}


def nearest(place: int, places: int, setting: Setting) -> Shares:
    count = setting.values["neighbours"]
    steps = [step for far in range(1, count + 1) for step in (-far, far)][:count]
    return dict.fromkeys([(place + step) % places for step in [*steps, 0]], 1.0)


def islands(place: int, places: int, setting: Setting) -> Shares:
    count, own = setting.values["islands"], place * setting.values["islands"] // places
    moves = setting.generation % setting.values["every"] == 0
    migration = setting.values["migration"] if moves and count > 1 else 0.0
    shares: Shares = {}
    for island, share in ((own, 1 - migration), ((own - 1) % count, migration)):
        begin, end = (-(-number * places // count) for number in (island, island + 1))
        shares |= {other: share / (end - begin) for other in range(begin, end) if share}
    return shares


def small_world(place: int, places: int, setting: Setting) -> Shares:
    shares = nearest(place, places, setting)
    for other in [other for other in shares if other != place]:
        if setting.chance("rewire", place, other) < setting.values["rewiring"]:
            new, trial = place, 0
            while new in shares and len(shares) < places:
                new, trial = int(setting.chance("to", place, other, trial) * places), trial + 1
            if new not in shares:
                del shares[other]
                shares[new] = 1.0
    return shares


def mixed(_place: int, places: int, _setting: Setting) -> Shares:
    return dict.fromkeys(range(places), 1.0)


@dataclass(frozen=True)
class Rule:
    """A rule of the graph."""

    says: str
    shares: Callable[[int, int, Setting], Shares] | None
    """(place, number of places, setting) -> relative shares of the places that a child there reads.

    None: the key `shares` gives them.
    """
    reads: dict = field(default_factory=dict)
    """The keys of `graph` that it reads, with their defaults."""
    alike: bool = False
    """Whether all places read the same members."""


GRAPHS = {
    "shares": Rule("the matrix `shares`", None),
    "ring": Rule("itself and the member before it", ring),
    "star": Rule("itself and the `hub`, which reads everybody", star, {"hub": 0}),
    "nearest": Rule(
        "itself and the `neighbours` nearest members on a ring", nearest, {"neighbours": 2}
    ),
    "islands": Rule(
        "everybody on its island, and in each `every`-th generation, with the share `migration`, "
        "everybody on the island before it",
        islands,
        {"islands": 2, "every": 1, "migration": 0.1},
    ),
    "small_world": Rule(
        "as nearest, but each link to a neighbour leads with probability `rewiring` to a member "
        "drawn at random (Watts and Strogatz 1998)",
        small_world,
        {"neighbours": 2, "rewiring": 0.1},
    ),
    "mixed": Rule("everybody", mixed, alike=True),
}


@dataclass(frozen=True)
class Graph:
    """The graph of one generation."""

    rows: list[Shares]
    """The shares of each child. Children beyond the rows repeat them (child m: row m mod k)."""
    writers: int

    def of(self, child: int) -> Shares:
        return self.rows[child % len(self.rows)]

    @cached_property
    def is_pool(self) -> bool:
        """Whether all children read all of several writers equally: the pool of `text: pool`."""
        return self.writers > 1 and all(
            len(row) == self.writers and max(row.values()) - min(row.values()) < EXACT
            for row in self.rows
        )

    @cached_property
    def read(self) -> list[int]:
        """The ranks that somebody reads."""
        return sorted({rank for row in self.rows for rank in row})


def chances(seed: int, generation: int) -> Callable[..., float]:
    return lambda *use: derive_seed(seed, "graph", generation, *use) / 2**63


def draw(graph: dict, seed: int, writers: int, generation: int) -> Graph:
    """Return the graph by which the children of a generation read the writers before them.

    `graph`: the config's `graph`; `seed`: that of the experiment, unless the graph has its own.
    Raises ValueError if a child has no writer for the share that `own` leaves.
    """
    rule, anew = GRAPHS[graph["rule"]], graph["draw"] == "each_generation"
    if rule.shares is None:
        return Graph([_row(enumerate(row)) for row in graph["shares"]], writers)
    seed = seed if graph["seed"] is None else graph["seed"]
    chance = chances(seed, generation if anew else 0)
    setting = Setting(values(graph), generation, chance)
    holders = list(range(writers))  # place -> rank
    if anew:
        holders.sort(key=lambda rank: (chance("place", rank), rank))
    rows: list[Shares] = [{}] * (1 if rule.alike and graph["own"] is None else writers)
    for place, rank in enumerate(holders[: len(rows)]):
        shares = rule.shares(place, writers, setting)
        shares = {holders[other]: share for other, share in shares.items()}
        rows[rank % len(rows)] = _row(_with_own(shares, rank, graph["own"]).items())
    return Graph(rows, writers)


def values(graph: dict) -> dict:
    """Return the keys that the rule of a graph reads; null is the rule's default."""
    reads = GRAPHS[graph["rule"]].reads
    return {key: reads[key] if graph[key] is None else graph[key] for key in reads}


def _with_own(shares: Shares, rank: int, own: float | None) -> Shares:
    if own is None:
        return shares
    others = {other: share for other, share in shares.items() if other != rank}
    if not others and own < 1:
        raise ValueError(f"rank {rank} reads nobody else")
    left = sum(others.values())
    return {rank: own} | {other: (1 - own) * share / left for other, share in others.items()}


def _row(shares: Iterable[tuple[int, float]]) -> Shares:
    """Return the positive shares, in the order of the writers and with the sum 1."""
    given = dict(sorted(shares))
    most = max(given.values())
    row = {rank: share for rank, share in given.items() if share > EXACT * most}  # no rounding
    total = sum(row.values())
    return {rank: share / total for rank, share in row.items()}


def graph_of(plan: Plan, name: str, generation: int, key: str = "graph") -> Graph:
    """Return the graph of an experiment's children, drawn once for equal generations.

    `key`: graph (who reads whom) or soup (whose weights are averaged).
    """
    experiment, graph = plan.experiment(name), plan.experiment(name)[key]
    if graph["draw"] == "once":
        generation = generation % values(graph).get("every", 1)
    if (name, generation, key) not in plan.graphs:
        # shares are of all text, human text included, so `own` is too
        left = 1 - (experiment["human"]["fraction"] if key == "graph" else 0)
        own = None if graph["own"] is None else min(1, graph["own"] / left)
        plan.graphs[name, generation, key] = draw(
            graph | {"own": own}, experiment["seed"], layout.k(plan, name), generation
        )
    return plan.graphs[name, generation, key]


def shares(plan: Plan, name: str, generation: int, member: int) -> Shares:
    """Return the writers of a child's text of one round, and their shares of it.

    The writers are ranks of the generation before; text of `text_of` has those of its experiment.
    """
    text = text_of(plan.experiment(name))
    if text.is_graph:
        return graph_of(plan, name, generation).of(member)
    writers = text.writers(member, layout.k(plan, name))
    return dict.fromkeys(writers, 1 / max(1, len(writers)))


def is_dealt(plan: Plan, name: str, generation: int) -> bool:
    """Return whether a pool of all writers' text is dealt to the children of a generation."""
    text = text_of(plan.experiment(name))
    return graph_of(plan, name, generation).is_pool if text.is_graph else text.dealt


def is_mixed(plan: Plan, name: str, generation: int, member: int) -> bool:
    """Return whether a job mixes a child's text from several writers."""
    return not is_dealt(plan, name, generation) and len(shares(plan, name, generation, member)) > 1
