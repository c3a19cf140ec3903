"""Effective data quality against what training did: do the regimes of study B's hypothesis hold (its equation 7)?"""

from pathlib import Path

import numpy as np
import pandas as pd

from pollination import artifacts
from pollination.ecosystems import regimes
from pollination.figures import curves, style
from pollination.figures.data import Run
from pollination.seeds import derive_seed

COLUMNS = ("distance", "corrected", "kind", "experiment", "generation", "member", "text", "text_floor", "before", "after", "delta", "change", "change_stderr", "regime", "outcome")  # fmt: skip
STATISTICS = ("rank_correlation", "low", "high", "boundary", "boundary_low", "boundary_high", "parted", "same_sign", "n", "lineages")
NAMES = {"sentences": "sentences", "next_token": "next tokens", "bigrams": "bigrams (a proxy)"}


def draw(run: Run, out: Path) -> None:
    rows = pd.DataFrame(trainings(run), columns=list(COLUMNS))
    panels = list(dict.fromkeys(zip(rows.distance, rows.corrected, strict=True)))
    figure, axes = style.grid(len(panels), columns=2, width=4.9, height=3.5)
    parts, experiments = [], list(dict.fromkeys(rows.experiment[rows.generation > 0]))
    for axis, (distance, corrected) in zip(axes, panels, strict=True):
        mine = rows[(rows.distance == distance) & (rows.corrected == corrected)]
        children = mine[mine.generation > 0]
        if len(children):
            lineages = list(zip(children.experiment, children.member, strict=True))
            found = regimes(children.delta.to_numpy(), children.change.to_numpy(), lineages, derive_seed("quality", distance))
            draw_panel(axis, children, experiments, found)
        else:
            found = dict.fromkeys(STATISTICS, float("nan"))
        axis.set_title(title(found, f"{NAMES[distance]}{', less the floor' if corrected else ''}"), fontsize=8.5)
        parts.append(mine.assign(**found))
    style.legend(figure, curves.keys(experiments))
    style.save(figure, pd.concat(parts)[[*COLUMNS, *STATISTICS]], out)


def draw_panel(axis, children: pd.DataFrame, experiments: list[str], found: dict) -> None:
    """Children by experiment, and the boundary where there is one."""
    for place, name in enumerate(experiments):
        mine = children[children.experiment == name]
        axis.plot(mine.delta, mine.change, ms=4, alpha=0.75, **(curves.look(place) | {"ls": ""}))
    axis.axhline(0, color=style.BLACK, lw=0.8)
    axis.axvline(0, color=style.BLACK, lw=0.8)
    if np.isfinite(found["boundary"]):
        axis.axvline(found["boundary"], color=style.VERMILLION, ls="--", lw=1.2)
        axis.axvspan(found["boundary_low"], found["boundary_high"], color=style.VERMILLION, alpha=0.1, lw=0)
    axis.set_xlabel("distance of text minus distance of model before")
    axis.set_ylabel("change of loss, nats a token\n(above 0: harm)")


def title(found: dict, what: str) -> str:
    if not np.isfinite(found["rank_correlation"]):
        return f"{what}\ntoo few trainings for a correlation"
    said = f"{what}: {found['n']} trainings\nrank correlation {found['rank_correlation']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
    said += f", signs agree in {found['same_sign']:.0%}"
    if np.isfinite(found["boundary"]):
        return f"{said}\nboundary {found['boundary']:.2f} [{found['boundary_low']:.2f}, {found['boundary_high']:.2f}] parts {found['parted']:.0%}"
    return f"{said}\nno boundary: all trainings harmed, or none"


def trainings(run: Run) -> list[dict]:
    """A row a training, distance and correction. Founders that experiments share stand there once.

    regime: high (text clearly nearer to the truth: by two standard deviations of a true sample's distance), low (clearly farther) or
    medium quality. outcome: helped, harmed, or unchanged within two standard errors.
    """
    rows, seen = [], set()
    for name in run.plan.config["experiments"]:
        for g in range(run.plan.experiment(name)["generations"]):
            for m in range(run.plan.experiment(name)["population"]):
                folder = run.plan.member(name, g, m)
                if folder not in seen:
                    seen.add(folder)
                    rows += training_rows(artifacts.read_json(f"{folder}/quality.json"), {"experiment": name, "generation": g, "member": m})
    return sorted(rows, key=lambda row: (row["distance"], row["corrected"]))


def training_rows(quality: dict, about: dict) -> list[dict]:
    change, noise = quality["performance"]["change"], quality["performance"]["change_stderr"]
    about = about | {"kind": quality["kind"], "change": change, "change_stderr": noise}
    about["outcome"] = "harmed" if change > 2 * noise else "helped" if change < -2 * noise else "unchanged"
    rows = []
    for distance, found in quality["distances"].items():
        for corrected in (False, True) if found["text_floor_sd"] > 0 else (False,):
            delta, clear = found["delta_corrected" if corrected else "delta"], 2 * found["text_floor_sd"]
            regime = "low" if delta > clear else "high" if delta < -clear else "medium"
            shown = {key: found[key] for key in ("text", "text_floor", "before", "after")}
            rows.append(about | shown | {"distance": distance, "corrected": corrected, "delta": delta, "regime": regime})
    return rows
