"""A folder with a user's own benchmark as `check` and the rules see it: YAML, and nothing run."""

from pathlib import Path

import pytest
import yaml

from pollination.cli import main
from pollination.plan import benchmark_yaml
from pollination.plan.benchmark_folder import benchmark_files
from pollination.plan.benchmark_metrics import metric_mistakes
from pollination.plan.config.resolve import ConfigError, check_files, resolve
from pollination.plan.inputs import task_sources
from pollination.plan.plan import Plan
from tests.conftest import TOY

TASK = """\
task: quiz
dataset_path: json
dataset_kwargs: {data_files: {test: "part*.jsonl"}}
output_type: multiple_choice
doc_to_text: !function code.text
"""


@pytest.fixture
def raw(tmp_path):
    """The toy config with a benchmark of a folder in it."""
    folder = tmp_path / "bench"
    folder.mkdir()
    (folder / "quiz.yaml").write_text(TASK)
    (folder / "code.py").write_text("raise SystemExit('it ran')\n")
    for name in ("part0.jsonl", "part1.jsonl"):
        (folder / name).write_text("{}\n")
    config = yaml.safe_load(TOY.read_text()) | {"data": str(tmp_path)}
    config["tasks"]["quiz"] = {
        "kind": "lm_eval",
        "template": "quiz",
        "include_path": "{data}/bench",
    }
    return config


def test_a_change_of_the_folder_is_a_change_of_what_the_job_reads(raw, tmp_path):
    config = resolve(raw)
    check_files(config)
    names = ("quiz.yaml", "code.py", "part0.jsonl", "part1.jsonl")
    paths = [str(tmp_path / "bench" / name) for name in names]
    assert task_sources(Plan(config, "results/toy"), "quiz") == paths
    (tmp_path / "bench" / "part2.jsonl").write_text("{}\n")
    assert len(task_sources(Plan(config, "results/toy"), "quiz")) == 5


def test_a_finished_run_can_be_inspected_without_the_folder(raw, tmp_path):
    (tmp_path / "bench").rename(tmp_path / "moved")
    plan = Plan(resolve(raw), "results/toy")
    assert task_sources(plan, "quiz") == [str(tmp_path / "bench")]


