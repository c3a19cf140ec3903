"""Draw study B's figures, each composed of panels.

pollination/plan/config/targets.py lists the panels of a figure. Each row of the CSV names its
panel.
"""

from pathlib import Path
from string import ascii_lowercase

import numpy as np

from pollination.analysis import trajectories
from pollination.analysis.ecosystems import Optimum
from pollination.analysis.run import Run
from pollination.figures import aggregates, curves, distributions, diversity, style
from pollination.plan.paper import base_texts, players_of, role_of

# a, ..., z, aa, ...
LETTERS = [first + second for first in ["", *ascii_lowercase] for second in ascii_lowercase]


class Panels:
    """Data of a target's panels: its entries {title: {label: replicates}}, each read once."""

    def __init__(self, run: Run, target: str) -> None:
        self.run, self.target, self.entries = run, target, role_of(run.plan, target)
        self.text, self.training = (run.roles[key] for key in ("text", "distribution_text"))
        players = players_of(run.plan, target)
        # Longer experiments are cut to the rounds that all experiments have.
        self.rounds = range(min(run.plan.experiment(name)["generations"] for name in players))
        self._read: dict[tuple, list[trajectories.Ecosystem]] = {}

    def ecosystems_of(self, title: str, text: str | None = None) -> list[trajectories.Ecosystem]:
        """Return the ecosystems of an entry by rising diversity (ties in the config's order)."""
        key = (title, text or self.text)
        if key not in self._read:
            self._read[key] = sorted(
                trajectories.read(self.run, self.entries[title], key[1], self.rounds),
                key=lambda ecosystem: ecosystem.diversity,
            )
        return self._read[key]

    def apart(self) -> "Panels":
        """Return the same entries with each replicate as an ecosystem of its own."""
        self.entries = {
            title: {name: [name] for names in entry.values() for name in names}
            for title, entry in self.entries.items()
        }
        return self

    def optimum(self, title: str) -> Optimum:
        return trajectories.optimum(self.ecosystems_of(title), title)

    def comparable_optima(self) -> dict[str, Optimum]:
        """Return {entry: its optimum on the diversities that all entries have}."""
        found = trajectories.on_common_diversities(*map(self.ecosystems_of, self.entries))
        return {
            title: trajectories.optimum(ecosystems, title)
            for title, ecosystems in zip(self.entries, found, strict=True)
            if ecosystems
        }

    def levels(self) -> list[float]:
        """Return the diversities that all entries have."""
        each = [
            {ecosystem.diversity for ecosystem in self.ecosystems_of(title)}
            for title in self.entries
        ]
        return sorted(set.intersection(*each))


def draw(run: Run, out: Path, target: str, panels: tuple[str, ...]) -> None:
    shared = Panels(run, target)
    drawn = [part for panel in panels for part in PANELS[panel](shared)]
    figure, axes = style.grid(len(drawn), columns=2, width=4.8, height=3.4)
    rows = []
    for letter, axis, (title, paint) in zip(LETTERS, axes, drawn, strict=False):
        axis.set_title(f"{letter}  {title}" if len(drawn) > 1 else title)
        rows += [{"panel": letter, "title": title} | row for row in paint(axis)]
    style.save(figure, rows, out)


def optimum(shared: Panels) -> list:
    """A panel per entry: D_opt(T) over the probability that each D is best."""

    def paint(title, axis):
        best = shared.optimum(title)
        diversity.draw_panel(axis, best)
        return diversity.rows(title, best)

    return [(title, lambda axis, title=title: paint(title, axis)) for title in shared.entries]


