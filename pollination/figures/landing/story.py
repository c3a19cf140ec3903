"""Tell the result of a run: the answer in a sentence, its numbers, and the figures that show it.

Everything is read from the CSV files of the run's figures, so the page states no other numbers.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pandas as pd

from pollination.figures.answer import CHOSEN, NO_ANSWER
from pollination.figures.difference import CHANGES, POINTS
from pollination.figures.landing.charts import by_label
from pollination.plan.landing import Shown

MAIN = 3  # figures that answer the question
SOME = 4  # sentences beside a figure
SURE = 0.975  # bootstrap probability that decides, as a two-sided 95 % interval does
ONE_RUN = "{} ran once, so {} intervals cover other test text alone; set replicates."
Read = Callable[[str], pd.DataFrame]  # stem of a figure -> its CSV; empty if it has nothing to show


@dataclass(frozen=True)
class Number:
    """A number of the headline with its interval, in words."""

    value: str
    interval: str
    what: str


@dataclass
class Story:
    """What the top of the page says."""

    headline: str
    note: str = ""
    """What follows the headline, smaller."""
    numbers: list[Number] = field(default_factory=list)
    main: list[str] = field(default_factory=list)
    """Stems of the figures that answer, best first."""
    said: dict[str, list[str]] = field(default_factory=dict)
    """Stem -> sentences beside that figure."""
    only_change: bool = False
    """Whether the answer is the change of the only side."""


def tell(shown: list[Shown], read: Read) -> Story:
    """Return the story of a run: of ecosystems, else populations, else what there is."""
    stems = [one.stem for one in shown if not one.page]
    stories = [story for story in _stories(stems, read) if story]
    stories.sort(key=lambda told: told.only_change)  # a comparison says more than one side
    story = stories[0] if stories else Story(NO_ANSWER)
    for other in stories[1:]:
        for stem, sentences in other.said.items():
            story.said.setdefault(stem, sentences)
        if other.main and other.main[0] not in story.main:
            story.said[other.main[0]] = [other.headline, *story.said.get(other.main[0], [])]
    rest = [one.stem for one in shown if one.topic in ("Outcome", "Text") and not one.page]
    candidates = dict.fromkeys([*story.main, *rest])
    first = re.split(r"(?<=[.)])\s+(?=[A-Z])", story.headline, maxsplit=1)
    story.headline, story.note = first[0], " ".join([*first[1:], story.note]).strip()
    story.main = [stem for stem in candidates if not read(stem).empty][:MAIN]
    return story


def _stories(stems: list[str], read: Read) -> Iterator[Story | None]:
    tellers = {
        "diversity": of_ecosystems,
        "answer": of_populations,
        "comparisons": of_comparisons,
        "sweep_": of_sweep,
        "fingerprint_similarity": of_survey,
        "theory_trajectory": of_theory,
    }
    for start, teller in tellers.items():
        for stem in [stem for stem in stems if stem.startswith(start)][:1]:
            yield teller(stem, read) if not read(stem).empty else None


def span(low: object, high: object, form: str = "{:.3g}") -> str:
    if low == high:
        return f"95 % interval: {signed(form.format(low))} only"
    return f"95 % interval {signed(form.format(low))} to {signed(form.format(high))}"


def signed(said: str) -> str:
    return said.replace("-", "\u2212")


def _once(replicates: pd.Series) -> str:
    """Return a note if experiments have no replicates, so that runs may differ more."""
    if replicates.min() > 1:
        return ""
    who = ("Each experiment", "the") if replicates.max() == 1 else ("Some experiments", "their")
    return ONE_RUN.format(*who)


def of_populations(stem: str, read: Read) -> Story | None:
    """Study A: the population against the single line, or the change of the only side."""
    rows = read(stem).to_dict("records")
    first = next((row for row in rows if row["part"] == "answer"), None)
    chosen = [row for row in rows if row["part"] == "control"]
    lost = [row for row in rows if row["part"] == "lost"]
    rare = [row for row in lost if "least mentioned" in row["measure"]] or lost
    rare.sort(key=lambda row: not _decided(row))
    if not first and not rows:
        return None
    facts = [row for row in lost if "facts known" in row["measure"]]
    excess = [row for row in lost if row not in facts]
    parents = [row for row in chosen if CHOSEN in row["comparison"]]
    heads = [*([first] if first else []), *parents, *rare]
    main = "accuracy" if not first or first["unit"] == POINTS else "perplexity"
    changes = read("difference")
    if not changes.empty and first:
        roles = [name for name, role in CHANGES.items() if role != "champion"]
        changes = changes[(changes.measure == first["measure"]) & changes.comparison.isin(roles)]
    said = {
        stem: [_with_interval(row) for row in chosen],
        main: list(changes.sentence) if len(changes) else [],
        "truth": [_with_interval(row) for row in facts if row in rare],
        "perplexity": [_with_interval(row) for row in excess],
    }
    headline = first["sentence"] if first else _with_interval(rows[0])
    order = [stem, main, "truth", "perplexity", "accuracy", "difference"]
    alone = " minus " not in rows[0]["comparison"]
    return Story(headline, "", [_number(row) for row in heads[:4]], order, said, alone)


def _number(row: dict) -> Number:
    form = "{:+.1f}" if row["unit"] == POINTS else "{:+.3f}"
    unit = "points" if row["unit"] == POINTS else row["unit"]
    what = row["comparison"].replace(" minus ", " \u2212 ")
    return Number(
        f"{signed(form.format(row['mean']))} {unit}",
        span(row["low"], row["high"], form) + _doubt(row),
        f"{row['measure'].removesuffix(', accuracy')}: {what}",
    )


def _doubt(row: dict) -> str:
    if row["variance_between_runs"] == "unknown":
        return " over other questions alone"
    return "" if _decided(row) else ", undecided"


def _decided(row: dict) -> bool:
    return str(row["decided"]) == "True"


def _with_interval(row: dict) -> str:
    number = _number(row)
    interval = number.interval.removesuffix(", undecided")
    return f"{_capital(row['sentence'])} ({number.value}, {interval})."


def _capital(said: str) -> str:
    """Return a sentence with a capital; a name of the run at its start keeps its spelling."""
    words = ("the ", "mean ", "population ", "single ", "champion ")
    return said[:1].upper() + said[1:] if said.startswith(words) else said


def of_ecosystems(stem: str, read: Read) -> Story | None:
    """Study B: the diversity that is best after T rounds."""
    rows = read(stem)
    parts = dict(by_label(rows, "T"))
    label = next(iter(parts))
    mine = parts[label]
    first, last, rounds, rises = _best(mine)
    where = {"first": "in the first round", "last": f"over {rounds} rounds"}
    best = {
        when: f"D = {row.diversity:.3g} {where[when]} ({span(row.optimum_low, row.optimum_high)})"
        for when, row in (("first", first), ("last", last))
    }
    if rounds == 1:
        headline = f"The lowest perplexity has {best['first']}."
    elif rises >= SURE:
        headline = (
            f"The best diversity grows with the number of rounds: {best['first']}, {best['last']}."
        )
    elif rises <= 1 - SURE:
        headline = (
            "The best diversity does not grow with the number of rounds: it is "
            f"{best['first']} and {best['last']}."
        )
    else:
        headline = (
            "This run does not decide whether the best diversity grows with the number of rounds "
            f"(bootstrap probability {rises:.2f}): it is {best['first']} and {best['last']}."
        )
    headline = f"{label}: {headline[:1].lower()}{headline[1:]}" if len(parts) > 1 else headline
    note = _once(mine.replicates)
    end = mine[mine["T"] == rounds].sort_values("diversity")
    heads = [
        Number(f"D = {row.diversity:.3g}", span(row.optimum_low, row.optimum_high), what)
        for row, what in ((first, "best diversity in the first round"),)
    ]
    if rounds > 1:
        over = f"best diversity over {rounds} rounds"
        interval = span(last.optimum_low, last.optimum_high)
        heads.append(Number(f"D = {last.diversity:.3g}", interval, over))
    for row in (end.iloc[0], end.iloc[-1]) if len(end) > 1 else ():
        what = f"mean perplexity over {rounds} rounds, D = {row.diversity:.3g}"
        heads.append(Number(f"{row.mu:.4g}", span(row.low, row.high, "{:.4g}"), what))
    said = {stem: _of_all(parts)}
    trajectories = read("trajectories")
    if not trajectories.empty:
        ends = trajectories[trajectories.label.astype(str) == label]
        ends = ends[ends.t == ends.t.max()].sort_values("mu")
        low, high = ends.iloc[0], ends.iloc[-1]
        said["trajectories"] = [
            (
                f"{label}: in round {low.t} the perplexity is lowest with D = "
                f"{low.diversity:.3g} ({low.mu:.4g}) and highest with D = {high.diversity:.3g} "
                f"({high.mu:.4g})."
            )
        ]
    return Story(headline, note, heads, [stem, "trajectories", "aggregates"], said)


def _best(rows: pd.DataFrame):
    """Return the best row at T = 1 and at the last T, the last T, and P(D_opt rises)."""
    best = rows[rows.optimum.astype(str) == "True"].sort_values("T")
    last = best.iloc[-1]
    return best.iloc[0], last, int(last["T"]), float(last.rises_probability)


def _of_all(parts: dict[str, pd.DataFrame]) -> list[str]:
    """Return how many labels have an optimum that rises, and those that do not."""
    if len(parts) < 2:
        return []
    ends = {label: _best(part) for label, part in parts.items()}
    others = [
        f"{label}: D = {first.diversity:.3g} in the first round, D = {last.diversity:.3g} over "
        f"{rounds} rounds (probability of a rise {rises:.2f})."
        for label, (first, last, rounds, rises) in ends.items()
        if rises < SURE
    ]
    count = len(ends) - len(others)
    return [f"The best diversity rises in {count} of {len(ends)} entries.", *others[:SOME]]


def of_comparisons(stem: str, read: Read) -> Story | None:
    """Ecosystems side by side: the lowest mean perplexity of all rounds."""
    rows = read(stem)
    said, heads = [], []
    for title, part in rows.groupby("title", sort=False):
        ends = part.drop_duplicates("experiment").sort_values("aggregate")
        numbers = [
            f"{row.aggregate:.4g} ({span(row.low, row.high, '{:.4g}')}) for {row.experiment}"
            for row in ends.itertuples()
        ]
        best = ends.iloc[0]
        sure = len(ends) < 2 or best.best_probability >= SURE
        verdict = (
            f"{best.experiment} has the lowest perplexity"
            if sure
            else "this run does not decide which has the lowest perplexity"
        )
        once = f" {_once(ends.replicates)}".rstrip()
        over = f"averaged over {int(best['T'])} rounds"
        said.append(f"{title}: {verdict}, {over}: {', '.join(numbers)}.{once}")
        heads += [
            Number(f"{row.aggregate:.4g}", span(row.low, row.high, "{:.4g}"), f"{row.experiment}")
            for row in ends.itertuples()
        ]
    count = rows[rows.title == rows.title.iloc[0]].experiment.nunique()
    return Story(said[0], "", heads[: min(count, 4)], [stem], {stem: said[1 : SOME + 1]})


def of_sweep(stem: str, read: Read) -> Story | None:
    """The first measure of a sweep, at the values where it is lowest and highest."""
    rows = read(stem)
    keys, measure = list(rows.columns[: list(rows.columns).index("measure")]), rows.measure.iloc[0]
    mine = rows[rows.measure == measure].sort_values("mean", kind="stable")
    low, high = mine.iloc[0], mine.iloc[-1]
    unit = "" if low.unit == "perplexity" else f" {low.unit}"

    def where(one: pd.Series) -> str:
        equal = mine[mine["mean"] == one["mean"]]
        at = [", ".join(f"{key} {row[key]}" for key in keys) for _, row in equal.iterrows()]
        return " and at ".join(at)

    numbers = [
        Number(f"{one['mean']:.4g}{unit}", span(one.low, one.high), f"{measure}, {where(one)}")
        for one in (low, high)
    ]
    ends = [
        f"{number.value} ({number.interval}) at {where(one)}"
        for number, one in zip(numbers, (low, high), strict=True)
    ]
    verdict = "differs" if low.high < high.low else "has no clear difference"
    said = f"lowest, {ends[0]}, and highest, {ends[1]}"
    if low["mean"] == high["mean"]:
        said, numbers = f"the same, {numbers[0].value}, at all", numbers[:1]
    over = f"{len(mine)} values" if len(keys) == 1 else f"{len(mine)} combinations"
    return Story(
        f"Over {over} of {' and '.join(keys)}, {measure} in the last generation {verdict}: it is "
        f"{said}.",
        _once(mine.replicates),
        numbers,
        [stem],
    )


def of_survey(stem: str, read: Read) -> Story | None:
    """Fingerprints: are models of a family more alike than models of different families?"""
    rows = read(stem)
    rows = rows[(rows.kind == "all") & (rows.resampled == "models")].set_index("statistic")
    delta, overlap = rows.loc["cliffs_delta"], rows.loc["overlap_kde"]
    known = not (math.isnan(delta.low) or math.isnan(delta.high))
    numbers = [
        Number(signed(f"{row.value:.3f}"), span(row.low, row.high, "{:.3f}"), what)
        for row, what in (
            (delta, "Cliff's delta, between minus within families"),
            (overlap, "overlap of both densities (OVL)"),
        )
    ]
    size = f"Cliff's delta is {numbers[0].value} ({numbers[0].interval})"
    if known and delta.high < 0:
        said = f"Models of one family are more alike than models of different families: {size}."
    elif known and delta.low > 0:
        said = f"Models of one family are less alike than models of different families: {size}."
    else:
        said = f"This survey does not decide whether families differ in their fingerprints: {size}."
    survey = stem.partition(".")[2]
    main = [stem, f"fingerprint_families.{survey}", f"fingerprint_influence.{survey}"]
    return Story(said, "", numbers, main)


def of_theory(stem: str, read: Read) -> Story | None:
    """The Gaussian recursion: the standard deviation that is left."""
    rows = read(stem)
    rows = rows[(rows.quantity == "sd") & (rows.generation == rows.generation.max())]
    ends = {row.role: row for row in rows.itertuples()}
    alone, chosen = ends["baseline"], ends["evolution"]
    of = {
        role: f"{row.median:.3g} (5 to 95 % of the runs: {row.q05:.3g} to {row.q95:.3g})"
        for role, row in ends.items()
    }
    said = (
        f"After {alone.generation:,} generations, a Gaussian that a single estimator fits again "
        f"and again keeps a standard deviation of {of['baseline']}; with the best of K estimators "
        f"it keeps {of['evolution']}."
    )
    numbers = [
        Number(f"{row.median:.3g}", f"5 to 95 % of the runs: {row.q05:.3g} to {row.q95:.3g}", what)
        for row, what in ((alone, "sd, single estimator"), (chosen, "sd, best of K estimators"))
    ]
    return Story(said, "", numbers, [stem, "theory_runs", "theory_bound"])
