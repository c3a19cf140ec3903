"""Study B's claims on perplexity over rounds. The unit is the run of an ecosystem; its blocks of test text are shared with all others."""

from collections.abc import Callable

import numpy as np

from pollination import artifacts
from pollination.claims.declared import Claim
from pollination.claims.noise import Draws, Side, draw
from pollination.claims.verdicts import SEARCH, Finding, ends, measure
from pollination.ecosystems import aggregate
from pollination.figures import curves
from pollination.figures.data import Run
from pollination.seeds import derive_seed

RUNS = "figure_b9"  # its labels are independent runs of one model: they lend their variance to ecosystems that ran once


def scale(means: np.ndarray) -> np.ndarray:
    """Mean perplexity (..., T) -> (..., 2 T): log of mu_T for T = 1, 2, ... (study B, equation 4), then log of mu_t."""
    return np.concatenate([np.log(aggregate(means)), np.log(means)], axis=-1)


class Rounds:
    """The ecosystems of an entry, drawn together, because they read the same blocks."""

    def __init__(self, run: Run) -> None:
        self.run, self._donors, self._rounds = run, None, None

    def limit(self, role: dict[str, dict[str, list[str]]]) -> None:
        """Read as many rounds as all ecosystems of a figure have, as the figure does."""
        names = [name.split(":")[0] for entry in role.values() for part in entry.values() for name in part]
        self._rounds = range(min(self.run.plan.experiment(name)["generations"] for name in names))

    def read(self, entry: dict[str, list[str]]) -> list[curves.Ecosystem]:
        found = curves.read(self.run, entry, self.run.roles["text"], self._rounds)
        return sorted(found, key=lambda one: (one.diversity, one.models))

    def donors(self) -> list[curves.Ecosystem]:
        """The independent runs of figure 9, each entry as one ecosystem with replicates."""
        if self._donors is None:
            role, text = self.run.plan.config["claims"]["roles"].get(RUNS) or {}, self.run.roles["text"]
            self._donors = [pooled(title, curves.read(self.run, entry, text)) for title, entry in role.items()]
        return self._donors

    def draws(self, found: list[curves.Ecosystem], title: str) -> Draws:
        rounds = min(one.rounds for one in found)
        sides = [_side(one, f"{place} {one.label}", rounds) for place, one in enumerate(found)]
        lenders = [_side(one, one.label, rounds) for one in self.donors() if one.rounds >= rounds and len(one.losses) > 1]
        return draw(sides, scale, derive_seed("claims", title), lenders)


def pooled(title: str, found: list[curves.Ecosystem]) -> curves.Ecosystem:
    return curves.Ecosystem(title, found[0].diversity, [replicate for one in found for replicate in one.losses])


def _side(one: curves.Ecosystem, label: str, rounds: int) -> Side:
    """Members whose tokenizer cuts the text into as many blocks are one part."""
    parts = []
    for size in dict.fromkeys(member.shape[1] for member in one.perplexity[0]):
        same = [[member[:rounds] for member in members if member.shape[1] == size] for members in one.perplexity]
        parts.append((len(same[0]) / one.models, np.stack([np.mean(members, axis=0) for members in same])))
    return Side(label, one.models, parts)


def best(draws: np.ndarray, diversities: np.ndarray, column: int) -> np.ndarray:
    """(S,): log2 of D_opt, from draws (S, n, K)."""
    return np.log2(diversities)[draws[:, :, column].argmin(axis=1)]


def runner_up(drawn: Draws, column: int) -> Callable[[np.ndarray], np.ndarray]:
    """The lead of the best ecosystem over the second."""
    first, second = drawn.point[:, column].argsort()[:2]
    return lambda x: x[:, second, column] - x[:, first, column]


