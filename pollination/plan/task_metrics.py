"""Read the metrics of an lm-eval task from its YAML keys; find the one that can rank models.

lm-eval computes a metric in one of two ways. A *metric per question* has a value for each question,
and the task's value is their mean (accuracy, exact match). A *corpus statistic* comes from all
questions at once (MCC, BLEU, perplexity). Selection needs values per question, from 0 to 1, of
which higher is better.

The functions take the keys as `plan/benchmark_yaml.py` parses them, or as lm-eval loads them.
They do not import lm-eval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MEANS = ("mean", "nanmean")
# output_type -> the metrics that lm-eval 0.4.13 computes for it by itself, with their aggregation
# and direction (lm_eval/api/metrics.py, ConfigurableTask.process_results)
_MEAN, _LOWER = ("mean", True), False
METRICS: dict[str, dict[str, tuple[str, bool]]] = {
    "multiple_choice": {
        "acc": _MEAN,
        "acc_norm": _MEAN,
        "acc_bytes": _MEAN,
        "acc_mutual_info": _MEAN,
        "exact_match": _MEAN,
        "f1": ("f1", True),
        "mcc": ("matthews_corrcoef", True),
        "brier_score": ("brier_score", _LOWER),
    },
    "loglikelihood": {"perplexity": ("perplexity", _LOWER), "acc": _MEAN},
    "loglikelihood_rolling": {
        "word_perplexity": ("weighted_perplexity", _LOWER),
        "byte_perplexity": ("weighted_perplexity", _LOWER),
        "bits_per_byte": ("bits_per_byte", _LOWER),
    },
    "generate_until": {
        "exact_match": _MEAN,
        "bleu": ("bleu", True),
        "chrf": ("chrf", True),
        "chrf++": ("chrf++", True),
        "ter": ("ter", _LOWER),
    },
}
DEFAULTS = {  # lm-eval's metrics of a task without metric_list
    "multiple_choice": ("acc", "acc_norm"),
    "loglikelihood": ("perplexity", "acc"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    "generate_until": ("exact_match",),
}
KNOWN = {name: entry for kind in METRICS.values() for name, entry in kind.items()}
AGGREGATIONS = (*MEANS, "median", *sorted({one for one, _ in KNOWN.values()} - {*MEANS}))


@dataclass(frozen=True)
class Metric:
    """A metric that a task lists."""

    name: str
    aggregation: Any
    """lm-eval's name of the function over all questions, or a function of the task."""
    higher_is_better: bool | None
    """None: the task does not say."""


def output_type(config: dict) -> str:
    return config.get("output_type") or "generate_until"


def metrics_of(config: dict) -> list[Metric]:
    """Return a task's metrics in the order in which it lists them."""
    listed = config.get("metric_list")
    if listed is None:
        return [Metric(name, *KNOWN[name]) for name in DEFAULTS[output_type(config)]]
    metrics = []
    for entry in listed:
        name = name_of(entry["metric"])
        aggregation, higher = KNOWN.get(name, (None, None))
        aggregation = entry.get("aggregation", aggregation)
        metrics.append(Metric(name, aggregation, entry.get("higher_is_better", higher)))
    return metrics


def name_of(metric: Any) -> str:
    """Return lm-eval's name of a metric, which may be a function, loaded or not."""
    if type(metric) is str:
        return metric
    return getattr(metric, "__name__", None) or str(metric).rpartition(".")[2]


def filters_of(config: dict) -> list[str]:
    """Return the names of the filters that lm-eval applies to a task's answers, in their order."""
    return [str(entry["name"]) for entry in config.get("filter_list") or [{"name": "none"}]]


def choose(names: Sequence[str], filters: Sequence[str], asked: str | None) -> tuple[str, str]:
    """Return (metric, filter) by which a task's models are ranked and shown.

    `asked`: `tasks.*.metric`, METRIC or METRIC,FILTER. Without it, it is `acc` if the task lists
    it, or else its first metric. Without a filter, it is the task's first. ValueError: the task has
    no such metric or filter.
    """
    if asked is None:
        return ("acc" if "acc" in names else names[0]), filters[0]
    name, _, filtered = asked.partition(",")
    if name not in names:
        raise ValueError(f"metric {name!r} is not one of the task; allowed: {', '.join(names)}")
    if filtered and filtered not in filters:
        raise ValueError(
            f"filter {filtered!r} of metric {name!r} is not one of the task; allowed: "
            f"{', '.join(filters)}"
        )
    return name, filtered or filters[0]


def chosen(config: dict, asked: str | None) -> Metric:
    """Return the metric that `choose` chooses. ValueError: as there."""
    metrics = metrics_of(config)
    name, _ = choose([one.name for one in metrics], filters_of(config), asked)
    return next(one for one in metrics if one.name == name)


def unfit(metric: Metric) -> str | None:
    """Return why a metric cannot rank models question by question; None if nothing speaks for it.

    Values outside 0 to 1 are found only when a model is scored.
    """
    if metric.higher_is_better is None:
        return "the task does not say whether higher values are better"
    if not metric.higher_is_better:
        return "lower values are better"
    if metric.aggregation not in MEANS:
        return "it is a statistic of all questions together, without a value for each question"
    return None


def rankable(config: dict) -> list[str]:
    """Return the task's metrics that can rank models."""
    return [one.name for one in metrics_of(config) if unfit(one) is None]


def refusal(config: dict) -> str | None:
    """Return why lm-eval could not compute a task's metrics; None if it could."""
    kind = output_type(config)
    if kind not in METRICS:
        return f"output_type {kind!r} is not supported; allowed: {', '.join(METRICS)}"
    listed = config.get("metric_list")
    if listed is None:
        if config.get("process_results"):
            return "metric_list is missing; list the metrics that process_results returns"
        return None
    if not isinstance(listed, list) or not all(
        isinstance(one, dict) and one.get("metric") for one in listed
    ):
        return "metric_list is not a list of mappings; write - metric: acc"
    if not listed:
        return "metric_list is empty; write - metric: acc"
    names = [name_of(one["metric"]) for one in listed]
    if again := next((name for name in names if names.count(name) > 1), None):
        return f"metric_list: metric {again!r} is listed twice; remove one"
    own = bool(config.get("process_results"))
    return next(filter(None, (_metric_refusal(one, kind, own) for one in listed)), None)


def _metric_refusal(entry: dict, kind: str, own: bool) -> str | None:
    name, known = entry["metric"], METRICS[kind]
    if entry.get("hf_evaluate"):
        return (
            f"metric_list: hf_evaluate of {name!r} is not supported, because it downloads code; "
            "write the metric as a function beside the YAML file"
        )
    # lm-eval calls functions only on generated text
    called = type(name) is not str and kind == "generate_until"
    if not own and not called and name not in known:
        return (
            f"metric_list: metric {name_of(name)!r} is not supported for output_type {kind}; "
            f"allowed: {', '.join(known)}, or your own process_results"
        )
    aggregation = entry.get("aggregation")
    default, _ = KNOWN.get(name_of(name), (None, None))
    # a function's values are numbers, which only a mean can take for granted
    if aggregation is None and (default is None or (called and default not in MEANS)):
        return (
            f"metric_list: {name_of(name)!r} has no aggregation; add aggregation: mean, or a "
            "function"
        )
    if type(aggregation) is str and aggregation not in AGGREGATIONS:
        return (
            f"metric_list: aggregation {aggregation!r} of {name_of(name)!r} is not supported; "
            f"allowed: {', '.join(AGGREGATIONS)}"
        )
    return None
