"""Draw effective data quality against the effect of training (study B, equation 7)."""

from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pandas as pd

from pollination.analysis.regimes import Regimes, regimes
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
    "loss_before",
    "delta",
    "change",
    "change_stderr",
    "regime",
    "outcome",
)
STATISTICS = tuple(field.name for field in fields(Regimes))
VERDICTS = {
    "supported": "supported (both tests are significant)",
    "contradicted": "contradicted (both tests are significant)",
    "undecided": "undecided (not both tests are significant)",
    "no test": "no test",
}
NAMES = {"sentences": "sentences", "next_token": "next tokens", "bigrams": "bigrams (a proxy)"}


def draw(run: Run, out: Path) -> None:
    rows = pd.DataFrame(trainings(run), columns=list(COLUMNS))
    panels = list(dict.fromkeys(zip(rows.distance, rows.corrected, strict=True)))
    figure, axes = style.grid(len(panels), columns=2, width=4.9, height=3.9)
    parts, experiments = [], list(dict.fromkeys(rows.experiment[rows.generation > 0]))
    for axis, (distance, corrected) in zip(axes, panels, strict=True):
        mine = rows[(rows.distance == distance) & (rows.corrected == corrected)]
        children = mine[mine.generation > 0]
        what = f"{NAMES[distance]}{', less the floor' if corrected else ''}"
        said, columns = f"{what}: founders only", dict.fromkeys(STATISTICS, float("nan"))
        if len(children):
            # the distances of texts less the floor, where the panel subtracts it
            tested = children.assign(text=children.text - children.corrected * children.text_floor)
            statistics = regimes(tested, derive_seed("quality", distance))
            draw_panel(axis, children, experiments, statistics)
            said, columns = title(statistics, what), asdict(statistics)
        axis.set_title(said, fontsize=7.5)
        parts.append(mine.assign(**columns))
    style.legend(figure, curves.keys(experiments))
    style.save(figure, pd.concat(parts)[[*COLUMNS, *STATISTICS]], out)


def draw_panel(axis, children: pd.DataFrame, experiments: list[str], statistics: Regimes) -> None:
    """Draw children by experiment, and the boundary if there is one."""
    for place, name in enumerate(experiments):
        mine = children[children.experiment == name]
        axis.plot(mine.delta, mine.change, ms=4, alpha=0.75, **(curves.look(place) | {"ls": ""}))
    axis.axhline(0, color=style.BLACK, lw=0.8)
    axis.axvline(0, color=style.BLACK, lw=0.8)
    if np.isfinite(statistics.boundary):
        axis.axvline(statistics.boundary, color=style.VERMILLION, ls="--", lw=1.2)
    if np.isfinite(statistics.boundary_low):
        ends = statistics.boundary_low, statistics.boundary_high
        axis.axvspan(*ends, color=style.VERMILLION, alpha=0.1, lw=0)
    axis.set_xlabel("distance of text minus distance of model before training")
    axis.set_ylabel("change of loss, nats per token\n(above 0: harm)")


def title(said: Regimes, what: str) -> str:
    """Return the tests, then the raw numbers, each beside its mean with permuted texts."""
    if np.isnan(said.partial):
        tests = "no partial correlation: too few trainings, or texts of equal distance"
    elif np.isnan(said.partial_low):
        tests = f"given the model before: rank correlation {said.partial:.2f}, one run: no interval"
    else:
        interval = f"[{said.partial_low:.2f}, {said.partial_high:.2f}]"
        tests = f"given the model before: rank correlation {said.partial:.2f} {interval}"
    tests += (
        "\nno permutation test: no text can be exchanged within a round"
        if np.isnan(said.permutation_p)
        else f"\nwithin a round: {said.within:.2f}, permutation p = {said.permutation_p:.3f}"
    )
    lines = [f"{what}, {said.n} trainings: {VERDICTS[said.verdict]}", tests]
    if np.isfinite(said.rank_correlation):
        lines.append(
            f"raw {said.rank_correlation:.2f}{_null(said.rank_correlation_null, '.2f')}, "
            f"signs agree in {said.same_sign:.0%}{_null(said.same_sign_null, '.0%')}"
        )
    if np.isfinite(said.boundary):
        lines.append(
            f"boundary {said.boundary:.2f} classifies {said.parted:.0%} correctly"
            f"{_null(said.parted_null, '.0%')}"
        )
    else:
        lines.append("no boundary: all trainings harmed, or none did")
    return "\n".join(lines)


def _null(value: float, form: str) -> str:
    return f" (permuted: {value:{form}})" if np.isfinite(value) else ""


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
    about["loss_before"] = quality["performance"]["nll_per_token_before"]
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