def halves(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """(S,): the lower half of one distribution and the upper half of another, for an interval whose two ends answer for different things."""
    middle = len(lower) // 2
    return np.concatenate([np.sort(lower)[:middle], np.sort(upper)[middle:]])


def _ladder(found: list[curves.Ecosystem]) -> np.ndarray:
    return np.array([one.diversity for one in found])


def _graded(rounds: Rounds, role: dict) -> dict[str, list[curves.Ecosystem]]:
    """The entries with more than one diversity."""
    entries = {title: rounds.read(entry) for title, entry in role.items()}
    return {title: found for title, found in entries.items() if found[0].diversity < found[-1].diversity}


NOT_GRADED = "no entry has ecosystems of different diversity"


def _each(rounds: Rounds, role: dict, test: Callable) -> list[Finding] | str:
    graded = _graded(rounds, role)
    return [test(title, found, rounds.draws(found, title)) for title, found in graded.items()] or NOT_GRADED


def single_collapses(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    found = []
    for title, entry in role.items():
        one = pooled(title, rounds.read(entry))
        if one.rounds > 1:
            last = one.rounds - 1
            found.append(measure(rounds.draws([one], title), lambda x, T=last: x[:, 0, -1] - x[:, 0, T + 1], title, [2 * last + 1]))
    return found or "there is one round only"


def single_best_at_first(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    """All others must be worse, so its lead over the closest speaks. To show it, each other is held to its own interval (an
    intersection-union test: no correction); to refute it any other will do, so the upper end allows for the greatest error of all."""

    def test(title: str, found: list, drawn: Draws) -> Finding:
        x = drawn.questions if drawn.full is None else drawn.full
        lead = drawn.point[1:, 0] - drawn.point[0, 0]
        who = min(range(len(lead)), key=lambda row: ends(x[:, row + 1, 0] - x[:, 0, 0])[0])

        def least(x: np.ndarray) -> np.ndarray:
            error = x[:, 1:, 0] - x[:, :1, 0] - lead
            return lead[who] + halves(error[:, who], error.max(axis=1))

        return measure(drawn, least, title, [0], level=SEARCH, note=f"the closest is D = {found[who + 1].diversity:g}")

    return _each(rounds, role, test)


def single_not_best_later(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    """Any other may be better, so the best of them is taken with an interval that holds for all at once: the greatest lead less the
    greatest error of any. To refute it none may be better: the upper end is the best one's own."""

    def test(title: str, found: list, drawn: Draws) -> Finding:
        column = drawn.point.shape[1] // 2 - 1
        lead = drawn.point[0, column] - drawn.point[1:, column]
        who = int(lead.argmax())

        def greatest(x: np.ndarray) -> np.ndarray:
            error = x[:, :1, column] - x[:, 1:, column] - lead
            return lead[who] + halves(error.min(axis=1), error[:, who])

        return measure(drawn, greatest, title, [column], level=SEARCH, note=f"D = {found[who + 1].diversity:g} is the best of the others")

    return _each(rounds, role, test)


def optimum_grows(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    return _each(rounds, role, lambda *one: _grows(*one, lambda T: 0))


def optimum_still_grows(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    return _each(rounds, role, lambda *one: _grows(*one, lambda T: T // 2 - 1 if T > 1 else 0))


def _grows(title: str, found: list, drawn: Draws, start: Callable[[int], int]) -> Finding:
    ladder, last = _ladder(found), drawn.point.shape[1] // 2 - 1
    first = start(last + 1)
    note = f"D_opt {2 ** best(drawn.point[None], ladder, first)[0]:g} at T = {first + 1}, {2 ** best(drawn.point[None], ladder, last)[0]:g} at T = {last + 1}"
    change = lambda x: best(x, ladder, last) - best(x, ladder, first)  # noqa: E731
    return measure(drawn, change, title, [first, last], discrete=True, note=note, gap=runner_up(drawn, last))


def optimum_monotone(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    def test(title: str, found: list, drawn: Draws) -> Finding:
        ladder, last = _ladder(found), drawn.point.shape[1] // 2 - 1

        def fall(x: np.ndarray) -> np.ndarray:
            path = np.log2(ladder)[x[:, :, : last + 1].argmin(axis=1)]  # (S, T)
            return (path - np.maximum.accumulate(path, axis=1)).min(axis=1)

        return measure(drawn, fall, title, slice(0, last + 1), discrete=True, gap=runner_up(drawn, last))

    return _each(rounds, role, test)


def _between(rounds: Rounds, reference: tuple, other: tuple, statistic: Callable, at: Callable, discrete: bool) -> Finding:
    """Two entries drawn together: `statistic` of each, other minus reference. `at`: the columns used, of T rounds."""
    (title, ours), (name, others) = reference, other
    common = {one.diversity for one in ours} & {one.diversity for one in others}  # D_opt of two ladders compares on their common steps
    ours, others = ([one for one in entry if one.diversity in common] for entry in (ours, others))
    drawn, n = rounds.draws([*ours, *others], f"{title} {name}"), len(ours)
    columns = at(drawn.point.shape[1] // 2)
    difference = lambda x: statistic(x[:, n:], _ladder(others)) - statistic(x[:, :n], _ladder(ours))  # noqa: E731
    gap = (lambda x: runner_up_of(x[:, n:], drawn.point[n:], columns[-1])) if discrete else None
    return measure(drawn, difference, f"{name} against {title}", columns, discrete=discrete, gap=gap)


def runner_up_of(x: np.ndarray, point: np.ndarray, column: int) -> np.ndarray:
    first, second = point[:, column].argsort()[:2]
    return x[:, second, column] - x[:, first, column]


def _last_optimum(x: np.ndarray, ladder: np.ndarray) -> np.ndarray:
    return best(x, ladder, x.shape[2] // 2 - 1)


def _last_only(T: int) -> list[int]:
    return [T - 1]


def _sizes(rounds: Rounds, role: dict) -> list[tuple[tuple, tuple]]:
    """Pairs of entries (smaller model, larger model) that share the amount of human text."""
    plan, graded = rounds.run.plan, _graded(rounds, role)
    first = {title: next(iter(role[title].values()))[0].split(":")[0] for title in graded}
    blueprints = {title: plan.blueprint(plan.place(name, 0), 0) for title, name in first.items()}
    if len(set(blueprints.values())) < 2:
        return []
    sizes = {title: _parameters(artifacts.read_json(f"{folder}/config.json")) for title, folder in blueprints.items()}
    facts = {title: (sizes[title], plan.config["claims"]["settings"][name]["founder_tokens"]) for title, name in first.items()}
    titles = sorted(graded, key=lambda title: facts[title][0])
    pairs = [(a, b) for i, a in enumerate(titles) for b in titles[i + 1 :] if facts[a][0] < facts[b][0] and facts[a][1] == facts[b][1]]
    return [((a, graded[a]), (b, graded[b])) for a, b in pairs]


def _parameters(settings: dict) -> float:
    """Of a transformer's blocks, up to a factor: layers times width squared."""
    width, layers = (
        next(settings[key] for key in keys if key in settings) for keys in (("hidden_size", "n_embd"), ("num_hidden_layers", "n_layer"))
    )
    return layers * width**2


def larger_models_raise(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    found = [_between(rounds, *pair, _last_optimum, _last_only, discrete=True) for pair in _sizes(rounds, role)]
    return found or "no two entries differ in the size of the model alone"


def larger_models_collapse(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    rise = lambda x, ladder: x[:, 0, -1] - x[:, 0, x.shape[2] // 2]  # noqa: E731
    found = [_between(rounds, *pair, rise, lambda T: [2 * T - 1], discrete=False) for pair in _sizes(rounds, role)]
    return found or "no two entries differ in the size of the model alone"


def _against_reference(rounds: Rounds, role: dict, setting: Callable[[str], float], what: str) -> list[tuple[tuple, tuple]] | str:
    """(the entry where the setting is lowest, another) for each other."""
    graded = _graded(rounds, role)
    value = {title: setting(next(iter(role[title].values()))[0].split(":")[0]) for title in graded}
    titles = sorted(graded, key=value.get)
    pairs = [((titles[0], graded[titles[0]]), (other, graded[other])) for other in titles[1:] if value[other] > value[titles[0]]]
    return pairs or f"no two entries differ in {what}"


def human_text_little(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    pairs = _against_reference(rounds, role, _human(run), "human.fraction")
    return pairs if isinstance(pairs, str) else [_between(rounds, *p, _last_optimum, _last_only, discrete=True) for p in pairs]


def human_text_helps(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    pairs = _against_reference(rounds, role, _human(run), "human.fraction")
    gain = lambda x, ladder: -x[:, 0, x.shape[2] // 2 - 1]  # noqa: E731
    return pairs if isinstance(pairs, str) else [_between(rounds, *p, gain, _last_only, discrete=False) for p in pairs]


def temperature_little(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    setting = lambda name: run.plan.config["claims"]["settings"][name]["temperature"]  # noqa: E731
    pairs = _against_reference(rounds, role, setting, "generate.temperature")
    return pairs if isinstance(pairs, str) else [_between(rounds, *p, _last_optimum, _last_only, discrete=True) for p in pairs]


def _human(run: Run) -> Callable[[str], float]:
    return lambda name: run.plan.experiment(name)["human"]["fraction"]


def diverse_better(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    column = lambda drawn: drawn.point.shape[1] // 2 - 1  # noqa: E731
    return _each(rounds, role, lambda title, found, drawn: _first_minus_last(title, drawn, column(drawn)))


def diverse_from_start(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    return _each(rounds, role, lambda title, found, drawn: _first_minus_last(title, drawn, 0))


def _first_minus_last(title: str, drawn: Draws, column: int) -> Finding:
    return measure(drawn, lambda x: x[:, 0, column] - x[:, -1, column], title, [column])


def twins_no_help(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    found = []
    for title, entry in role.items():
        few = rounds.read(entry)
        if few[0].models < few[-1].models:
            drawn = rounds.draws([few[0], few[-1]], title)
            found.append(_first_minus_last(title, drawn, drawn.point.shape[1] // 2 - 1))
    return found or "no entry has ecosystems of different numbers of models"


def own_text_collapses(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    found = []
    for title, entry in role.items():
        again = {label: run.plan.experiment(names[0].split(":")[0])["text"] == "human" for label, names in entry.items()}
        if set(again.values()) != {True, False}:
            continue
        own, human = (next(label for label in entry if again[label] is kind) for kind in (False, True))
        both = {one.label: one for one in rounds.read(entry)}
        drawn = rounds.draws([both[own], both[human]], title)
        last = drawn.point.shape[1] - 1
        found.append(measure(drawn, lambda x, last=last: x[:, 0, last] - x[:, 1, last], title, [last]))
    return found or "no entry has one that reads human text again beside one that reads its own"
