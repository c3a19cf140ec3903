"""The list of deployed models, models.csv: model, family, release (YYYY-MM), and for `collect`
where each is served. No heavy imports.
"""

import csv
import re
from pathlib import Path

NEEDED = ("model", "family", "release")
SERVED = (
    "base_url",
    "name",
)  # what collect cannot do without: the endpoint, and the model's name there


def read_catalogue(path: str | Path, served: bool = False) -> dict[str, dict]:
    """model -> its row, in the file's order, with `month` (months since year 0) added.

    ValueError says file, line and what to mend.
    """
    try:
        with open(Path(path).expanduser(), encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not a text file in UTF-8 ({error.reason}); save it as CSV in UTF-8"
        ) from None
    needed = NEEDED + (SERVED if served else ())
    found: dict[str, dict] = {}
    for number, row in enumerate(rows, 2):
        row = {
            key: (value or "").strip()
            for key, value in row.items()
            if isinstance(key, str) and not isinstance(value, list)
        }
        for key in needed:
            if not row.get(key):
                raise ValueError(
                    f"{path}, line {number}: no {key} for model {row.get('model') or '?'!r}; "
                    f"columns needed: {', '.join(needed)}"
                )
        if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", row["release"]):
            raise ValueError(
                f"{path}, line {number}: release {row['release']!r} of {row['model']} is no month; "
                "write it as 2025-03"
            )
        if row["model"] in found:
            raise ValueError(
                f"{path}, line {number}: model {row['model']!r} stands there twice; keep one line "
                "a model"
            )
        year, month = row["release"].split("-")
        found[row["model"]] = row | {"month": 12 * int(year) + int(month)}
    if not found:
        raise ValueError(
            f"{path}: no models; it needs a heading {','.join(needed)} and a line a model"
        )
    check_families({model: row["family"] for model, row in found.items()}, str(path))
    return found


def check_families(families: dict[str, str], where: str) -> None:
    """Within and between families can be compared only where there are two families, one of them
    with two models.
    """
    names = list(families.values())
    if len(set(names)) < 2:
        raise ValueError(
            f"{where}: all {len(names)} models are of one family, {names[0]!r}; comparing families "
            "needs two or more"
        )
    if len(set(names)) == len(names):
        raise ValueError(
            f"{where}: no family has two models; comparing within families needs one that has"
        )


def slug(model: str) -> str:
    """A model's name as a file's name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", model).strip(".") or "_"


def match(names: list[str], catalogue: dict) -> tuple[dict[str, str], list[str], list[str]]:
    """({model of the catalogue: its name in the data}, names not in the catalogue, names left out
    as second ones of a model).

    A name is a model's own, or 'vendor/model'; the own name wins over the latter, and the first of
    equals.
    """
    chosen: dict[str, str] = {}
    unknown, second = [], []
    for name in sorted(dict.fromkeys(names), key=lambda name: name not in catalogue):
        model = name if name in catalogue else name.rsplit("/", 1)[-1]
        if model not in catalogue:
            unknown.append(name)
        elif model in chosen:
            second.append(name)
        else:
            chosen[model] = name
    return chosen, unknown, second