def optima(shared: Panels) -> list:
    """One panel: D_opt(T) on the common diversities, a line per entry, drawn slightly apart."""

    def paint(axis):
        rows, found = [], shared.comparable_optima()
        if not found:
            return style.say(
                axis, "The entries have no diversity\nin common: their optima\ncannot be compared."
            )
        for place, (title, optimal) in enumerate(found.items()):
            best = np.array([optimal.diversities[row] for row in optimal.best_T])
            axis.plot(
                np.arange(len(best)) + 1,
                best * 2 ** (0.06 * place),
                ms=5,
                lw=1.3,
                **curves.look(place),
            )
            rows += [row for row in diversity.rows(title, optimal) if row["optimum"]]
        levels = next(iter(found.values())).diversities
        curves.diversity_axis(axis.yaxis, axis.set_yscale, levels)
        axis.set_ylim(levels[0] / 1.3, levels[-1] * 1.5)
        axis.set_xlabel("rounds T, human round included")
        axis.set_ylabel("D_opt")
        axis.xaxis.set_major_locator(style.MaxNLocator(integer=True, min_n_ticks=1))
        axis.legend(handles=curves.keys(list(found)), loc="best", fontsize=7.5)
        return rows

    return [("optimal diversity", paint)]


def aggregated(shared: Panels) -> list:
    """One panel: perplexity aggregated over all rounds against D, a line per entry."""
    return [
        (
            "aggregated perplexity",
            lambda axis: aggregates.draw_panel(
                axis, {title: shared.optimum(title) for title in shared.entries}
            ),
        )
    ]


def on_text(shared: Panels) -> list:
    """A panel per entry: perplexity of each model by the round whose text it trained on.

    The model of round t + 1 trained on the text of round t, so round 0 (human text) has no place.
    """

    def paint(title, axis):
        ecosystems = trajectories.read(
            shared.run, shared.entries[title], shared.text, shared.rounds[1:]
        )
        curves.draw_trajectories(axis, ecosystems)
        axis.set_xlabel("round t of the text")
        labels = [ecosystem.label for ecosystem in ecosystems]
        axis.legend(handles=curves.keys(labels), loc="upper left", fontsize=7.5)
        return [row for ecosystem in ecosystems for row in ecosystem.rows()]

    return [
        (
            f"trained on each round's text, {shared.text}",
            lambda axis, title=title: paint(title, axis),
        )
        for title in shared.entries
    ]


def over_rounds(shared: Panels, text: str | None = None) -> list:
    """A panel per entry: perplexity over rounds, a line per ecosystem with its band."""

    def paint(title, axis):
        ecosystems = shared.ecosystems_of(title, text)
        curves.draw_trajectories(axis, ecosystems)
        distinct = len({ecosystem.diversity for ecosystem in ecosystems}) == len(ecosystems)
        by_diversity = distinct and title in shared.run.roles["ecosystems"]
        labels = [
            f"D = {ecosystem.diversity:.3g}" if by_diversity else ecosystem.label
            for ecosystem in ecosystems
        ]
        axis.legend(handles=curves.keys(labels), loc="upper left", fontsize=7.5)
        return [row for ecosystem in ecosystems for row in ecosystem.rows()]

    return [
        (f"{title}, {text or shared.text}", lambda axis, title=title: paint(title, axis))
        for title in shared.entries
    ]


def at_level(shared: Panels, choose) -> list:
    """A panel per chosen diversity of all entries: perplexity over rounds, a line per entry."""

    def paint(level, axis):
        chosen = {
            title: next(
                ecosystem
                for ecosystem in shared.ecosystems_of(title)
                if ecosystem.diversity == level
            )
            for title in shared.entries
        }
        curves.draw_trajectories(axis, list(chosen.values()))
        axis.legend(handles=curves.keys(list(chosen)), loc="upper left", fontsize=7.5)
        return [
            {"entry": title} | row
            for title, ecosystem in chosen.items()
            for row in ecosystem.rows()
        ]

    return [
        (f"D = {level:.3g}, {shared.text}", lambda axis, level=level: paint(level, axis))
        for level in choose(shared.levels())
    ]


