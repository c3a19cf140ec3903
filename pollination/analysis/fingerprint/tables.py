"""Tables of the fingerprint rules: fingerprints of a survey's parts, and their comparison."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from pollination.analysis.fingerprint import features, influence, overlap
from pollination.analysis.fingerprint.answers import check_collected
from pollination.core import artifacts
from pollination.core.datafiles.text import read_text
from pollination.core.seeds import derive_seed
from pollination.plan.config.catalogue import check_families, match

KINDS = (*features.KINDS, "all")


def count_part(
    kind: str,
    paths: list[Path],
    names: list[str],
    settings: dict,
    stopwords: Path | None,
    log: logging.Logger,
) -> list[dict]:
    """Return the fingerprints of one part.

    `names`: the model of each path for kind population, else empty.
    """
    if kind == "results":
        from pollination.analysis.fingerprint.results import read_results

        return read_results(paths[0], log)
    from pollination.analysis.fingerprint import counting

    own = frozenset(read_text(stopwords).split()) if stopwords else None
    counter = counting.Counter(settings, counting.snowball_stopwords() if own is None else own)
    for index, path in enumerate(paths):
        if kind == "population":
            for prompt_id, output in counting.read_outputs(path, ("prompt_id", "completion")):
                counter.add(names[index], prompt_id, output)
        else:
            if kind == "collect":
                check_collected(path)
            for row in counting.read_outputs(path):
                counter.add(*row)
    fingerprints = counter.fingerprints()
    for fingerprint in fingerprints:
        counts = ", ".join(
            f"{len(fingerprint[key])} {name}" for name, key in features.KINDS.items()
        )
        head = (fingerprint[key] for key in HEAD)
        log.info("%s: %d outputs (%d dropped), %d words written; %s", *head, counts)
    return fingerprints


HEAD = ("model_name", "outputs", "dropped", "words_written")


def gather(
    parts: list[Path], catalogue: dict[str, dict], where: str, mismatch: str, log: logging.Logger
) -> dict[str, dict]:
    """Return model -> fingerprint, by family and name, of models in data and catalogue.

    ValueError: a model is in only one of them, or its outputs have nothing recurring. If
    `mismatch` is 'skip', such models are left out and logged instead.
    """
    by_name: dict[str, dict] = {}
    for part in parts:
        for fingerprint in artifacts.read_json(part):
            name = fingerprint["model_name"]
            if name in by_name:
                raise ValueError(
                    f"{part}: model {name!r} is also in another file of this survey; put all "
                    "outputs of a model into one entry of `path`"
                )
            by_name[name] = fingerprint
    chosen, unknown, second = match(list(by_name), catalogue)
    empty = [
        model
        for model, name in chosen.items()
        if not any(by_name[name][key] for key in features.KINDS.values())
    ]
    troubles = {
        f"not in {where}": unknown,
        f"in {where} but without outputs": [model for model in catalogue if model not in chosen],
        "without a word or n-gram that recurs (outputs empty, too short or too few)": empty,
    }
    for trouble, names in troubles.items():
        if names and mismatch == "error":
            raise ValueError(
                f"models {trouble} ({len(names)}): "
                f"{', '.join(names[:5])}{', ...' * (len(names) > 5)}; correct this, or set "
                "mismatch: skip to leave them out"
            )
        for name in names:
            log.warning("model %s is left out, because it is %s", name, trouble)
    for name in second:
        log.warning("%s is left out, because the data have another entry of this model", name)
    kept = sorted(
        (model for model in chosen if model not in empty),
        key=lambda model: (catalogue[model]["family"], model),
    )
    if not kept:
        raise ValueError(
            f"{where}: the data have none of its models; they have "
            f"{', '.join(list(by_name)[:3])}, ...; correct the names"
        )
    check_families({model: catalogue[model]["family"] for model in kept}, where)
    return {model: by_name[chosen[model]] for model in kept}


def compare(
    fingerprints: dict[str, dict], catalogue: dict[str, dict], settings: dict, seed: int
) -> tuple[pd.DataFrame, dict]:
    """Return (pairs, statistics).

    pairs: one row per ordered pair of models, with Jaccard similarity by kind, influence and its
    expectation. statistics: all other values of the figures, with numbers of models and pairs.
    """
    models = list(fingerprints)
    families = [catalogue[model]["family"] for model in models]
    months = np.array([catalogue[model]["month"] for model in models])
    counts = [fingerprint.get("words_written") for fingerprint in fingerprints.values()]
    written = None if None in counts else np.array(counts, dtype=float)
    all_features = features.features(fingerprints, settings["salience"], settings["unknown_words"])
    similarity = {
        kind: np.nan_to_num(features.jaccard(all_features.of(kind).present)) for kind in KINDS
    }
    observed = features.influence(all_features.weights)
    expected = features.expected_influence(all_features)
    options = {
        "bandwidth": settings["bandwidth"],
        "bins": settings["bins"],
        "bounds": features.JACCARD,
    }
    overlaps, tests, asymmetries = [], [], []
    for kind in KINDS:
        pairs = overlap.groups(similarity[kind], families, **options)
        head = {
            "kind": kind,
            "within_pairs": len(pairs.within),
            "cross_pairs": len(pairs.cross),
            "bandwidth": pairs.width,
        }
        rows = overlap.intervals(pairs, derive_seed(seed, "overlap", kind), settings["resamples"])
        means = {"within_mean": pairs.within.mean(), "cross_mean": pairs.cross.mean()}
        overlaps += [head | means | row for row in rows]
        shuffle = derive_seed(seed, "families", kind), settings["permutations"]
        tested = overlap.permutation_test(similarity[kind], families, *shuffle)
        tests.append({"kind": kind} | tested)
        part = all_features.of(kind)
        flow = (
            np.nan_to_num(features.influence(part.weights)),
            np.nan_to_num(features.expected_influence(part)),
        )
        shuffle = derive_seed(seed, "months", kind), settings["permutations"]
        asymmetry = influence.asymmetry(*flow, months, families, written, *shuffle)
        asymmetries.append({"kind": kind} | asymmetry)
    names, family_means, normalised = features.family_matrix(
        similarity["all"], families, settings["normalise"]
    )
    bins = influence.by_lag(
        observed,
        expected,
        months,
        families,
        settings["bin_months"],
        derive_seed(seed, "bins"),
        settings["resamples"],
    )
    source, target = np.nonzero(~np.eye(len(models), dtype=bool))
    table = pd.DataFrame({"source": np.array(models)[source], "target": np.array(models)[target]})
    table = table.assign(
        source_family=np.array(families)[source],
        target_family=np.array(families)[target],
        lag=months[target] - months[source],
    )
    table = table.assign(**{f"jaccard_{kind}": similarity[kind][source, target] for kind in KINDS})
    table = table.assign(influence=observed[source, target], expected=expected[source, target])
    sizes = {kind: all_features.of(kind).present.sum(axis=1) for kind in features.KINDS}
    described = [
        {
            "model": model,
            "family": families[row],
            "release": catalogue[model]["release"],
            "words_written": counts[row],
        }
        | {kind: int(size[row]) for kind, size in sizes.items()}
        for row, model in enumerate(models)
    ]
    return table, _plain(
        {
            "models": described,
            "overlap": overlaps,
            "families_dealt_anew": tests,
            "asymmetry": asymmetries,
            "influence_by_lag": bins,
            "families": {
                "names": names,
                "mean": family_means,
                "normalised": normalised,
                "normalised_by": settings["normalise"],
            },
        }
    )


def _plain(value):
    """Convert values for JSON; NaN becomes null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
