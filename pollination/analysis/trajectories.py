"""Perplexity of every block by ecosystem and round, for study B's figures and claims."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pollination.analysis import ecosystems
from pollination.analysis.run import Run
from pollination.core.seeds import derive_seed
from pollination.plan import layout

MAX_NATS = 600.0  # of a block's mean loss: exp(MAX_NATS) and exp(MAX_NATS / 2) ** 2 are finite


@dataclass
class Ecosystem:
    """One experiment and its replicates.

    `losses`: replicate -> member -> (mean nats of each block (T, B), tokens (B,)).
    """

    label: str
    diversity: float
    losses: list[list[tuple[np.ndarray, np.ndarray]]]

    @cached_property
    def perplexity(self) -> list[list[np.ndarray]]:
        """Replicate -> member -> perplexity of each block (T, B)."""
        return [
            [np.exp(np.minimum(nats_TB, MAX_NATS / 2)) for nats_TB, _ in members]
            for members in self.losses
        ]

    @property
    def models(self) -> int:
        return len(self.losses[0])

    @property
    def rounds(self) -> int:
        return self.losses[0][0][0].shape[0]

    def rows(self) -> list[dict]:
        """Return one row per round.

        Columns: t; mu (study B, equation 3); sd (over models and blocks); token_perplexity (exp of
        the mean over tokens).
        """
        mu, sd = ecosystems.trajectory(self.perplexity)
        members = [member for replicate in self.losses for member in replicate]
        token = np.mean(
            [
                np.exp(np.minimum(nats_TB @ tokens_B / tokens_B.sum(), MAX_NATS))
                for nats_TB, tokens_B in members
            ],
            axis=0,
        )
        shared = {
            "experiment": self.label,
            "diversity": self.diversity,
            "models": self.models,
            "replicates": len(self.losses),
        }
        return [
            shared | {"t": t, "mu": mu[t], "sd": sd[t], "token_perplexity": token[t]}
            for t in range(len(mu))
        ]


def _parts(entry: dict[str, list[str]]) -> dict[str, list[tuple[str, str]]]:
    """Label -> (experiment, member or "") of each replicate."""
    return {
        label: [(name.split(":")[0], name.partition(":")[2]) for name in names]
        for label, names in entry.items()
    }


def rounds_measured(run: Run, entry: dict[str, list[str]], text: str) -> list[int]:
    """Return the rounds in which `text` was measured for all ecosystems' first members."""
    names = [name for part in _parts(entry).values() for name, _ in part]

    def measured(name: str, t: int) -> bool:
        return run.measured(layout.member_folder(run.plan, name, t, 0), *text.split("/"))

    return [t for t in _rounds(run, names) if all(measured(name, t) for name in names)]


def _rounds(run: Run, names: list[str]) -> range:
    """Return the rounds that all experiments have."""
    return range(min(run.plan.experiment(name)["generations"] for name in names))


def read(
    run: Run, entry: dict[str, list[str]], text: str, rounds: Sequence[int] | None = None
) -> list[Ecosystem]:
    """Read the ecosystems of one entry of a role (label -> replicates) over `rounds`.

    None: all rounds that they share.
    """
    parts = _parts(entry)
    if rounds is None:
        rounds = _rounds(run, [name for part in parts.values() for name, _ in part])
    corpus, split = text.split("/")

    def member(name: str, m: int) -> tuple[np.ndarray, np.ndarray]:
        tables = [
            run.blocks(layout.member_folder(run.plan, name, t, m), corpus, split) for t in rounds
        ]
        return np.stack([nats for nats, _ in tables]), tables[0][1]

    def members(name: str, slot: str) -> Sequence[int]:
        return [int(slot)] if slot else range(run.plan.experiment(name)["population"])

    entries = []
    for label, part in parts.items():
        losses = [[member(name, m) for m in members(name, slot)] for name, slot in part]
        diversity = ecosystems.diversity(layout.kinds(run.plan, part[0][0]))
        entries.append(Ecosystem(label, diversity, losses))
    return entries


def optimum(entries: list[Ecosystem], title: str, by_place: bool = False) -> ecosystems.Optimum:
    """Find the best diversity; with `by_place`, the order of the entry replaces diversity."""
    pairs = [
        (float(place) if by_place else ecosystem.diversity, ecosystem.perplexity)
        for place, ecosystem in enumerate(entries)
    ]
    return ecosystems.optimum(pairs, derive_seed("ecosystems", title))
