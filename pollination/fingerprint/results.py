"""Results of the Slop Forensics toolkit as fingerprints: a list of models, an object of them by name, or one model alone."""

import logging
import math
from pathlib import Path

from pollination import artifacts

LISTS = {"top_repetitive_words": ("word", "score"), "top_bigrams": ("ngram", "frequency"), "top_trigrams": ("ngram", "frequency")}


def read_results(path: str | Path, log: logging.Logger) -> list[dict]:
    """Fingerprints in the file's order. A list that is absent is empty; an entry without a name or a positive number is left out; of a
    model that stands there twice the first is kept. All that is said in the log."""
    data = artifacts.read_json(path)
    if isinstance(data, dict):
        data = (
            [data] if any(key in data for key in LISTS) else [{"model_name": name} | _object(entry, path) for name, entry in data.items()]
        )
    if not isinstance(data, list) or not data:
        raise ValueError(f"{path}: no models; it must be a list of models, or an object of them by name, as Slop Forensics writes it")
    found: dict[str, dict] = {}
    for number, entry in enumerate(data, 1):
        name = str(_object(entry, path).get("model_name") or "")
        if not name:
            raise ValueError(f"{path}: model {number} has no model_name; add it")
        if name in found:
            log.warning("%s: model %s stands there twice; its first entry is taken", path, name)
            continue
        found[name] = {"model_name": name} | {key: _entries(entry, key, name, log) for key in LISTS}
    return list(found.values())


def _object(entry: object, path: str | Path) -> dict:
    if not isinstance(entry, dict):
        raise ValueError(f"{path}: a model is {str(entry)[:40]!r}; each must be an object with {', '.join(LISTS)}")
    return entry


def _entries(entry: dict, key: str, name: str, log: logging.Logger) -> list[dict]:
    word, number = LISTS[key]
    given = entry.get(key) if isinstance(entry.get(key), list) else []
    kept = {
        item[word]: item
        for item in reversed(given)
        if isinstance(item, dict) and item.get(word) and isinstance(item.get(number), int | float) and 0 < item[number] < math.inf
    }
    if len(kept) < len(given) or key not in entry:
        log.warning("model %s, %s: %s", name, key, f"{len(given) - len(kept)} entries left out" if key in entry else "absent, so empty")
    return [kept[item] for item in reversed(kept)]
