"""Draw effective data quality against the effect of training (study B, equation 7)."""

from pathlib import Path

import numpy as np
import pandas as pd

from pollination.analysis.ecosystems import regimes
from pollination.analysis.run import Run
from pollination.core import artifacts
from pollination.core.seeds import derive_seed
from pollination.figures import curves, style
from pollination.plan import layout

COLUMNS = (
    "distance",
    "corrected",
    "kind",
    "experiment",
    "generation",
    "member",
    "text",
    "text_floor",
    "before",
    "after",
    "delta",
    "change",
    "change_stderr",
    "regime",
    "outcome",
)
STATISTICS = (
    "rank_correlation",
    "low",
    "high",
    "boundary",
    "boundary_low",
    "boundary_high",
    "parted",
    "same_sign",
    "n",
    "lineages",
)
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
            statistics = regimes(
                children.delta.to_numpy(),
                children.change.to_numpy(),
                lineages,
                derive_seed("quality", distance),
            )
            draw_panel(axis, children, experiments, statistics)
        else:
            statistics = dict.fromkeys(STATISTICS, float("nan"))
        what = f"{NAMES[distance]}{', less the floor' if corrected else ''}"
        axis.set_title(title(statistics, what), fontsize=8.5)
        parts.append(mine.assign(**statistics))
    style.legend(figure, curves.keys(experiments))
    style.save(figure, pd.concat(parts)[[*COLUMNS, *STATISTICS]], out)


def draw_panel(axis, children: pd.DataFrame, experiments: list[str], statistics: dict) -> None:
    """Draw children by experiment, and the boundary if there is one."""
    for place, name in enumerate(experiments):
        mine = children[children.experiment == name]
        axis.plot(mine.delta, mine.change, ms=4, alpha=0.75, **(curves.look(place) | {"ls": ""}))
    axis.axhline(0, color=style.BLACK, lw=0.8)
    axis.axvline(0, color=style.BLACK, lw=0.8)
    if np.isfinite(statistics["boundary"]):
        axis.axvline(statistics["boundary"], color=style.VERMILLION, ls="--", lw=1.2)
        axis.axvspan(
            statistics["boundary_low"],
            statistics["boundary_high"],
            color=style.VERMILLION,
            alpha=0.1,
            lw=0,
        )
    axis.set_xlabel("distance of text minus distance of model before training")
    axis.set_ylabel("change of loss, nats per token\n(above 0: harm)")


def title(statistics: dict, what: str) -> str:
    if not np.isfinite(statistics["rank_correlation"]):
        return f"{what}\ntoo few trainings for a rank correlation"
    said = (
        f"{what}: {statistics['n']} trainings\n"
        f"rank correlation {statistics['rank_correlation']:.2f} "
        f"[{statistics['low']:.2f}, {statistics['high']:.2f}]"
        f", signs agree in {statistics['same_sign']:.0%}"
    )
    if np.isfinite(statistics["boundary"]):
        return (
            f"{said}\nboundary {statistics['boundary']:.2f} [{statistics['boundary_low']:.2f}, "
            f"{statistics['boundary_high']:.2f}] classifies {statistics['parted']:.0%} correctly"
        )
    return f"{said}\nno boundary: all trainings harmed, or none did"


def trainings(run: Run) -> list[dict]:
    """Return a row per training, distance and correction; shared founders count once.

    regime: high if the text is closer to the truth than the model was, by two standard deviations
    of a true sample's distance; low if it is farther by as much; else medium. outcome: helped,
    harmed, or unchanged (within two standard errors).
    """
    rows, seen = [], set()
    for name in run.plan.config["experiments"]:
        for g in range(run.plan.experiment(name)["generations"]):
            for m in range(run.plan.experiment(name)["population"]):
                folder = layout.member_folder(run.plan, name, g, m)
                if folder not in seen:
                    seen.add(folder)
                    rows += training_rows(
                        artifacts.read_json(f"{folder}/quality.json"),
                        {"experiment": name, "generation": g, "member": m},
                    )
    return sorted(rows, key=lambda row: (row["distance"], row["corrected"]))


def training_rows(quality: dict, about: dict) -> list[dict]:
    change, noise = quality["performance"]["change"], quality["performance"]["change_stderr"]
    about = about | {"kind": quality["kind"], "change": change, "change_stderr": noise}
    about["outcome"] = (
        "harmed" if change > 2 * noise else "helped" if change < -2 * noise else "unchanged"
    )
    rows = []
    for distance, measured in quality["distances"].items():
        for corrected in (False, True) if measured["text_floor_sd"] > 0 else (False,):
            delta = measured["delta_corrected" if corrected else "delta"]
            clear = 2 * measured["text_floor_sd"]
            regime = "low" if delta > clear else "high" if delta < -clear else "medium"
            shown = {key: measured[key] for key in ("text", "text_floor", "before", "after")}
            rows.append(
                about
                | shown
                | {"distance": distance, "corrected": corrected, "delta": delta, "regime": regime}
            )
    return rows