def from_base(shared: Panels) -> list:
    """As `over_rounds`, but starting at t = -1, the untouched model."""

    def paint(title, axis):
        corpus, split = shared.text.split("/")
        ecosystems, start = shared.ecosystems_of(title), []
        for ecosystem in ecosystems:
            base = shared.run.base(shared.entries[title][ecosystem.label][0])
            nats, tokens = shared.run.blocks(base, corpus, split)
            token_perplexity = float(np.exp(nats @ tokens / tokens.sum()))
            start.append((float(np.exp(nats).mean()), float(np.exp(nats).std()), token_perplexity))
        curves.draw_trajectories(axis, ecosystems)
        for place, (mu, _, _) in enumerate(start):
            axis.plot(
                [-1, 0], [mu, ecosystems[place].rows()[0]["mu"]], lw=1.5, ms=4, **curves.look(place)
            )
        low, high = axis.get_ylim()
        axis.set_ylim(low, max(high, 1.35 * max(mu for mu, _, _ in start)))
        axis.set_xlim(-1.6, ecosystems[0].rounds - 0.4)
        labels = [f"D = {ecosystem.diversity:.3g}" for ecosystem in ecosystems]
        axis.legend(handles=curves.keys(labels), loc="upper left", fontsize=7.5)
        first = [
            {
                "experiment": ecosystem.label,
                "diversity": ecosystem.diversity,
                "models": 1,
                "replicates": 1,
                "t": -1,
                "mu": mu,
                "sd": sd,
                "token_perplexity": token,
            }
            for ecosystem, (mu, sd, token) in zip(ecosystems, start, strict=True)
        ]
        return first + [row for ecosystem in ecosystems for row in ecosystem.rows()]

    return [
        (f"{title}, {shared.text}", lambda axis, title=title: paint(title, axis))
        for title in shared.entries
    ]


def runs(shared: Panels) -> list:
    """A panel per entry: mean and standard deviation of each run, a replicate of an ecosystem.

    The standard deviation is that of the blocks, as in the other figures of trajectories.
    """
    shared = shared.apart()

    def paint(title, axis):
        ecosystems = shared.ecosystems_of(title)
        tables = [ecosystem.rows() for ecosystem in ecosystems]
        mu_RT = np.array([[row["mu"] for row in table] for table in tables])
        mean, many = mu_RT.mean(axis=0), len(mu_RT) > 1
        sd = mu_RT.std(axis=0, ddof=1) if many else np.full(mu_RT.shape[1], np.nan)
        curves.draw_trajectories(axis, ecosystems)
        labels = [ecosystem.label for ecosystem in ecosystems]
        axis.legend(handles=curves.keys(labels), loc="upper left", fontsize=7.5)
        over_runs = [
            {"mean_of_runs": m, "sd_of_runs": s, "runs": len(mu_RT)}
            for m, s in zip(mean, sd, strict=True)
        ]
        return [row | over_runs[row["t"]] for table in tables for row in table]

    return [
        (
            f"{title}: {sum(map(len, shared.entries[title].values()))} runs, {shared.text}",
            lambda axis, title=title: paint(title, axis),
        )
        for title in shared.entries
    ]


def distribution(shared: Panels) -> list:
    """Two panels per entry: density of all members' perplexities, first and last measured round."""
    parts = []

    def paint(ecosystems, t, axis):
        labels = [f"D = {ecosystem.diversity:.3g}" for ecosystem in ecosystems]
        axis.legend(handles=curves.keys(labels), loc="upper right", fontsize=7.5)
        return distributions.draw_panel(axis, ecosystems, 0, t)

    for title, entry in shared.entries.items():
        rounds = [
            t
            for t in trajectories.rounds_measured(shared.run, entry, shared.training)
            if t in shared.rounds
        ]
        for t in (rounds[0], rounds[-1]) if rounds else ():
            ecosystems = sorted(
                trajectories.read(shared.run, entry, shared.training, [t]),
                key=lambda ecosystem: ecosystem.diversity,
            )
            parts.append(
                (
                    f"{title}, {shared.training}: round t = {t}",
                    lambda axis, ecosystems=ecosystems, t=t: paint(ecosystems, t, axis),
                )
            )
    if not parts:
        raise ValueError(
            f"figures.distribution_text: {shared.target} has no ecosystem measured on "
            f"{shared.training}; name a text of evaluate.perplexity"
        )
    return parts


