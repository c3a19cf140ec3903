"""Selection reads one half of a benchmark's questions, and everything else reports the other."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pollination.analysis.claims.populations import Accuracies
from pollination.analysis.claims.verdicts import ends, measure
from pollination.analysis.run import Run
from pollination.core import artifacts
from pollination.core.questions import read_answers, scored, selecting_half
from pollination.core.seeds import derive_seed
from pollination.evolution.selection import select
from pollination.plan import layout
from pollination.plan.config.resolve import ConfigError, resolve
from pollination.plan.inputs import selection_settings, task_settings
from pollination.plan.layout import member_files
from pollination.plan.plan import Plan
from pollination.plan.report import figure_config
from pollination.plan.splits import splits
from tests.analysis.test_claims import judged
from tests.conftest import as_read
from tests.figures.test_report import draw, settings
from tests.plan.test_targets import draw as draw_target

Q, N, K, KEPT = 1000, 16, 4, 0.7
WITHOUT = ["task", "k", "parents", "ranking", "accuracies", "standard_errors", "questions"]
WITHOUT += ["ties", "confidence"]  # the keys of a selection.json without a split


def planned(folder: Path, split: str, **change) -> Plan:
    raw = settings(**{"tasks": ("knowledge",), "text_measured": False} | change)
    for task in raw["tasks"].values():
        task["split"] = split
    return Plan(resolve(raw), str(folder / "results" / "invented"))


def write(folder: str, correct: np.ndarray) -> None:
    """What an evaluation writes of one benchmark, in another order of rows than doc_id."""
    table = pd.DataFrame({"task": "knowledge", "doc_id": range(len(correct)), "correct": correct})
    table["score"], table["chance"] = correct.astype(float), 1 / (2 + table.doc_id % 3)
    artifacts.write_table(Path(folder, "answers.parquet"), table[::-1])
    entry = scored(correct) | {"questions_available": Q, "shots": 0, "method": "loglikelihood"}
    scores = {"tasks": {"knowledge": entry}, "perplexity": {}, "truth": {}}
    artifacts.write_json(Path(folder, "scores.json"), scores)


def choose(plan: Plan, name: str, g: int) -> dict:
    """The selection.json of a generation, with the params of its rule; written and returned."""
    files = [
        [Path(path) for path in member_files(plan, name, g, file)]
        for file in ("scores.json", "answers.parquet")
    ]
    given, seed = selection_settings(plan, name), plan.config["evaluation_seed"]
    choice = select(
        *files,
        given["task"],
        given["k"],
        derive_seed(seed, "selection"),
        given.get("rule", "truncation"),
        7,
        given.get("splits"),
        seed,
    )
    artifacts.write_json(f"{plan.results}/{name}/gen{g}/selection.json", choice)
    return choice


def evolve(folder: Path, split: str, runs: int) -> Plan:
    """Five generations without skill: every answer is right by half, and a child keeps 70 % of the
    answers of parent i.
    """
    plan = planned(folder, split, population=N, seeds=range(runs), line_seeds=())
    rng = np.random.default_rng(5)
    founders = rng.random((N, Q)) < 0.5
    for name in plan.config["experiments"]:
        right = founders
        for g in range(5):
            for m, answers in enumerate(right):
                write(layout.member_folder(plan, name, g, m), answers)
            parents = choose(plan, name, g)["parents"]
            inherited = right[np.repeat(parents, K)]
            fresh = rng.random((N, Q)) < 0.5
            right = np.where(rng.random((N, Q)) < KEPT, inherited, fresh)
    return plan


@pytest.mark.slow
@pytest.mark.parametrize("split", ["half", "none"])
def test_selection_without_differences_in_skill_shows_no_rise(split, tmp_path):
    """The questions that select rise by about two points; the reported ones only if they select."""
    plan = evolve(tmp_path, split, runs=6)
    run = Run(Plan(as_read(figure_config(plan, "accuracy")), plan.results))
    rows = run.accuracies()
    last = rows[rows.generation == 4].groupby("experiment")
    reported, selecting = (
        100 * last[column].mean() for column in ("accuracy", "selecting_accuracy")
    )
    assert selecting.min() > 50.3 and 51.5 < selecting.mean() < 54
    halves = {"half": (500, 500), "none": (Q, Q)}[split]
    assert (rows.questions.iloc[0], rows.selecting_questions.iloc[0]) == halves
    if split == "none":
        assert reported.equals(selecting)
    else:
        error = reported.std(ddof=1) / len(reported) ** 0.5
        assert abs(reported.mean() - 50) < 2.3 * error and error < 0.5
    names = run.roles["population"]
    drawn = Accuracies(run).draws("knowledge", {"population": names}, {})
    low, high = ends(measure(drawn, lambda x: x[:, 0, 1] - x[:, 0, 0], "", [1]).draws)
    assert low < 0 < high if split == "half" else low > 0
    choices = [run.selection(name, g) for name in names for g in range(5)]
    if split == "half":
        assert 0.01 < np.mean([choice["winners_curse"]["gap"] for choice in choices]) < 0.04


def test_the_half_depends_on_seed_and_task_alone():
    ids = np.arange(101)
    half = selecting_half(1234, "knowledge", ids)
    assert half.sum() == 50
    shuffled = np.random.default_rng(0).permutation(101)
    assert (selecting_half(1234, "knowledge", ids[shuffled]) == half[shuffled]).all()
    for other in (selecting_half(1235, "knowledge", ids), selecting_half(1234, "social", ids)):
        assert other.sum() == 50 and (other != half).any()
    assert selecting_half(1234, "knowledge", ids, "none").all()
    with pytest.raises(ValueError, match=r"tasks.quiz.split: 'half' needs at least 2 questions"):
        selecting_half(1, "quiz", np.array([3]))
    with pytest.raises(ValueError, match="doc_id occurs twice"):
        selecting_half(1, "quiz", np.array([3, 3, 4]))


def test_the_two_halves_are_all_questions_and_share_none(tmp_path):
    correct = np.random.default_rng(0).random(Q) < 0.5
    write(str(tmp_path), correct)
    answers = read_answers(tmp_path / "answers.parquet", {"knowledge": "half"}, 1234)["knowledge"]
    assert (answers.score == correct).all() and (answers.selecting ^ answers.reporting).all()
    whole = read_answers(tmp_path / "answers.parquet", {}, 1234)["knowledge"]
    assert whole.selecting.all() and whole.reporting.all()


def generation(plan: Plan, accuracy: float = 0.5, draw: int = 0) -> np.ndarray:
    """Answers (members, questions) of generation 0 of the population, written."""
    rng = np.random.default_rng(draw)
    correct = rng.random((plan.experiment("population")["population"], 400)) < accuracy
    for m, answers in enumerate(correct):
        write(layout.member_folder(plan, "population", 0, m), answers)
    return correct


def test_selection_json_by_hand(tmp_path):
    plan = planned(tmp_path, "half", population=4)
    correct = generation(plan)
    choice = choose(plan, "population", 0)
    half = selecting_half(plan.config["evaluation_seed"], "knowledge", np.arange(400))
    first, second = correct[:, half].mean(1), correct[:, ~half].mean(1)
    assert choice["accuracies"] == first.tolist() and choice["questions"] == 200
    assert choice["standard_errors"] == pytest.approx((first * (1 - first) / 199) ** 0.5)
    assert choice["parents"] == np.argsort(-first, kind="stable")[:2].tolist()
    assert choice["confidence"]["questions"] == 200 and choice["split"] == "half"
    assert choice["reported"]["accuracies"] == second.tolist()
    assert choice["all"]["accuracies"] == correct.mean(1).tolist()
    assert (choice["reported"]["questions"], choice["all"]["questions"]) == (200, 400)
    gap = (first - second)[choice["parents"]].mean() - (first - second).mean()
    assert choice["winners_curse"]["gap"] == pytest.approx(gap)
    # sqrt of the summed variances of two means of 200 questions
    lead = correct[choice["parents"]].mean(0) - correct.mean(0)
    error = (lead[half].var(ddof=1) / 200 + lead[~half].var(ddof=1) / 200) ** 0.5
    assert choice["winners_curse"]["stderr"] == pytest.approx(error)


def test_without_a_split_selection_json_is_as_it_was(tmp_path):
    plan = planned(tmp_path, "none", population=4)
    correct = generation(plan)
    choice = choose(plan, "population", 0)
    assert list(choice) == WITHOUT
    assert choice["accuracies"] == correct.mean(1).tolist() and choice["questions"] == 400
    assert selection_settings(plan, "population") == {"task": "knowledge", "k": 2}
    assert not {"splits", "evaluation_seed"} & set(figure_config(plan, "accuracy"))


def test_another_split_reruns_no_evaluation(tmp_path):
    half, none = (planned(tmp_path, split) for split in ("half", "none"))
    assert task_settings(half, "knowledge") == task_settings(none, "knowledge")
    assert "split" not in task_settings(half, "knowledge")
    assert selection_settings(half, "population")["splits"] == {"knowledge": "half"}


def test_only_benchmarks_that_may_select_are_divided(tmp_path):
    both = ("knowledge", "social")
    assert splits(planned(tmp_path, "half", tasks=both)) == {"knowledge": "half"}
    assert splits(planned(tmp_path, "none", tasks=both)) == {}
    assert splits(planned(tmp_path, "half", tasks=both, select=False)) == {}
    (tmp_path / "rules.py").write_text("def choose(members, k, rng):\n    return [0, 1]\n")
    own = planned(tmp_path, "half", tasks=both, rule=f"{tmp_path}/rules.py:choose")
    assert splits(own) == {"knowledge": "half", "social": "half"}  # an own rule sees both
    part = Plan(as_read(figure_config(own, "accuracy")), own.results)
    assert splits(part) == splits(own) and part.config["evaluation_seed"] == 1234


def test_two_tasks_on_one_benchmark_have_the_same_halves(tmp_path):
    """Another number of examples is not another question."""
    raw = settings(tasks=("knowledge", "social"), text_measured=False)
    raw["tasks"]["more_shots"] = raw["tasks"]["knowledge"] | {"num_fewshot": 2}
    divided = splits(Plan(resolve(raw), "r"))
    assert divided == {"knowledge": "half", "more_shots": "half of knowledge"}
    halves = [selecting_half(1234, task, np.arange(50), divided[task]) for task in divided]
    assert (halves[0] == halves[1]).all() and 0 < halves[0].sum() < 50
    raw["tasks"]["more_shots"]["questions"] = 20
    with pytest.raises(ConfigError, match="tasks.more_shots.questions: 20 differs from"):
        resolve(raw)


def test_an_own_rule_cannot_see_the_reporting_half(tmp_path):
    """Two generations that differ in the reported answers alone look the same to a rule."""
    seen = tmp_path / "seen.txt"
    (tmp_path / "rules.py").write_text(
        "def choose(members, k, rng):\n"
        f"    with open({str(seen)!r}, 'a') as file:\n"
        "        for m in members:\n"
        "            print(m.slot, m.accuracy, m.scores, m.correct.tolist(), file=file)\n"
        "    return sorted(range(len(members)), key=lambda slot: hash(str(members[slot])))[:k]\n"
    )
    plan = planned(tmp_path, "half", population=4, rule=f"{tmp_path}/rules.py:choose")
    correct, views, choices = generation(plan), [], []
    half = selecting_half(plan.config["evaluation_seed"], "knowledge", np.arange(400))
    for answers in (correct, np.where(half, correct, True)):
        for m, mine in enumerate(answers):
            write(layout.member_folder(plan, "population", 0, m), mine)
        choices.append(choose(plan, "population", 0))
        views.append(seen.read_text())
        seen.unlink()
    assert views[0] == views[1] and "'questions': 200" in views[0]
    kept = [{key: choice[key] for key in WITHOUT if key != "parents"} for choice in choices]
    assert kept[0]["accuracies"] == kept[1]["accuracies"]
    assert choices[1]["reported"]["accuracies"] == [1.0] * 4


def test_a_selection_of_another_split_is_refused(tmp_path):
    """Without its record of params, Snakemake would not notice it."""
    plan = planned(tmp_path, "none", population=4)
    generation(plan)
    choose(plan, "population", 0)
    half = planned(tmp_path, "half", population=4)
    run = Run(Plan(as_read(figure_config(half, "accuracy")), half.results))
    with pytest.raises(ValueError, match="selected with tasks.knowledge.split: none, but the conf"):
        run.accuracies()


def test_figures_have_both_series(tmp_path):
    plan = evolve(tmp_path, "half", runs=1)
    half = selecting_half(plan.config["evaluation_seed"], "knowledge", np.arange(Q))
    name = "population.s0"
    _, rows = draw("accuracy", plan)
    _, gaps = draw("selection", plan)
    one = next(row for row in rows if (row["generation"], row["member"]) == ("4", "3"))
    folder = layout.member_folder(plan, name, 4, 3)
    table = artifacts.read_table(f"{folder}/answers.parquet").to_pandas().sort_values("doc_id")
    right = table.correct.to_numpy()
    assert float(one["accuracy"]) == pytest.approx(right[~half].mean(), rel=1e-5)
    assert float(one["selecting_accuracy"]) == pytest.approx(right[half].mean(), rel=1e-5)
    chance = np.mean([1 / (2 + n % 3) for n in np.flatnonzero(~half)])
    assert float(one["chance"]) == pytest.approx(chance, rel=1e-5)
    choice = artifacts.read_json(f"{plan.results}/{name}/gen4/selection.json")
    best = next(row for row in gaps if (row["generation"], row["rank"]) == ("4", "0"))
    assert float(best["gap"]) == pytest.approx(choice["winners_curse"]["gap"], rel=1e-5)
    assert float(best["reported_accuracy"]) == pytest.approx(
        choice["reported"]["accuracies"][choice["parents"][0]], rel=1e-5
    )
    run = Run(Plan(as_read(figure_config(plan, "difference")), plan.results))
    plan.config["figures"]["population"] = [name]
    champion = run.champion(name, 4)
    assert champion == choice["ranking"][0]
    what, reported = run.yardstick(name, 4)
    assert what == "accuracy on knowledge, reporting half"
    assert reported.tolist() == choice["reported"]["accuracies"]


def test_bands_of_figure_12_count_runs_not_members(tmp_path):
    """Members know all questions or none, so questions add no noise. Of 16 members, 8, 8 and 9 know
    them in the three runs: sd 3.61 points, half-width t(2) * 3.61 / sqrt(3) = 8.97 points. Equal
    runs differ by the floor of one answer. Members counted as units would give 14.6 points each.
    """
    plan = planned(tmp_path, "half", population=N, seeds=(1, 2, 3), line_seeds=(), generations=3)
    for g, counts in enumerate([(16, 16, 16), (8, 8, 9), (8, 8, 8)]):
        for name, count in zip(plan.config["experiments"], counts, strict=True):
            for m in range(N):
                write(layout.member_folder(plan, name, g, m), np.full(Q, m < count))
    for name in plan.config["experiments"]:
        for g in range(3):
            choose(plan, name, g)
    label = {"text only": plan.config["figures"]["population"]}
    plan.config["figures"]["paper"] = {"figure_a12": {"text only": label}}
    rows = draw_target(plan, "figure_a12").astype({"generation": int, "mean": float})
    first = rows.groupby("generation")[["mean", "low", "high", "variance"]].first()
    assert first["mean"].tolist() == pytest.approx([1, 25 / 48, 0.5], rel=1e-5)
    half = (first.high.astype(float) - first.low.astype(float)) / 2
    assert half[0] == 0 and first.variance.tolist() == ["unknown", "own", "own"]  # shared founders
    assert half[1] == pytest.approx(0.0897, rel=0.05)
    floor = 0.2 / 100 * 4.303 / 3**0.5  # one answer of the 500 reported
    assert half[2] == pytest.approx(floor, rel=0.1)
    assert {"accuracy", "selecting_accuracy"} <= set(rows)


def test_difference_and_claims_have_both_series(tmp_path):
    """All answers of the last generation are right on one half and wrong on the other."""
    plan = planned(tmp_path, "half", population=4, seeds=(1, 2), line_seeds=(1, 2), generations=2)
    half = selecting_half(plan.config["evaluation_seed"], "knowledge", np.arange(Q))
    for name, experiment in plan.config["experiments"].items():
        lucky = half & (experiment["population"] > 1)
        for g, answers in enumerate((np.arange(Q) % 2 == 0, lucky)):
            for m in range(experiment["population"]):
                folder = layout.member_folder(plan, name, g, m)
                write(folder, answers)
                facts = pd.DataFrame({"corpus": ["world"], "known": [True]})
                artifacts.write_table(f"{folder}/facts.parquet", facts)
                columns = ["corpus", "split", "sequence", "tokens", "nll", "truth_nll"]
                artifacts.write_table(f"{folder}/sequences.parquet", pd.DataFrame(columns=columns))
            if experiment["population"] > 1:
                choose(plan, name, g)
    _, rows = draw("difference", plan)
    found = {
        row["measure"]: float(row["mean"])
        for row in rows
        if row["comparison"] == "population minus line"
    }
    assert found["knowledge, accuracy"] == 0
    assert found["knowledge, accuracy on the selecting half"] == 100
    (claim,) = judged(plan)["population_over_line"]
    assert claim["estimate"] == 0 and claim["selecting_estimate"] == 100
    assert "on the questions that select parents, as in study A: 100.0" in claim["note"]
