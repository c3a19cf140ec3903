"""Selection of parents by accuracy or by a user's own rule."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from pollination.core import artifacts
from pollination.core.questions import read_answers
from pollination.evolution import rules, selection
from pollination.plan.operators import SELECTION

RIGHT = [[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1], [1, 1, 1, 1]]  # answers of each member


@pytest.fixture
def files(tmp_path):
    """(scores, answers) of four members, with one benchmark that selection ignores."""
    scores, answers = [], []
    for slot, right in enumerate(RIGHT):
        tasks = {"quiz": {"accuracy": sum(right) / 4, "stderr": 0.1}}
        scores.append(tmp_path / f"scores{slot}.json")
        artifacts.write_json(scores[-1], {"tasks": tasks, "measures": {"length": 9 - slot}})
        answers.append(tmp_path / f"answers{slot}.parquet")
        rows = [("quiz", n, bool(one)) for n, one in reversed(list(enumerate(right)))]
        rows += [("other", 0, True)]
        artifacts.write_table(answers[-1], pd.DataFrame(rows, columns=["task", "doc_id", "score"]))
    return scores, answers


def test_scores_in_bf16_add_the_noise_of_their_precision(files):
    exact = chosen(files, "truncation")
    assert "precision" not in exact
    for path in files[0][:2]:
        artifacts.write_json(path, artifacts.read_json(path) | {"precision": "bf16"})
    noisy = chosen(files, "truncation")
    sd = (selection.CHANGED_ANSWERS["bf16"] / 4) ** 0.5
    assert noisy["precision"] == {
        "scored_in": ["bf16", "bf16", "fp32", "fp32"],
        "accuracy_sd": [sd, sd, 0.0, 0.0],
    }
    assert noisy["parents"] == exact["parents"] and noisy["accuracies"] == exact["accuracies"]
    assert noisy["confidence"] != exact["confidence"]
    artifacts.write_json(files[0][0], artifacts.read_json(files[0][0]) | {"precision": "fp8"})
    with pytest.raises(ValueError, match="precision 'fp8' is unknown; allowed: fp32, tf32, bf16"):
        chosen(files, "truncation")


def own(tmp_path, body: str) -> str:
    path = tmp_path / "rules.py"
    path.write_text(f"import numpy as np\n\n\ndef choose(members, k, rng):\n    {body}\n")
    return f"{path}:choose"


def chosen(files, rule: str, k: int = 2, rule_seed: int = 0) -> dict:
    return selection.select(*files, "quiz", k, 7, rule, rule_seed)


def test_the_best_by_accuracy_are_chosen_and_ties_go_to_the_lower_slot(files):
    choice = chosen(files, "truncation", k=3)
    assert (choice["parents"], choice["ranking"]) == ([3, 1, 0], [3, 1, 0, 2])
    assert choice["ties"] == {"at_the_cut": [0, 2], "broken_by": "slot number, the lower first"}
    assert 0 < choice["confidence"]["same_set"] < 1
    assert choice == selection.select(*files, "quiz", 3, 7)


def test_an_own_rule_chooses_by_what_it_sees_of_members(files, tmp_path):
    rule = own(tmp_path, "return sorted((m.scores['measures']['length'], m.slot) for m in members)")
    with pytest.raises(ValueError, match="allowed: a list of 2 different slots of 0 to 3"):
        chosen(files, rule)
    shortest = (
        "return [m.slot for m in sorted(members, key=lambda m: m.scores['measures'][%r])][:k]"
    )
    choice = chosen(files, own(tmp_path, shortest % "length"))
    assert (choice["parents"], choice["ranking"]) == ([3, 2], [3, 2, 1, 0])
    assert choice["confidence"] is choice["ties"] is None
    assert choice["accuracies"] == [0.5, 0.75, 0.5, 1.0] and choice["questions"] == 4
    last = "return np.argsort([-int(m.correct[3]) - m.accuracy / 9 for m in members])[:k]"
    assert chosen(files, own(tmp_path, last))["parents"] == [3, 2]
    json.dumps(choice)


def test_an_own_rule_draws_the_same_for_the_same_seed_alone(files, tmp_path):
    rule = own(tmp_path, "return rng.permutation(len(members))[:k]")
    drawn = [tuple(chosen(files, rule, rule_seed=seed)["parents"]) for seed in range(20)]
    assert drawn == [tuple(chosen(files, rule, rule_seed=seed)["parents"]) for seed in range(20)]
    assert len(set(drawn)) > 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return [0, 0]", ["returned [0, 0]"]),
        ("return [0, 1, 1]", ["returned [0, 1, 1]"]),
        ("return [0, 4]", ["returned [0, 4]"]),
        ("return [-1, 0]", ["returned [-1, 0]"]),
        ("return [0.0, 1.0]", ["returned [0.0, 1.0]"]),
        ("return [True, False]", ["returned [True, False]"]),
        ("return '01'", ["returned '01'"]),
        ("return None", ["returned None"]),
        ("return members", ["returned [Member("]),
        ("return members[9]", ["line 5: IndexError", "correct the file"]),
    ],
)
def test_what_cannot_be_used_is_one_line_that_names_the_rule(files, tmp_path, body, words):
    rule = own(tmp_path, body)
    with pytest.raises(ValueError) as caught:
        chosen(files, rule)
    said = str(caught.value)
    assert said.startswith(f"select.rule: {rule}") and "\n" not in said.split("returned")[0]
    assert all(word in said for word in words), said


def test_a_member_without_a_score_is_named(files):
    artifacts.write_json(files[0][2], {"tasks": {}})
    with pytest.raises(ValueError, match="scores2.json: the accuracy on benchmark 'quiz' is None"):
        chosen(files, "truncation")


def test_every_rule_of_the_table_chooses_k_different_members(files):
    read = [read_answers(path, {}, 0) for path in files[1]]
    for path in files[0]:
        texts = {"w/test": {"excess_nats_per_token": 0.1}}
        artifacts.write_json(path, artifacts.read_json(path) | {"perplexity": texts})
    members = selection.read_members(files[0], read, "quiz", {})
    for rule in SELECTION:
        for k in range(1, 5):
            slots = selection.choose(rule, members, k, np.random.default_rng(k))
            assert len(set(slots)) == len(slots) == k and set(slots) <= set(range(4)), rule


def test_random_parents_depend_on_the_seed_and_on_no_score(files):
    drawn = [chosen(files, "random", rule_seed=seed)["parents"] for seed in range(300)]
    assert drawn == [chosen(files, "random", rule_seed=seed)["parents"] for seed in range(300)]
    counts = Counter(slot for parents in drawn for slot in parents)
    assert all(abs(counts[slot] - 150) < 40 for slot in range(4)), counts  # 4.6 sd
    assert chosen(files, "random")["confidence"] is None


def made(*accuracies: tuple[float, ...]) -> list[rules.Member]:
    """Members with these accuracies on the benchmarks a, b, ...; selection is by a."""
    return [
        rules.Member(
            slot,
            0,
            row[0],
            {"tasks": {n: {"accuracy": x} for n, x in zip("abc", row, strict=False)}},
            np.ones(1),
        )
        for slot, row in enumerate(accuracies)
    ]


def frequencies(rule: str, members: list[rules.Member], k: int, place: int) -> np.ndarray:
    """How often a rule chooses each member at a place of its list, of 4,000 seeds."""
    drawn = [
        selection.choose(rule, members, k, np.random.default_rng(seed))[place]
        for seed in range(4000)
    ]
    return np.bincount(drawn, minlength=len(members)) / 4000


def test_a_tournament_of_two_favours_the_better_half(files):
    members = made((0.1,), (0.4,), (0.4,), (0.9,))
    # of the six pairs, the best member wins three; equal members win equally often
    assert np.allclose(
        frequencies("tournament", members, 2, 0), [0, 1 / 4, 1 / 4, 1 / 2], atol=0.03
    )
    # the first winner is out, so three pairs are left
    then = [0, 1 / 2 * 1 / 2 + 1 / 4 * 1 / 3, 1 / 2 * 1 / 2 + 1 / 4 * 1 / 3, 1 / 2 * 2 / 3]
    assert np.allclose(frequencies("tournament", members, 2, 1), then, atol=0.03)


def test_roulette_draws_in_proportion_to_accuracy(files):
    members = made((0.0,), (0.2,), (0.6,), (0.0,))
    assert np.allclose(frequencies("roulette", members, 2, 0), [0, 0.25, 0.75, 0], atol=0.03)
    last = [0.5, 0, 0, 0.5]  # accuracies of 0 come last, each with the same probability
    assert np.allclose(frequencies("roulette", members, 3, 2), last, atol=0.03)
    nobody = made((0.0,), (0.0,), (0.0,))
    assert np.allclose(frequencies("roulette", nobody, 1, 0), [1 / 3] * 3, atol=0.03)


def test_rules_of_all_benchmarks_weigh_them_equally(files):
    members = made((0.9, 0.1, 0.2), (0.8, 0.8, 0.3), (0.1, 0.9, 0.9), (0.1, 0.1, 0.1))
    rng = np.random.default_rng(0)
    # mean ranks 7.5/3, 6/3, 5.5/3 and 11/3
    assert selection.choose("mean_rank", members, 4, rng) == [2, 1, 0, 3]
    # three members are on the first front; the last is behind each of them
    assert selection.choose("pareto", members, 4, rng) == [2, 1, 0, 3]
    ahead = made((0.5, 0.5), (0.4, 0.9), (0.4, 0.8), (0.6, 0.0), (0.3, 0.85))
    assert selection.choose("mean_rank", ahead, 5, rng)[-1] != 2
    # fronts {0, 1, 3} and {2, 4}
    assert set(selection.choose("pareto", ahead, 3, rng)) == {0, 1, 3}
    del members[0].scores["tasks"]["b"]["accuracy"]
    for rule in ("mean_rank", "pareto"):
        with pytest.raises(ValueError, match="the metric of 'b' has no value for each question"):
            selection.choose(rule, members, 1, rng)


def test_the_best_founders_are_chosen_once_and_their_lines_go_on(files):
    def at(generation: int) -> list[int]:
        return selection.select(*files, "quiz", 2, 7, "once", generation=generation)["parents"]

    assert at(0) == chosen(files, "truncation")["parents"] == [3, 1]
    assert at(1) == at(4) == [0, 3]  # children (0, 0) and (1, 1)


def test_the_oracle_takes_the_members_closest_to_the_truth_on_held_out_text(files):
    for slot, path in enumerate(files[0]):
        excess = {"world/test": 0.3 - 0.1 * (slot == 2), "world/train": 0.9 * (slot == 2)}
        texts = {text: {"excess_nats_per_token": x} for text, x in excess.items()}
        texts["other/test"] = {"nll_per_token": 9.0 * (slot == 2)}
        artifacts.write_json(path, artifacts.read_json(path) | {"perplexity": texts})
    assert chosen(files, "oracle")["parents"] == [2, 0]
    artifacts.write_json(files[0][1], artifacts.read_json(files[0][1]) | {"perplexity": {}})
    with pytest.raises(ValueError, match="oracle finds no excess nats of member 1; add"):
        chosen(files, "oracle")


def test_an_own_rule_draws_the_same_from_global_generators_too(files, tmp_path):
    for body in ("return np.random.permutation(4)[:k]", "return random.sample(range(4), k)"):
        rule = own(tmp_path, f"import random; {body}")
        draws = [[chosen(files, rule, rule_seed=s)["parents"] for s in range(6)] for _ in "ab"]
        assert draws[0] == draws[1] and len(set(map(tuple, draws[0]))) > 1


def test_an_own_rule_cannot_change_what_is_recorded(files, tmp_path):
    honest = chosen(files, own(tmp_path, "return [0, 1]"))
    spoilt = "[m.scores['tasks'].clear() for m in members]; members.clear(); return [0, 1]"
    assert chosen(files, own(tmp_path, spoilt)) == honest


@pytest.mark.parametrize("returned", [[True, 2], [np.True_, 2], [0, 0], [0, 1, 2], [0, 4]])
def test_rules_of_the_table_are_held_to_the_same(files, monkeypatch, returned):
    monkeypatch.setattr(rules, "truncation", lambda *_: returned)
    with pytest.raises(ValueError, match="select.rule: truncation returned"):
        chosen(files, "truncation")
    monkeypatch.setattr(rules, "truncation", lambda *_: np.array([2, 0]))
    assert chosen(files, "truncation")["parents"] == [2, 0]


def test_shares_are_ranked_as_numbers_and_no_share_counts_as_a_right_answer(files):
    """0.2 on each question is less than one right answer of four."""
    for slot, value in enumerate((0.2, 0.3, 0.1, 0.25)):
        rows = [("quiz", n, value + n / 100) for n in range(4)]
        frame = pd.DataFrame(rows, columns=["task", "doc_id", "score"])
        artifacts.write_table(files[1][slot], frame)
        tasks = {"quiz": {"accuracy": float(frame.score.mean()), "stderr": 0.1, "metric": "f1"}}
        artifacts.write_json(files[0][slot], {"tasks": tasks})
    choice = chosen(files, "truncation", k=2)
    assert choice["parents"] == [1, 3] and choice["accuracies"][1] == pytest.approx(0.315)
    assert choice["confidence"]["same_set"] == 1.0  # the order is the same on every question


@pytest.mark.parametrize("rule", ["truncation", "own"])
def test_an_unfit_metric_is_never_ranked(files, tmp_path, rule):
    """Perplexity is better when lower: to take the highest would choose the worst."""
    for slot in range(4):
        entry = {"score": 9.0 + slot, "stderr": None, "metric": "word_perplexity"}
        entry |= {"unfit": "lower values are better", "higher_is_better": False}
        artifacts.write_json(files[0][slot], {"tasks": {"quiz": entry}, "measures": {}})
    rule = own(tmp_path, "return [0, 1]") if rule == "own" else rule
    with pytest.raises(ValueError, match="the metric 'word_perplexity' of 'quiz': lower values"):
        chosen(files, rule)


@pytest.mark.parametrize("score", [1.5, -0.1, float("nan")])
def test_a_score_outside_0_to_1_is_refused(files, score):
    rows = [("quiz", 0, 0.5), ("quiz", 1, score)]
    frame = pd.DataFrame(rows, columns=["task", "doc_id", "score"])
    artifacts.write_table(files[1][2], frame)
    with pytest.raises(ValueError, match="answers2.parquet: a score of task 'quiz' is not a numb"):
        chosen(files, "truncation")
