"""Study B's claims on perplexity over rounds.

The unit is the run of an ecosystem; its blocks of test text are shared with all others.
"""

from collections.abc import Callable

import numpy as np

from pollination.analysis import trajectories
from pollination.analysis.claims.noise import Draws, Side, draw
from pollination.analysis.claims.verdicts import SEARCH, Finding, ends, measure
from pollination.analysis.ecosystems import aggregate
from pollination.analysis.run import Run
from pollination.core import artifacts
from pollination.core.seeds import derive_seed
from pollination.plan import layout
from pollination.plan.claims import Claim
from pollination.plan.layout import place_of
from pollination.plan.operators import text_of

# independent runs of one model, which lend their variance to ecosystems without replicates
RUNS = "figure_b9"
# targets whose claims test comparisons by name
COMPARED = ("figure_b16", "figure_b17", "figure_b20", "figure_b21")


def scale(means: np.ndarray) -> np.ndarray:
    """Map mean perplexity (..., T) to (..., 2 T): log mu_T (study B, equation 4), then log mu_t."""
    return np.concatenate([np.log(aggregate(means)), np.log(means)], axis=-1)


class Rounds:
    """The ecosystems of an entry, drawn together, because they read the same blocks."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._donors: list[trajectories.Ecosystem] | None = None
        self._rounds: range | None = None

    def limit(self, role: dict[str, dict[str, list[str]]]) -> None:
        """Limit the rounds to those that all ecosystems of a figure have, as the figure does."""
        names = [
            name.split(":")[0]
            for entry in role.values()
            for part in entry.values()
            for name in part
        ]
        self._rounds = range(min(self.run.plan.experiment(name)["generations"] for name in names))

    def read(self, entry: dict[str, list[str]]) -> list[trajectories.Ecosystem]:
        ecosystems = trajectories.read(self.run, entry, self.run.roles["text"], self._rounds)
        return sorted(ecosystems, key=lambda ecosystem: (ecosystem.diversity, ecosystem.models))

    def donors(self) -> list[trajectories.Ecosystem]:
        """Return the independent runs of figure 9, each entry as one ecosystem with replicates."""
        if self._donors is None:
            role = self.run.plan.config["claims"]["roles"].get(RUNS) or {}
            text = self.run.roles["text"]
            self._donors = [
                pooled(title, trajectories.read(self.run, entry, text))
                for title, entry in role.items()
            ]
        return self._donors

    def draws(self, ecosystems: list[trajectories.Ecosystem], title: str) -> Draws:
        rounds = min(ecosystem.rounds for ecosystem in ecosystems)
        sides = [
            _side(ecosystem, f"{place} {ecosystem.label}", rounds)
            for place, ecosystem in enumerate(ecosystems)
        ]
        lenders = [
            _side(donor, donor.label, rounds)
            for donor in self.donors()
            if donor.rounds >= rounds and len(donor.losses) > 1
        ]
        return draw(sides, scale, derive_seed("claims", title), lenders)


def pooled(title: str, ecosystems: list[trajectories.Ecosystem]) -> trajectories.Ecosystem:
    losses = [replicate for ecosystem in ecosystems for replicate in ecosystem.losses]
    first = ecosystems[0]
    return trajectories.Ecosystem(title, first.diversity, losses, first.corpora, first.size)


def _side(ecosystem: trajectories.Ecosystem, label: str, rounds: int) -> Side:
    """Return a side; members that read the same blocks of one test corpus form one part.

    The weights are those of `ecosystems.mean_of_corpora`. Tokenizers cut a text into different
    numbers of blocks.
    """
    first = ecosystem.perplexity[0]
    corpora, parts = ecosystem.corpora or ("",) * len(first), []
    for corpus in dict.fromkeys(corpora):
        places = [place for place, name in enumerate(corpora) if name == corpus]
        for size in dict.fromkeys(first[place].shape[1] for place in places):
            same = [place for place in places if first[place].shape[1] == size]
            means = np.stack(
                [
                    np.mean([members[place][:rounds] for place in same], axis=0)
                    for members in ecosystem.perplexity
                ]
            )
            parts.append((len(same) / len(places) / len(set(corpora)), means))
    return Side(label, ecosystem.models, parts)


def best(draws: np.ndarray, diversities: np.ndarray, column: int) -> np.ndarray:
    """Return (S,): log2 of D_opt, from draws (S, n, K)."""
    return np.log2(diversities)[draws[:, :, column].argmin(axis=1)]


def lead(x: np.ndarray, point: np.ndarray, column: int) -> np.ndarray:
    """Return (S,): second best ecosystem at `point` minus the best, for draws x."""
    first, second = point[:, column].argsort()[:2]
    return x[:, second, column] - x[:, first, column]


def halves(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return (S,): the lower half of `lower` and the upper half of `upper`.

    The two ends of an interval may answer different questions.
    """
    middle = len(lower) // 2
    return np.concatenate([np.sort(lower)[:middle], np.sort(upper)[middle:]])


