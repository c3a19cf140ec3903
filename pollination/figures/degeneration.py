"""Draw the share of degenerate text by kind over generations.

Study A underlines such text in figure 7 and tables 3 to 5.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pollination.analysis.degeneration import KINDS, find, shares
from pollination.analysis.run import ROLES, Run
from pollination.core.statistics import jackknife_interval
from pollination.figures import style

COLUMNS = ("role", "generation", "kind", "value", "low", "high", "models", "texts")
PANELS = {"any": "all kinds"} | {kind: KINDS[kind] for kind in KINDS} | {"empty": "empty text"}


def draw(run: Run, out: Path) -> None:
    rows = pd.DataFrame(
        [row for role in ROLES for row in measure(run, role)], columns=list(COLUMNS)
    )
    draw_panels(rows, out)


def measure(run: Run, role: str) -> list[dict]:
    """Return rows of COLUMNS: mean shares of characters, with intervals over prompts."""
    rows, vocabulary = [], run.vocabulary(run.roles[role])
    for g in range(run.generations(role)):
        folders = list(run.members(role, g).folder)
        read = [
            run.table(folder, "samples.parquet", ["prompt_id", "prompt", "completion"])
            for folder in folders
        ]
        said = pd.concat(read, ignore_index=True)
        text_shares = [
            shares(row.completion, find(row.completion, vocabulary, row.prompt))
            for row in said.itertuples()
        ]
        by_prompt = pd.DataFrame(text_shares).groupby(said.prompt_id, sort=False).mean()
        for kind in PANELS:
            values = by_prompt[kind].to_numpy()
            interval = jackknife_interval(
                values.mean(), (values.sum() - values) / max(1, len(values) - 1)
            )
            low, high = np.clip([interval["low"], interval["high"]], 0, 1)
            row = {
                "role": role,
                "generation": g,
                "kind": kind,
                "value": interval["mean"],
                "low": low,
                "high": high,
            }
            rows.append(row | {"models": len(folders), "texts": len(said)})
    return rows


def draw_panels(rows: pd.DataFrame, out: Path) -> None:
    """Draw the kinds that occur; the title names those that do not."""
    found = {kind for kind in PANELS if (rows[rows.kind == kind].value > 0).any()}
    if len(found & set(KINDS)) == 1:
        found -= {"any"}  # it equals the only kind
    if not found:
        return style.nothing("The samples hold no degenerate text.", out, COLUMNS, rows)
    panels = {kind: title for kind, title in PANELS.items() if kind in found}
    absent = [title for kind, title in PANELS.items() if kind not in found | {"any"}]
    width = max(3.3, 6.6 / len(panels))
    figure, axes = style.grid(len(panels), columns=3, width=width, height=2.3)
    if absent:
        figure.supxlabel(f"not found: {', '.join(absent)}", fontsize=8, color="#555555")
    for axis, (kind, title) in zip(axes, panels.items(), strict=True):
        here = rows[rows.kind == kind]
        for role, part in here.groupby("role", sort=False):
            style.band(
                axis, role, part.generation, 100 * part.value, 100 * part.low, 100 * part.high
            )
        axis.set_title(title)
        top = 100 * np.nanmax([*here.high, *here.value, 0.0])
        axis.set_ylim(0, min(100, 1.05 * top) if top else 1)
        style.generation_axis(axis, int(rows.generation.max()))
        axis.set_ylabel("% of texts" if kind == "empty" else "% of characters")
    roles = [role for role in ROLES if (rows.role == role).any()]
    style.legend(
        figure, [style.key(role, f"{style.NAME[role]} (band: 95 % over prompts)") for role in roles]
    )
    style.save(figure, rows, out)
