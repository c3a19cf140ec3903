"""Study B's figures, each composed of panels (pollination/paper.py says which); a row of the CSV says which panel it belongs to."""

from pathlib import Path
from string import ascii_lowercase

import numpy as np

from pollination import ecosystems
from pollination.figures import aggregates, curves, distributions, diversity, style
from pollination.figures.data import Run

LETTERS = [first + second for first in ["", *ascii_lowercase] for second in ascii_lowercase]  # a, ..., z, aa, ...


class Panels:
    """What the panels of one target share: its entries {title: {label: replicates}}, each read once."""

    def __init__(self, run: Run, target: str) -> None:
        self.run, self.target, self.entries = run, target, run.plan.role(target)
        self.text, self.training = (run.roles[key] for key in ("text", "distribution_text"))
        self.rounds = range(min(run.plan.experiment(name)["generations"] for name in run.plan.players(target)))  # a prefix of longer ones
        self._read: dict[tuple, list[curves.Ecosystem]] = {}

    def found(self, title: str, text: str | None = None) -> list[curves.Ecosystem]:
        """The ecosystems of an entry, rising in diversity (of equals, as they are written)."""
        key = (title, text or self.text)
        if key not in self._read:
            self._read[key] = sorted(curves.read(self.run, self.entries[title], key[1], self.rounds), key=lambda one: one.diversity)
        return self._read[key]

    def optimum(self, title: str) -> ecosystems.Optimum:
        return curves.optimum(self.found(title), title)

    def levels(self) -> list[float]:
        """The diversities that all entries have."""
        each = [{one.diversity for one in self.found(title)} for title in self.entries]
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
    """A panel an entry: D_opt(T) on the probability that each D is the best."""

    def paint(title, axis):
        found = shared.optimum(title)
        diversity.draw_panel(axis, found)
        return diversity.rows(title, found)

    return [(title, lambda axis, title=title: paint(title, axis)) for title in shared.entries]


def optima(shared: Panels) -> list:
    """One panel: D_opt(T), a line an entry. Entries lie a little beside each other."""

    def paint(axis):
        rows, levels = [], set()
        for place, title in enumerate(shared.entries):
            found = shared.optimum(title)
            best = np.array([found.diversities[row] for row in found.best_T])
            axis.plot(np.arange(len(best)) + 1, best * 2 ** (0.06 * place), ms=5, lw=1.3, **curves.look(place))
            rows += [row for row in diversity.rows(title, found) if row["optimum"]]
            levels |= set(found.diversities)
        curves.diversity_axis(axis.yaxis, axis.set_yscale, sorted(levels))
        axis.set_xlabel("rounds T, the human one counted")
        axis.set_ylabel("D_opt")
        axis.xaxis.set_major_locator(style.MaxNLocator(integer=True, min_n_ticks=1))
        axis.legend(handles=curves.keys(list(shared.entries)), loc="best", fontsize=7.5)
        return rows

    return [("optimal diversity", paint)]


def aggregated(shared: Panels) -> list:
    """One panel: perplexity aggregated over all rounds against D, a line an entry."""
    return [("aggregated perplexity", lambda axis: aggregates.draw_panel(axis, {title: shared.optimum(title) for title in shared.entries}))]


def trajectories(shared: Panels, text: str | None = None) -> list:
    """A panel an entry: perplexity over rounds, a line an ecosystem with its band."""

    def paint(title, axis):
        found = shared.found(title, text)
        curves.draw_trajectories(axis, found)
        same = len({one.diversity for one in found}) == len(found) and title in shared.run.roles["ecosystems"]
        axis.legend(
            handles=curves.keys([f"D = {one.diversity:.3g}" if same else one.label for one in found]), loc="upper left", fontsize=7.5
        )
        return [row for one in found for row in one.rows()]

    return [(f"{title}, {text or shared.text}", lambda axis, title=title: paint(title, axis)) for title in shared.entries]


def at_level(shared: Panels, choose) -> list:
    """A panel for each chosen diversity that all entries have: perplexity over rounds, a line an entry."""

    def paint(level, axis):
        chosen = {title: next(one for one in shared.found(title) if one.diversity == level) for title in shared.entries}
        curves.draw_trajectories(axis, list(chosen.values()))
        axis.legend(handles=curves.keys(list(chosen)), loc="upper left", fontsize=7.5)
        return [{"entry": title} | row for title, one in chosen.items() for row in one.rows()]

    return [(f"D = {level:.3g}, {shared.text}", lambda axis, level=level: paint(level, axis)) for level in choose(shared.levels())]


def from_base(shared: Panels) -> list:
    """As trajectories, from t = -1 on: the untouched model."""

    def paint(title, axis):
        corpus, split = shared.text.split("/")
        found, start = shared.found(title), []
        for one in found:
            nats, tokens = shared.run.blocks(shared.run.base(shared.entries[title][one.label][0]), corpus, split)
            start.append((float(np.exp(nats).mean()), float(np.exp(nats).std()), float(np.exp(nats @ tokens / tokens.sum()))))
        curves.draw_trajectories(axis, found)
        for place, (mu, _, _) in enumerate(start):
            axis.plot([-1, 0], [mu, found[place].rows()[0]["mu"]], lw=1.5, ms=4, **curves.look(place))
        low, high = axis.get_ylim()
        axis.set_ylim(low, max(high, 1.35 * max(mu for mu, _, _ in start)))
        axis.set_xlim(-1.6, found[0].rounds - 0.4)
        axis.legend(handles=curves.keys([f"D = {one.diversity:.3g}" for one in found]), loc="upper left", fontsize=7.5)
        first = [
            {
                "experiment": one.label,
                "diversity": one.diversity,
                "models": 1,
                "replicates": 1,
                "t": -1,
                "mu": mu,
                "sd": sd,
                "token_perplexity": token,
            }
            for one, (mu, sd, token) in zip(found, start, strict=True)
        ]
        return first + [row for one in found for row in one.rows()]

    return [(f"{title}, {shared.text}", lambda axis, title=title: paint(title, axis)) for title in shared.entries]


