"""Read models.csv, the list of deployed models: model, family, release (YYYY-MM).

Surveys of kind `collect` also need the address where each model is served. No heavy imports.
"""

import re
from pathlib import Path

from pollination.core.datafiles import read_records
from pollination.core.datafiles.formats import place
from pollination.plan.config.endpoints import read_endpoint

NEEDED = ("model", "family", "release")
SERVED = ("base_url", "name")  # needed by collect: the endpoint, and the model's name there


def read_catalogue(path: str | Path, served: bool = False) -> dict[str, dict]:
    """Return {model: its row}, in the file's order, with `month` (months since year 0) added.

    Raises ValueError with file, line and fix.
    """
    needed = NEEDED + (SERVED if served else ())
    found: dict[str, dict] = {}
    for number, cells in read_records(Path(path).expanduser()):
        row = {key: "" if cell is None else str(cell).strip() for key, cell in cells.items()}
        where = place(path, number)
        for key in needed:
            if not row.get(key):
                raise ValueError(
                    f"{where}: no {key} for model {row.get('model') or '?'!r}; add "
                    f"it; needed columns: {', '.join(needed)}"
                )
        try:
            _ = read_endpoint(row["base_url"]) if served else None
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", row["release"]):
            raise ValueError(
                f"{where}: release {row['release']!r} of {row['model']} is not a "
                "month; write it as YYYY-MM, e.g. 2025-03"
            )
        if row["model"] in found:
            raise ValueError(
                f"{where}: model {row['model']!r} appears twice; keep one line per model"
            )
        year, month = row["release"].split("-")
        found[row["model"]] = row | {"month": 12 * int(year) + int(month)}
    if not found:
        raise ValueError(
            f"{path}: the file lists no models; write the header {','.join(needed)} and one line "
            "per model"
        )
    check_families({model: row["family"] for model, row in found.items()}, str(path))
    return found


def check_families(families: dict[str, str], where: str) -> None:
    """Raise ValueError unless there are two families, one of them with two models.

    Otherwise models cannot be compared within and between families.
    """
    names = list(families.values())
    if len(set(names)) < 2:
        raise ValueError(
            f"{where}: all {len(names)} models belong to one family, {names[0]!r}; add a model of "
            "another family"
        )
    if len(set(names)) == len(names):
        raise ValueError(
            f"{where}: every family has only one model; add a second model to one of them"
        )


def slug(model: str) -> str:
    """Return a model's name as a file name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", model).strip(".") or "_"


def match(names: list[str], catalogue: dict) -> tuple[dict[str, str], list[str], list[str]]:
    """Return ({model of the catalogue: its name in the data}, unknown names, duplicate names).

    A name in the data is the model's own name or 'vendor/model'. The own name wins, then the first
    name; other names of the same model are duplicates.
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
