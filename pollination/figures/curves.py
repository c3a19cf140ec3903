"""What the figures on ecosystems read and share: perplexity of every block by experiment, and lines over rounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.lines import Line2D

from pollination import ecosystems
from pollination.figures import style
from pollination.figures.data import Run
from pollination.seeds import derive_seed

MOST_NATS = 600.0  # of a block's mean loss: its exponential, and the square of a mean of such, is still a number
LOOKS = list(zip((style.GREEN, style.ORANGE, style.BLUE, style.VERMILLION, style.PURPLE, style.SKY, style.BLACK), "os^Dv<>", strict=True))
SPREAD = 8.0  # a logarithmic axis where the largest value is more than so many times the smallest


@dataclass
class Ecosystem:
    """One experiment with its replicates. `losses`: replicate -> member -> (mean nats of each block (T, B), tokens (B,))."""

    label: str
    diversity: float
    losses: list[list[tuple[np.ndarray, np.ndarray]]]

    @cached_property
    def perplexity(self) -> list[list[np.ndarray]]:
        """Replicate -> member -> perplexity of each block (T, B)."""
        return [[np.exp(np.minimum(nats_TB, MOST_NATS / 2)) for nats_TB, _ in members] for members in self.losses]

    @property
    def models(self) -> int:
        return len(self.losses[0])

    @property
    def rounds(self) -> int:
        return self.losses[0][0][0].shape[0]

    def rows(self) -> list[dict]:
        """A row a round: t, mu (study B, equation 3), sd (over models and blocks), token_perplexity (exp of the mean over tokens)."""
        mu, sd = ecosystems.trajectory(self.perplexity)
        members = [member for replicate in self.losses for member in replicate]
        token = np.mean([np.exp(np.minimum(nats_TB @ tokens_B / tokens_B.sum(), MOST_NATS)) for nats_TB, tokens_B in members], axis=0)
        shared = {"experiment": self.label, "diversity": self.diversity, "models": self.models, "replicates": len(self.losses)}
        return [shared | {"t": t, "mu": mu[t], "sd": sd[t], "token_perplexity": token[t]} for t in range(len(mu))]


def _parts(entry: dict[str, list[str]]) -> dict[str, list[tuple[str, str]]]:
    """Label -> (experiment, member or "") of each replicate."""
    return {label: [(name.split(":")[0], name.partition(":")[2]) for name in names] for label, names in entry.items()}


def rounds_measured(run: Run, entry: dict[str, list[str]], text: str) -> list[int]:
    """The rounds that all ecosystems of an entry have, and in which their first members were measured on a text."""
    names = [name for part in _parts(entry).values() for name, _ in part]
    every = range(min(run.plan.experiment(name)["generations"] for name in names))
    return [t for t in every if all(run.measured(run.plan.member(name, t, 0), *text.split("/")) for name in names)]


def read(run: Run, entry: dict[str, list[str]], text: str, rounds: Sequence[int] | None = None) -> list[Ecosystem]:
    """The ecosystems of one entry of a role (label -> replicates), over `rounds`, by default all that all of them have."""
    parts = _parts(entry)
    if rounds is None:
        rounds = range(min(run.plan.experiment(name)["generations"] for part in parts.values() for name, _ in part))
    corpus, split = text.split("/")

    def member(name: str, m: int) -> tuple[np.ndarray, np.ndarray]:
        tables = [run.blocks(run.plan.member(name, t, m), corpus, split) for t in rounds]
        return np.stack([nats for nats, _ in tables]), tables[0][1]

    found = []
    for label, part in parts.items():
        sizes = [[int(one)] if one else range(run.plan.experiment(name)["population"]) for name, one in part]
        losses = [[member(name, m) for m in members] for (name, _), members in zip(part, sizes, strict=True)]
        found.append(Ecosystem(label, ecosystems.diversity(run.plan.kinds(part[0][0])), losses))
    return found


def optimum(found: list[Ecosystem], title: str, by_place: bool = False) -> ecosystems.Optimum:
    """Rising diversity; `by_place`: the order of the entry stands for it."""
    pairs = [(float(place) if by_place else one.diversity, one.perplexity) for place, one in enumerate(found)]
    return ecosystems.optimum(pairs, derive_seed("ecosystems", title))


def look(place: int) -> dict:
    colour, marker = LOOKS[place % len(LOOKS)]
    return {"color": colour, "marker": marker, "ls": ("-", "--", ":")[place // len(LOOKS) % 3]}


def draw_trajectories(axis: Axes, found: list[Ecosystem]) -> None:
    """mu_t of each ecosystem with its combined standard deviation."""
    tables = [one.rows() for one in found]
    values = np.array([[row["mu"] for row in rows] for rows in tables])
    log = values.max() > SPREAD * values.min()
    if log:
        axis.set_yscale("log")
    margin = 3.0 if log else 1.35
    top = values.max() * margin
    axis.set_ylim(max(1.0, values.min() / margin), top)
    for place, rows in enumerate(tables):
        t, mu, sd = (np.array([row[key] for row in rows]) for key in ("t", "mu", "sd"))
        axis.plot(t, mu, ms=4, lw=1.5, zorder=3, **look(place))
        if (mu + sd <= top).any():
            axis.fill_between(t, np.maximum(mu - sd, 1.0), mu + sd, color=look(place)["color"], alpha=0.12, lw=0)
        else:  # a band that fills the panel says nothing
            axis.text(0.99, 0.02, "deviations beyond the axis: CSV", transform=axis.transAxes, ha="right", fontsize=6, color=style.GREY)
    style.generation_axis(axis, values.shape[1] - 1)
    axis.set_xlabel("round t")
    axis.set_ylabel("perplexity (log scale)" if log else "perplexity")


def log_if_wide(axis: Axes, low, high) -> None:
    if np.max(high) > SPREAD * np.min(low):
        axis.set_yscale("log")


def diversity_axis(axis: XAxis | YAxis, scale: Callable, levels: list[float]) -> None:
    """D on a scale of doublings, its own levels named. `scale`: the axis' set_xscale or set_yscale."""
    scale("log", base=2)
    axis.set_ticks(levels, [f"{level:.3g}" for level in levels])
    axis.set_ticks([], minor=True)


def keys(labels: list[str]) -> list[Line2D]:
    return [Line2D([], [], ms=4.5, label=label, **look(place)) for place, label in enumerate(labels)]