def runs(shared: Panels) -> list:
    """A panel an entry: the mean over its ecosystems, taken as independent runs, and their standard deviation."""

    def paint(title, axis):
        mu_RT = np.array([[row["mu"] for row in one.rows()] for one in shared.found(title)])
        mean, sd, t = (
            mu_RT.mean(axis=0),
            mu_RT.std(axis=0, ddof=1) if len(mu_RT) > 1 else np.full(mu_RT.shape[1], np.nan),
            range(mu_RT.shape[1]),
        )
        axis.plot(t, mu_RT.T, color=style.GREY, lw=0.7)
        axis.fill_between(t, mean - sd, mean + sd, color=style.BLUE, alpha=0.2, lw=0)
        axis.plot(t, mean, color=style.BLUE, marker="o", ms=4)
        curves.log_if_wide(axis, mu_RT, mu_RT)
        style.generation_axis(axis, mu_RT.shape[1] - 1)
        axis.set_xlabel("round t")
        axis.set_ylabel("perplexity, mean and sd of runs")
        return [{"t": r, "mean": m, "sd_of_runs": s, "runs": len(mu_RT)} for r, m, s in zip(t, mean, sd, strict=True)]

    return [(f"{title}, {len(shared.entries[title])} runs", lambda axis, title=title: paint(title, axis)) for title in shared.entries]


def distribution(shared: Panels) -> list:
    """Two panels an entry: densities of all members' perplexities, first and last round that was measured."""
    parts = []

    def paint(found, t, axis):
        axis.legend(handles=curves.keys([f"D = {one.diversity:.3g}" for one in found]), loc="upper right", fontsize=7.5)
        return distributions.draw_panel(axis, found, 0, t)

    for title, entry in shared.entries.items():
        rounds = [t for t in curves.rounds_measured(shared.run, entry, shared.training) if t in shared.rounds]
        for t in (rounds[0], rounds[-1]) if rounds else ():
            found = sorted(curves.read(shared.run, entry, shared.training, [t]), key=lambda one: one.diversity)
            parts.append((f"{title}, {shared.training}: round t = {t}", lambda axis, found=found, t=t: paint(found, t, axis)))
    if not parts:
        raise ValueError(
            f"{shared.target}: no ecosystem is measured on {shared.training} (figures.distribution_text); name a text of evaluate.perplexity"
        )
    return parts


def compared(shared: Panels) -> list:
    """One panel: aggregated perplexity of each ecosystem of each entry, with its interval."""

    def paint(axis):
        rows, names = [], []
        for title in shared.entries:
            found = curves.read(shared.run, shared.entries[title], shared.text, shared.rounds)
            mean = curves.optimum(found, title, by_place=True)
            for place, one in enumerate(found):
                low, mu, high = (float(values[place, -1]) for values in (mean.low_DT, mean.mu_DT, mean.high_DT))
                axis.hlines(len(names), low, high, color=curves.look(place)["color"], lw=2)
                axis.plot(mu, len(names), ms=6, **curves.look(place))
                names.append(f"{title.split(' (figure')[0]}: {one.label}")
                ends = {"aggregate": mu, "low": low, "high": high, "best_probability": float(mean.probability_DT[place, -1])}
                rows.append({"entry": title, "experiment": one.label, "diversity": one.diversity, "T": one.rounds} | ends)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set_ylim(len(names) - 0.5, -0.5)
        if max(row["high"] for row in rows) > curves.SPREAD * min(row["low"] for row in rows):
            axis.set_xscale("log")
        axis.set_xlabel("aggregated perplexity, 95 % interval")
        return rows

    return [("more diversity against less", paint)]


def base_on_text(shared: Panels) -> list:
    """One panel: the untouched model's perplexity on what each source wrote in each round."""

    def paint(axis):
        rows, values = [], {}
        for place, (source, rounds) in enumerate(shared.run.plan.base_texts(shared.target).items()):
            for t, corpus in rounds.items():
                nats, tokens = shared.run.blocks(shared.run.base(shared.run.plan.players(shared.target)[0]), corpus, "train")
                perplexity = np.exp(np.minimum(nats, curves.MOST_NATS))
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
        axis.legend(handles=curves.keys([f"text of {source}" for source in values]), loc="best", fontsize=7.5)
        return rows

    return [("the untouched model on each round's text", paint)]


PANELS = {
    "optimum": optimum,
    "optima": optima,
    "aggregates": aggregated,
    "trajectories": trajectories,
    "trajectories_on_training": lambda shared: trajectories(shared, shared.training),
    "levels": lambda shared: at_level(shared, lambda levels: levels),
    "lowest": lambda shared: at_level(shared, lambda levels: levels[:1]),
    "highest": lambda shared: at_level(shared, lambda levels: levels[-1:]),
    "from_base": from_base,
    "runs": runs,
    "distributions": distribution,
    "compared": compared,
    "base_on_text": base_on_text,
}