def _ladder(ecosystems: list[trajectories.Ecosystem]) -> np.ndarray:
    return np.array([ecosystem.diversity for ecosystem in ecosystems])


def _last(drawn: Draws) -> int:
    """Return the column of mu_T over all rounds."""
    return drawn.point.shape[1] // 2 - 1


def _graded(rounds: Rounds, role: dict) -> dict[str, list[trajectories.Ecosystem]]:
    """Return the entries with more than one diversity."""
    entries = {title: rounds.read(entry) for title, entry in role.items()}
    return {
        title: ecosystems
        for title, ecosystems in entries.items()
        if ecosystems[0].diversity < ecosystems[-1].diversity
    }


NOT_GRADED = "no entry has ecosystems of different diversity"


def _each(rounds: Rounds, role: dict, test: Callable) -> list[Finding] | str:
    graded = _graded(rounds, role)
    return [
        test(title, ecosystems, rounds.draws(ecosystems, title))
        for title, ecosystems in graded.items()
    ] or NOT_GRADED


def single_collapses(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    findings = []
    for title, entry in role.items():
        single = pooled(title, rounds.read(entry))
        if single.rounds > 1:
            drawn, last = rounds.draws([single], title), 2 * single.rounds - 1
            findings.append(measure(drawn, _rise, title, [last]))
    return findings or "the ecosystems have only one round"


def single_best_at_first(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    """Test the single model's lead over the closest of the others; all others must be worse.

    To support the claim, each other ecosystem has its own interval (an intersection-union test
    without correction). To contradict it, one better ecosystem suffices, so the upper end allows
    for the largest error of all.
    """

    def test(title: str, ecosystems: list, drawn: Draws) -> Finding:
        x = drawn.questions if drawn.full is None else drawn.full
        leads = drawn.point[1:, 0] - drawn.point[0, 0]
        closest = min(range(len(leads)), key=lambda row: ends(x[:, row + 1, 0] - x[:, 0, 0])[0])

        def least(x: np.ndarray) -> np.ndarray:
            error = x[:, 1:, 0] - x[:, :1, 0] - leads
            return leads[closest] + halves(error[:, closest], error.max(axis=1))

        note = f"D = {ecosystems[closest + 1].diversity:g} is the closest"
        return measure(drawn, least, title, [0], level=SEARCH, note=note)

    return _each(rounds, role, test)


def single_not_best_later(
    claim: Claim, run: Run, role: dict, rounds: Rounds
) -> list[Finding] | str:
    """Test the lead of the best of the others over the single model.

    To support the claim, one better ecosystem suffices, so the lower end is the largest lead minus
    the largest error of all. To contradict it, none may be better, so the upper end is that of the
    best one alone.
    """

    def test(title: str, ecosystems: list, drawn: Draws) -> Finding:
        column = _last(drawn)
        leads = drawn.point[0, column] - drawn.point[1:, column]
        winner = int(leads.argmax())

        def greatest(x: np.ndarray) -> np.ndarray:
            error = x[:, :1, column] - x[:, 1:, column] - leads
            return leads[winner] + halves(error.min(axis=1), error[:, winner])

        note = f"D = {ecosystems[winner + 1].diversity:g} is the best of the others"
        return measure(drawn, greatest, title, [column], level=SEARCH, note=note)

    return _each(rounds, role, test)


def optimum_grows(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    def test(title: str, ecosystems: list, drawn: Draws) -> Finding:
        return _grows(title, ecosystems, drawn, lambda T: 0)

    return _each(rounds, role, test)


def optimum_still_grows(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    def test(title: str, ecosystems: list, drawn: Draws) -> Finding:
        return _grows(title, ecosystems, drawn, lambda T: T // 2 - 1 if T > 1 else 0)

    return _each(rounds, role, test)


def _grows(title: str, ecosystems: list, drawn: Draws, start: Callable[[int], int]) -> Finding:
    ladder, last = _ladder(ecosystems), _last(drawn)
    first = start(last + 1)
    note = (
        f"D_opt {2 ** best(drawn.point[None], ladder, first)[0]:g} at T = {first + 1}, "
        f"{2 ** best(drawn.point[None], ladder, last)[0]:g} at T = {last + 1}"
    )

    def change(x: np.ndarray) -> np.ndarray:
        return best(x, ladder, last) - best(x, ladder, first)

    def gap(x: np.ndarray) -> np.ndarray:
        return lead(x, drawn.point, last)

    return measure(drawn, change, title, [first, last], discrete=True, note=note, gap=gap)


def optimum_monotone(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    def test(title: str, ecosystems: list, drawn: Draws) -> Finding:
        ladder, last = _ladder(ecosystems), _last(drawn)

        def fall(x: np.ndarray) -> np.ndarray:
            path = np.log2(ladder)[x[:, :, : last + 1].argmin(axis=1)]  # (S, T)
            return (path - np.maximum.accumulate(path, axis=1)).min(axis=1)

        def gap(x: np.ndarray) -> np.ndarray:
            return lead(x, drawn.point, last)

        return measure(drawn, fall, title, slice(0, last + 1), discrete=True, gap=gap)

    return _each(rounds, role, test)


def _between(
    rounds: Rounds,
    reference: tuple,
    compared: tuple,
    statistic: Callable,
    at: Callable,
    discrete: bool,
) -> Finding:
    """Test `statistic` of the entry `compared` minus that of `reference`, drawn together.

    `at`: the columns used, of T rounds.
    """
    (title, lower), (name, upper) = reference, compared
    lower, upper = trajectories.on_common_diversities(lower, upper)
    drawn, n = rounds.draws([*lower, *upper], f"{title} {name}"), len(lower)
    columns = at(drawn.point.shape[1] // 2)

    def difference(x: np.ndarray) -> np.ndarray:
        return statistic(x[:, n:], _ladder(upper)) - statistic(x[:, :n], _ladder(lower))

    def lead_of_best(x: np.ndarray) -> np.ndarray:
        return lead(x[:, n:], drawn.point[n:], columns[-1])

    instance, gap = f"{name} against {title}", lead_of_best if discrete else None
    return measure(drawn, difference, instance, columns, discrete=discrete, gap=gap)


def _compare(
    rounds: Rounds,
    pairs: list[tuple[tuple, tuple]],
    statistic: Callable,
    at: Callable,
    discrete: bool,
) -> list[Finding] | str:
    """Test each pair of entries; a difference of D_opt needs two common diversities."""
    findings = [
        _between(rounds, *pair, statistic, at, discrete)
        for pair in pairs
        if len(trajectories.on_common_diversities(pair[0][1], pair[1][1])[0]) > discrete
    ]
    return findings or "no two entries have enough diversities in common"


def _last_optimum(x: np.ndarray, ladder: np.ndarray) -> np.ndarray:
    return best(x, ladder, x.shape[2] // 2 - 1)


def _rise(x: np.ndarray, *_) -> np.ndarray:
    """Return (S,): log perplexity of the first ecosystem, last round minus first."""
    return x[:, 0, -1] - x[:, 0, x.shape[2] // 2]


def _gain(x: np.ndarray, *_) -> np.ndarray:
    """Return (S,): minus log mu_T of the first ecosystem, over all rounds."""
    return -x[:, 0, x.shape[2] // 2 - 1]


def _last_only(T: int) -> list[int]:
    return [T - 1]


def _sizes(rounds: Rounds, role: dict) -> list[tuple[tuple, tuple]]:
    """Return pairs of entries (smaller model, larger model) with equal amounts of human text."""
    plan, graded = rounds.run.plan, _graded(rounds, role)
    first = {title: next(iter(role[title].values()))[0].split(":")[0] for title in graded}
    blueprints = {
        title: layout.blueprint(plan, place_of(plan, name, 0), 0) for title, name in first.items()
    }
    if len(set(blueprints.values())) < 2:
        return []
    sizes = {
        title: _parameters(artifacts.read_json(f"{folder}/config.json"))
        for title, folder in blueprints.items()
    }
    facts = {
        title: (sizes[title], plan.config["claims"]["settings"][name]["founder_tokens"])
        for title, name in first.items()
    }
    titles = sorted(graded, key=lambda title: facts[title][0])
    pairs = [
        (a, b)
        for i, a in enumerate(titles)
        for b in titles[i + 1 :]
        if facts[a][0] < facts[b][0] and facts[a][1] == facts[b][1]
    ]
    return [((a, graded[a]), (b, graded[b])) for a, b in pairs]


def _parameters(settings: dict) -> float:
    """Return a transformer's block parameters up to a factor: layers times width squared."""
    width, layers = (
        next(settings[key] for key in keys if key in settings)
        for keys in (("hidden_size", "n_embd"), ("num_hidden_layers", "n_layer"))
    )
    return layers * width**2


def larger_models_raise(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    pairs = _sizes(rounds, role)
    if not pairs:
        return "no two entries differ only in the size of the model"
    return _compare(rounds, pairs, _last_optimum, _last_only, discrete=True)


def larger_models_collapse(
    claim: Claim, run: Run, role: dict, rounds: Rounds
) -> list[Finding] | str:
    pairs = _sizes(rounds, role)
    if not pairs:
        return "no two entries differ only in the size of the model"
    return _compare(rounds, pairs, _rise, lambda T: [2 * T - 1], discrete=False)


def _against_reference(
    rounds: Rounds, role: dict, setting: Callable[[str], float], what: str
) -> list[tuple[tuple, tuple]] | str:
    """Return (entry with the lowest setting, compared entry) for each entry with a higher one."""
    graded = _graded(rounds, role)
    value = {title: setting(next(iter(role[title].values()))[0].split(":")[0]) for title in graded}
    titles = sorted(graded, key=value.__getitem__)
    pairs = [
        ((titles[0], graded[titles[0]]), (title, graded[title]))
        for title in titles[1:]
        if value[title] > value[titles[0]]
    ]
    return pairs or f"no two entries differ in {what}"


def human_text_little(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    pairs = _against_reference(rounds, role, _human(run), "human.fraction")
    if isinstance(pairs, str):
        return pairs
    return _compare(rounds, pairs, _last_optimum, _last_only, discrete=True)


def human_text_helps(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    pairs = _against_reference(rounds, role, _human(run), "human.fraction")
    if isinstance(pairs, str):
        return pairs
    return _compare(rounds, pairs, _gain, _last_only, discrete=False)


def temperature_little(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    def temperature(name: str) -> float:
        return run.plan.config["claims"]["settings"][name]["temperature"]

    pairs = _against_reference(rounds, role, temperature, "generate.temperature")
    if isinstance(pairs, str):
        return pairs
    return _compare(rounds, pairs, _last_optimum, _last_only, discrete=True)


def _human(run: Run) -> Callable[[str], float]:
    return lambda name: run.plan.experiment(name)["human"]["fraction"]


def diverse_better(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    def test(title: str, ecosystems: list, drawn: Draws) -> Finding:
        return _first_minus_last(title, drawn, _last(drawn))

    return _each(rounds, role, test)


def diverse_from_start(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    return _each(rounds, role, lambda title, _, drawn: _first_minus_last(title, drawn, 0))


def second_better(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    """Test each comparison of two ecosystems that no other claim tests, in the order of its labels.

    The statistic is log mu_T of the first minus that of the second, over all rounds.
    """
    roles = run.plan.config["claims"]["roles"]
    tested = {title for target in COMPARED for title in roles.get(target) or {}}
    findings = []
    for title, entry in role.items():
        if title not in tested and len(entry) == 2:
            by_label = {ecosystem.label: ecosystem for ecosystem in rounds.read(entry)}
            drawn = rounds.draws([by_label[label] for label in entry], title)
            findings.append(_first_minus_last(title, drawn, _last(drawn)))
    return findings or "other claims test all its comparisons, or none has two ecosystems"


def _first_minus_last(title: str, drawn: Draws, column: int) -> Finding:
    return measure(drawn, lambda x: x[:, 0, column] - x[:, -1, column], title, [column])


def twins_no_help(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    findings = []
    for title, entry in role.items():
        ecosystems = rounds.read(entry)
        fewest, most = ecosystems[0], ecosystems[-1]
        if fewest.models < most.models:
            drawn = rounds.draws([fewest, most], title)
            findings.append(_first_minus_last(title, drawn, _last(drawn)))
    return findings or "no entry has ecosystems of different numbers of models"


def own_text_collapses(claim: Claim, run: Run, role: dict, rounds: Rounds) -> list[Finding] | str:
    findings = []
    for title, entry in role.items():
        is_human = {
            label: text_of(run.plan.experiment(names[0].split(":")[0])).is_human
            for label, names in entry.items()
        }
        if set(is_human.values()) != {True, False}:
            continue
        own, human = (
            next(label for label in entry if is_human[label] is kind) for kind in (False, True)
        )
        by_label = {ecosystem.label: ecosystem for ecosystem in rounds.read(entry)}
        drawn = rounds.draws([by_label[own], by_label[human]], title)
        last = drawn.point.shape[1] - 1
        findings.append(measure(drawn, lambda x: x[:, 0, -1] - x[:, 1, -1], title, [last]))
    return findings or "no entry has an ecosystem on human text beside one on its own text"
