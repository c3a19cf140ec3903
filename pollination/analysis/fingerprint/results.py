"""Read results of the Slop Forensics toolkit: models in a list, by name, or alone."""

import logging
import math
from pathlib import Path

from pollination.core.datafiles.jsons import read_json

LISTS = {
    "top_repetitive_words": ("word", "score"),
    "top_bigrams": ("ngram", "frequency"),
    "top_trigrams": ("ngram", "frequency"),
}


def read_results(path: str | Path, log: logging.Logger) -> list[dict]:
    """Return fingerprints in the order of the file.

    A missing list counts as empty. An entry without a name or a positive number is left out. If a
    model occurs twice, its first entry is kept. The log reports each case.
    """
    data = read_json(path)
    if isinstance(data, dict):
        data = (
            [data]
            if any(key in data for key in LISTS)
            else [{"model_name": name} | _object(entry, path) for name, entry in data.items()]
        )
    if not isinstance(data, list) or not data:
        raise ValueError(
            f"{path}: no models; the file must be a list of models, or an object of models by "
            "name, as Slop Forensics writes it"
        )
    models: dict[str, dict] = {}
    for number, entry in enumerate(data, 1):
        name = str(_object(entry, path).get("model_name") or "")
        if not name:
            raise ValueError(f"{path}: model {number} has no model_name; add one")
        if name in models:
            log.warning("%s: model %s appears twice; the first entry is used", path, name)
            continue
        lists = {key: _entries(entry, key, name, log) for key in LISTS}
        models[name] = {"model_name": name} | lists
    return list(models.values())


def _object(entry: object, path: str | Path) -> dict:
    if not isinstance(entry, dict):
        raise ValueError(
            f"{path}: a model is {str(entry)[:40]!r}; every model must be an object with "
            f"{', '.join(LISTS)}"
        )
    return entry


def _entries(entry: dict, key: str, name: str, log: logging.Logger) -> list[dict]:
    word, number = LISTS[key]
    listed = entry.get(key)
    items: list = listed if isinstance(listed, list) else []
    kept = {
        item[word]: item
        for item in reversed(items)
        if isinstance(item, dict)
        and item.get(word)
        and isinstance(item.get(number), int | float)
        and 0 < item[number] < math.inf
    }
    if len(kept) < len(items) or key not in entry:
        dropped = f"{len(items) - len(kept)} invalid or repeated entries are left out"
        said = dropped if key in entry else "the list is missing and counts as empty"
        log.warning("model %s: %s: %s", name, key, said)
    return [kept[item] for item in reversed(kept)]
