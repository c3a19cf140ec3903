"""Read the values of a task's metrics from lm-eval's results: of the task and of each question."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pollination.plan.task_metrics import MEANS, choose

# Resamples of lm-eval's bootstrap, for the standard error of a corpus statistic. lm-eval's default
# of 100,000 takes minutes per model; `lm_eval --bootstrap_iters 1000` gives the same digits.
BOOTSTRAP = 1000


@dataclass(frozen=True)
class Ranking:
    """The metric by which a task's models are ranked and shown."""

    metric: str
    filter: str
    values: list[Any]
    """Its value for each question as lm-eval logs it; None where there is none."""
    unfit: str | None
    """Why the values cannot rank models question by question; None if they can."""

    @property
    def key(self) -> str:
        return f"{self.metric},{self.filter}"


def ranking(task, samples: list[dict], asked: str | None) -> Ranking:
    """Return the metric that `tasks.*.metric` asks for, with its values by rising doc_id.

    `samples`: what lm-eval logs of `task`. ValueError: the task does not compute the metric.
    """
    filters = [one.name for one in task._filters]
    metric, name = choose(list(task.higher_is_better()), filters, asked)
    mine = sorted((one for one in samples if one["filter"] == name), key=lambda one: one["doc_id"])
    values = [one.get(metric) for one in mine]
    if all(value is None for value in values):
        computed = sorted(mine[0]["metrics"])
        raise ValueError(
            f"task {task.task_name!r}: metric {metric!r} is in metric_list, but the task does not "
            f"compute it; it computes: {', '.join(computed)}"
        )
    return Ranking(metric, name, values, _unfit(task, metric, values))


def _unfit(task, metric: str, values: list[Any]) -> str | None:
    from lm_eval.api.registry import get_aggregation

    higher = task.higher_is_better().get(metric)
    if higher is None:
        return "the task does not say whether higher values are better"
    if not higher:
        return "lower values are better"
    if task.aggregation().get(metric) not in [get_aggregation(name) for name in MEANS]:
        return "it is a statistic of all questions together, without a value for each question"
    for index, value in enumerate(values):
        if value is None:
            return f"question {index} has no value"
        if not _is_number(value):
            return f"question {index} has the value {str(value)[:40]!r}, which is not a number"
        if not 0 <= float(value) <= 1:  # also NaN
            return f"question {index} has the value {float(value):g}, outside 0 to 1"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number | np.bool_)


def reported(task_results: dict, higher: dict) -> dict[str, dict]:
    """Return "METRIC,FILTER" -> {value, stderr, higher_is_better} of lm-eval's results of a task.

    A value that is not a finite number is None.
    """
    found = {}
    for key, value in task_results.items():
        metric, _, name = key.partition(",")
        if not name or metric.endswith("_stderr"):
            continue
        stderr = task_results.get(f"{metric}_stderr,{name}")
        found[key] = {
            "value": _finite(value),
            "stderr": _finite(stderr),
            "higher_is_better": higher.get(metric),
        }
    return found


def _finite(value: Any) -> float | None:
    return float(value) if _is_number(value) and np.isfinite(float(value)) else None
