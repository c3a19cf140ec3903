"""Perplexity of every block by ecosystem and round, for study B's figures and claims.

A member that trained on a union of corpora is measured on each of them (`text` own), and an
ecosystem's corpora count equally: one model on two corpora compares with two models, one on each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pollination.analysis import ecosystems, interaction
from pollination.analysis.run import Run
from pollination.core.seeds import derive_seed
from pollination.plan import layout
from pollination.plan.measuring import test_corpora

MAX_NATS = 600.0  # of a block's mean loss: exp(MAX_NATS) and exp(MAX_NATS / 2) ** 2 are finite


@dataclass
class Ecosystem:
    """One experiment and its replicates.

    `losses`: replicate -> member -> (mean nats of each block (T, B), tokens (B,)). A member on
    several test corpora has one entry per corpus.
    """

    label: str
    diversity: float
    losses: list[list[tuple[np.ndarray, np.ndarray]]]
    corpora: tuple[str, ...] = ()
    """The test corpus of each entry of a replicate; empty: one corpus for all."""
    size: int = 0
    """Number of models, if it differs from the number of entries."""

    @cached_property
    def perplexity(self) -> list[list[np.ndarray]]:
        """Replicate -> member -> perplexity of each block (T, B)."""
        return [
            [np.exp(np.minimum(nats_TB, MAX_NATS / 2)) for nats_TB, _ in members]
            for members in self.losses
        ]

    @property
    def models(self) -> int:
        return self.size or len(self.losses[0])

    @property
    def rounds(self) -> int:
        return self.losses[0][0][0].shape[0]

    def rows(self) -> list[dict]:
        """Return one row per round.

        Columns: t; mu (study B, equation 3); sd (over models and blocks); token_perplexity (exp of
        the mean over tokens).
        """
        mu, sd = ecosystems.trajectory(self.perplexity, self.corpora)
        of_members = [
            [
                np.exp(np.minimum(nats_TB @ tokens_B / tokens_B.sum(), MAX_NATS))
                for nats_TB, tokens_B in members
            ]
            for members in self.losses
        ]
        token = np.mean(
            [ecosystems.mean_of_corpora(each, self.corpora) for each in of_members], axis=0
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
    corpus, split = text.split("/")

    def measured(name: str, t: int) -> bool:
        folder = layout.member_folder(run.plan, name, t, 0)
        corpora = test_corpora(run.plan, name, 0, corpus, split)
        return all(run.measured(folder, measured_on, split) for _, measured_on in corpora)

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

    def measured(name: str, m: int, measured_on: str) -> tuple[np.ndarray, np.ndarray]:
        tables = [
            run.blocks(layout.member_folder(run.plan, name, t, m), measured_on, split)
            for t in rounds
        ]
        return np.stack([nats for nats, _ in tables]), tables[0][1]

    def members(name: str, slot: str) -> list[tuple[int, str, str]]:
        """Return (member, its test corpus, the name of this corpus in the scores)."""
        slots = [int(slot)] if slot else range(run.plan.experiment(name)["population"])
        return [(m, *two) for m in slots for two in test_corpora(run.plan, name, m, corpus, split)]

    entries = []
    for label, part in parts.items():
        each = [members(name, slot) for name, slot in part]
        losses = [
            [measured(name, m, measured_on) for m, _, measured_on in found]
            for (name, _), found in zip(part, each, strict=True)
        ]
        on, size = tuple(of for _, of, _ in each[0]), len({m for m, _, _ in each[0]})
        diversity = interaction.diversity(run.plan, part[0][0])
        several = on if len(set(on)) > 1 else ()
        entries.append(Ecosystem(label, diversity, losses, several, size))
    return entries


def on_common_diversities(*entries: list[Ecosystem]) -> list[list[Ecosystem]]:
    """Return the ecosystems of each entry whose diversity all entries have.

    Two values of D_opt compare on one ladder only: another step in between can be the optimum.
    """
    common = set.intersection(*({ecosystem.diversity for ecosystem in e} for e in entries))
    return [[ecosystem for ecosystem in e if ecosystem.diversity in common] for e in entries]


def optimum(entries: list[Ecosystem], title: str, by_place: bool = False) -> ecosystems.Optimum:
    """Find the best diversity; with `by_place`, the order of the entry replaces diversity."""
    pairs = [
        (float(place) if by_place else ecosystem.diversity, ecosystem.perplexity)
        for place, ecosystem in enumerate(entries)
    ]
    corpora = [ecosystem.corpora for ecosystem in entries]
    return ecosystems.optimum(pairs, derive_seed("ecosystems", title), corpora=corpora)
