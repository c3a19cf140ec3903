"""Draw the disagreement of members over rounds, and its relation to later perplexity."""

from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from pollination.analysis import trajectories
from pollination.analysis.run import Run
from pollination.core import artifacts
from pollination.figures import curves, style

COLUMNS = (
    "label",
    "experiment",
    "diversity",
    "replicate",
    "t",
    "js",
    "effective_models",
    "mu",
    "change_of_log_mu",
)


def draw(run: Run, out: Path) -> None:
    roles, rows = run.plan.config["figures"], []
    entries = {
        label: trajectories.read(run, entry, roles["text"])
        for label, entry in roles["ecosystems"].items()
    }
    for label, ecosystems in entries.items():
        for ecosystem in ecosystems:
            names = roles["ecosystems"][label][ecosystem.label]
            rows += [
                row
                for replicate, name in enumerate(names)
                for row in replicate_rows(run, label, ecosystem, replicate, name)
            ]
    if not rows:
        return style.nothing(
            "No ecosystem has two or more members to compare.",
            out,
            COLUMNS,
        )
    figure, axes = style.grid(2 * len(entries), columns=2, width=4.6, height=3.1)
    for index, (label, ecosystems) in enumerate(entries.items()):
        over_time, effect = axes[2 * index : 2 * index + 2]
        shown = [
            ecosystem
            for ecosystem in sorted(ecosystems, key=lambda ecosystem: ecosystem.diversity)
            if ecosystem.models > 1
        ]
        for place, ecosystem in enumerate(shown):
            mine = [
                row for row in rows if (row["label"], row["experiment"]) == (label, ecosystem.label)
            ]
            means = [
                np.mean([row["effective_models"] for row in mine if row["t"] == t])
                for t in range(ecosystem.rounds)
            ]
            over_time.plot(range(ecosystem.rounds), means, ms=4, lw=1.5, **curves.look(place))
            moved = [row for row in mine if np.isfinite(row["change_of_log_mu"])]
            effect.plot(
                [r["js"] for r in moved],
                [r["change_of_log_mu"] for r in moved],
                ms=4.5,
                alpha=0.85,
                **(curves.look(place) | {"ls": ""}),
            )
        over_time.axhline(1, color=style.BLACK, ls=":", lw=1)
        over_time.set_ylabel("effective number of models\nexp(JS of next tokens)")
        over_time.legend(
            handles=curves.keys([f"D = {ecosystem.diversity:.3g}" for ecosystem in shown]),
            loc="best",
        )
        over_time.set_title(label)
        if shown:
            style.generation_axis(over_time, shown[0].rounds - 1)
        over_time.set_xlabel("round t")
        effect.axhline(0, color=style.BLACK, ls=":", lw=1)
        effect.set_xlabel("disagreement in round t, JS in nats")
        effect.set_ylabel("change of log perplexity\nfrom round t to t + 1")
        effect.set_title(correlation([row for row in rows if row["label"] == label]))
    style.save(figure, [{key: row[key] for key in COLUMNS} for row in rows], out)


def replicate_rows(
    run: Run, label: str, ecosystem: trajectories.Ecosystem, replicate: int, name: str
) -> list[dict]:
    """Return a row per round of one replicate; no change follows the last round."""
    if ecosystem.models < 2:
        return []
    mu = np.mean([member.mean(axis=1) for member in ecosystem.perplexity[replicate]], axis=0)
    change = [*np.diff(np.log(mu)), np.nan]
    shared = {
        "label": label,
        "experiment": ecosystem.label,
        "diversity": ecosystem.diversity,
        "replicate": replicate,
    }
    reports = [
        artifacts.read_json(f"{run.plan.results}/{name}/gen{t}/disagreement.json")
        for t in range(ecosystem.rounds)
    ]
    return [
        shared
        | {key: reports[t][key] for key in ("js", "effective_models")}
        | {"t": t, "mu": mu[t], "change_of_log_mu": change[t]}
        for t in range(ecosystem.rounds)
    ]


def correlation(rows: list[dict]) -> str:
    pairs = [
        (row["js"], row["change_of_log_mu"]) for row in rows if np.isfinite(row["change_of_log_mu"])
    ]
    if len(pairs) < 3 or len(set(pairs)) < 3:
        return "too few rounds for a rank correlation"
    coefficient = spearmanr(*zip(*pairs, strict=True)).statistic
    return f"rank correlation {coefficient:.2f} over {len(pairs)} rounds"