def compared(shared: Panels) -> list:
    """One panel: aggregated perplexity of each ecosystem of each entry, with its interval."""

    def paint(axis):
        rows, names = [], []
        for title in shared.entries:
            ecosystems = trajectories.read(
                shared.run, shared.entries[title], shared.text, shared.rounds
            )
            mean = trajectories.optimum(ecosystems, title, by_place=True)
            for place, ecosystem in enumerate(ecosystems):
                low, mu, high = (
                    float(values[place, -1]) for values in (mean.low_DT, mean.mu_DT, mean.high_DT)
                )
                axis.hlines(len(names), low, high, color=curves.look(place)["color"], lw=2)
                axis.plot(mu, len(names), ms=6, **curves.look(place))
                names.append(f"{title.split(' (figure')[0]}: {ecosystem.label}")
                rows.append(
                    {
                        "entry": title,
                        "experiment": ecosystem.label,
                        "diversity": ecosystem.diversity,
                        "T": ecosystem.rounds,
                        "aggregate": mu,
                        "low": low,
                        "high": high,
                        "best_probability": float(mean.probability_DT[place, -1]),
                    }
                )
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set_ylim(len(names) - 0.5, -0.5)
        if max(row["high"] for row in rows) > curves.SPREAD * min(row["low"] for row in rows):
            axis.set_xscale("log")
        axis.set_xlabel("perplexity, mean of all rounds (95 % interval)")
        return rows

    return [("aggregated perplexity by ecosystem", paint)]


def base_on_text(shared: Panels) -> list:
    """One panel: the untouched model's perplexity on the text of each source and round."""

    def paint(axis):
        rows, values = [], {}
        base = shared.run.base(players_of(shared.run.plan, shared.target)[0])
        texts = base_texts(shared.run.plan, shared.target)
        for place, (source, rounds) in enumerate(texts.items()):
            for t, corpus in rounds.items():
                nats, tokens = shared.run.blocks(base, corpus, "train")
                perplexity = np.exp(np.minimum(nats, trajectories.MAX_NATS))
                rows.append(
                    {
                        "source": source,
                        "t": t,
                        "mu": perplexity.mean(),
                        "sd": perplexity.std(),
                        "token_perplexity": np.exp(nats @ tokens / tokens.sum()),
                    }
                )
                values.setdefault(source, []).append(perplexity.mean())
            axis.plot(list(rounds), values[source], ms=4, lw=1.5, **curves.look(place))
        spread = [value for line in values.values() for value in line]
        curves.log_if_wide(axis, spread, spread)
        style.generation_axis(axis, max(row["t"] for row in rows))
        axis.set_xlabel("round t of the text")
        axis.set_ylabel("perplexity of the untouched model")
        labels = [f"text of {source}" for source in values]
        axis.legend(handles=curves.keys(labels), loc="best", fontsize=7.5)
        return rows

    return [("untouched model on each round's text", paint)]


PANELS = {
    "optimum": optimum,
    "optima": optima,
    "aggregates": aggregated,
    "trajectories": over_rounds,
    "trajectories_on_text": on_text,
    "trajectories_on_training": lambda shared: over_rounds(shared, shared.training),
    "levels": lambda shared: at_level(shared, lambda levels: levels),
    "lowest": lambda shared: at_level(shared, lambda levels: levels[:1]),
    "highest": lambda shared: at_level(shared, lambda levels: levels[-1:]),
    "from_base": from_base,
    "runs": runs,
    "distributions": distribution,
    "compared": compared,
    "base_on_text": base_on_text,
}