def test_files_of_the_present_folder_are_followed(tmp_path, monkeypatch):
    (tmp_path / "bench").mkdir()
    (tmp_path / "base.yaml").write_text("output_type: multiple_choice\ndataset_path: x/y\n")
    text = "task: quiz\ninclude: [../base.yaml]\n"
    (tmp_path / "bench" / "quiz.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    task = {"template": "quiz", "include_path": "./", "data": None}
    assert sorted(benchmark_files(task)) == ["base.yaml", "bench/quiz.yaml"]


def test_what_lm_eval_defines_is_left_to_staging_where_it_is_not_installed(raw, monkeypatch):
    folder = Path(raw["data"], "bench")
    (folder / "quiz.yaml").write_text("task: quiz\ninclude: arc/arc_easy.yaml\n")
    for there in (True, False):
        check_files(resolve(raw))
        files = task_sources(Plan(resolve(raw), "results/toy"), "quiz")
        assert files == [str(folder / "quiz.yaml")], there
        monkeypatch.setattr(benchmark_yaml, "built_in_tasks", lambda: None)


def break_nothing(folder):
    pass


def break_folder(folder):
    folder.rename(folder.parent / "moved")


def break_yaml(folder):
    (folder / "quiz.yaml").rename(folder / "quiz.yml")


def break_syntax(folder):
    (folder / "quiz.yaml").write_text("task: [quiz\n")


def break_name(folder):
    (folder / "quiz.yaml").write_text(TASK.replace("quiz", "quizz"))


def break_twice(folder):
    (folder / "again.yaml").write_text(TASK)


def break_metric(folder):
    (folder / "quiz.yaml").write_text(f"{TASK}metric_list: [{{metric: bleu}}]\n")


def break_code(folder):
    (folder / "code.py").unlink()


def break_data(folder):
    for path in folder.glob("*.jsonl"):
        path.unlink()


def break_group(folder):
    (folder / "group.yaml").write_text("group: quiz\ntask: [absent]\n")
    (folder / "quiz.yaml").write_text(TASK.replace("task: quiz", "task: one"))


def break_loop(folder):
    (folder / "quiz.yaml").write_text("group: quiz\ntask: [quiz]\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_folder, "BENCH: there is no such folder; correct the path"),
        (break_yaml, "BENCH: the folder has no YAML file (*.yaml); correct the path"),
        (break_syntax, "BENCH has no task 'quiz'; allowed: (none); not readable: "),
        (break_name, "BENCH has no task 'quiz' (did you mean 'quizz'?); allowed: quizz"),
        (break_twice, "BENCH: again.yaml, quiz.yaml all define 'quiz'; rename all but one"),
        (break_metric, "quiz.yaml: task 'quiz': metric_list: metric 'bleu' is not supported"),
        (break_code, "quiz.yaml: !function code.text: there is no code.py beside it"),
        (break_data, "part*.jsonl': there is no such file; correct the path"),
        (break_group, "BENCH has no task 'absent', which group 'quiz' names; allowed: one, quiz"),
        (break_loop, "BENCH: group 'quiz' contains itself; correct its key `task`"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(raw, tmp_path, damage, message):
    damage(tmp_path / "bench")
    with pytest.raises(ConfigError) as caught:
        check_files(resolve(raw), "my.yaml")
    text = str(caught.value)
    assert text.startswith("my.yaml: tasks.quiz.include_path: ") and "\n" not in text
    assert message.replace("BENCH", repr(str(tmp_path / "bench"))) in text


def test_a_folder_with_too_many_files_is_refused(raw, monkeypatch):
    monkeypatch.setattr(benchmark_yaml, "MAX_FILES", 3)
    with pytest.raises(ConfigError, match="the folder has more than 3 files; name a folder"):
        check_files(resolve(raw))


@pytest.mark.parametrize("damage", [break_nothing, break_folder])
def test_check_answers_by_its_exit_status(raw, tmp_path, damage, capsys):
    damage(tmp_path / "bench")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw))
    status = main(["check", "--configfile", str(tmp_path / "config.yaml")])
    assert status == (0 if damage is break_nothing else 1)
    assert ("there is no such folder" in capsys.readouterr().err) == bool(status)


STATISTIC = "it is a statistic of all questions together, without a value for each question"


@pytest.mark.parametrize(
    ("template", "metric", "said"),
    [
        ("mmlu", None, None),
        ("gsm8k", None, None),
        ("gsm8k", "exact_match,flexible-extract", None),
        ("truthfulqa_mc2", None, None),
        ("arc_easy", "acc_norm", None),
        ("lambada_openai", None, None),
        ("drop", "f1", None),
        ("mrpc", None, None),
        ("mrpc", "f1", f"'mrpc': selection cannot choose by its metric 'f1': {STATISTIC}; set met"),
        ("cola", None, f"by its metric 'mcc': {STATISTIC}; select on another task"),
        ("wikitext", None, "by its metric 'word_perplexity': lower values are better"),
        ("lambada_openai", "perplexity", "lower values are better; set metric: acc, or select on"),
        ("wmt16-en-de", None, f"by its metric 'bleu': {STATISTIC}"),
        ("crows_pairs_english", None, "by its metric 'likelihood_diff': lower values are better"),
        ("humaneval", None, "task 'humaneval': unsafe_code is not supported"),
        ("squadv2", None, "task 'squadv2': class is not supported"),
        ("arc_easy", "mcc", "metric 'mcc' is not one of the task; allowed: acc, acc_norm"),
        ("gsm8k", "exact_match,loose", "allowed: strict-match, flexible-extract"),
    ],
)
def test_check_names_a_metric_that_cannot_select(template, metric, said):
    task = {"template": template, "metric": metric}
    found = metric_mistakes(task, selects=True)
    assert len(found) == bool(said) and all(said in one and "\n" not in one for one in found)


def test_a_metric_that_cannot_select_is_reported_all_the_same():
    for template in ("cola", "wikitext", "wmt16-en-de"):
        assert metric_mistakes({"template": template}, selects=False) == []


def test_check_names_the_experiment_that_selects_by_an_unfit_metric(raw, tmp_path):
    (tmp_path / "bench" / "quiz.yaml").write_text(f"{TASK}metric_list: [{{metric: mcc}}]\n")
    check_files(resolve(raw))
    raw["experiments"]["population"] |= {"select": {"task": "quiz"}}
    with pytest.raises(ConfigError) as caught:
        check_files(resolve(raw), "my.yaml")
    said = "selection cannot choose by its metric 'mcc': "
    assert str(caught.value) == (
        "my.yaml: experiments.population.select.task: 'quiz': task 'quiz': "
        f"{said}{STATISTIC}; select on another task"
    )
    raw["experiments"]["population"]["select"] = {"task": "knowledge", "rule": "truncation"}
    check_files(resolve(raw))
    raw["experiments"]["population"]["select"]["rule"] = "pareto"  # which reads all benchmarks
    with pytest.raises(ConfigError, match=f"population.select.rule: 'quiz': task 'quiz': {said}"):
        check_files(resolve(raw))
    raw["tasks"]["quiz"]["method"] = "generate"  # written answers are right or wrong
    check_files(resolve(raw))


def test_metrics_are_those_of_the_installed_lm_eval():
    from lm_eval.api import registry

    from pollination.plan.task_metrics import AGGREGATIONS, DEFAULTS, KNOWN

    assert {kind: [*names] for kind, names in DEFAULTS.items()} == registry.DEFAULT_METRIC_REGISTRY
    for name, (aggregation, higher) in KNOWN.items():
        expected = registry.get_aggregation(aggregation)
        assert registry.get_metric_aggregation(name) is expected, name
        assert registry.is_higher_better(name) is higher, name
    assert all(registry.get_aggregation(name) for name in AGGREGATIONS)
