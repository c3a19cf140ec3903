"""Draw ecosystems side by side: perplexity over rounds, and aggregated (B, figures 15 to 21)."""

from pathlib import Path

from pollination.analysis import trajectories
from pollination.analysis.run import Run
from pollination.figures import curves, style


def draw(run: Run, out: Path) -> None:
    roles = run.plan.config["figures"]
    count = len(roles["comparisons"])
    figure, axes = style.grid(2 * count, columns=2, width=4.6, height=3.3)
    rows = []
    for index, (title, entry) in enumerate(roles["comparisons"].items()):
        over_time, aggregated = axes[2 * index : 2 * index + 2]
        ecosystems = trajectories.read(run, entry, roles["text"])
        mean = trajectories.optimum(ecosystems, title, by_place=True)
        last = mean.mu_DT.shape[1] - 1
        for place, ecosystem in enumerate(ecosystems):
            low, mu, high = (
                values[place, last] for values in (mean.low_DT, mean.mu_DT, mean.high_DT)
            )
            ends = {
                "T": last + 1,
                "aggregate": mu,
                "low": low,
                "high": high,
                "best_probability": mean.probability_DT[place, last],
            }
            rows += [{"title": title} | row | ends for row in ecosystem.rows()]
            aggregated.hlines(place, low, high, color=curves.look(place)["color"], lw=2)
            aggregated.plot(mu, place, ms=6, **curves.look(place))
        curves.draw_trajectories(over_time, ecosystems)
        over_time.set_title(f"{title}, {roles['text']}")
        over_time.legend(
            handles=[*curves.keys([one.label for one in ecosystems]), curves.band_key()],
            loc="upper left",
        )
        if mean.high_DT[:, last].max() > curves.SPREAD * mean.low_DT[:, last].min():
            aggregated.set_xscale("log")
        aggregated.set_yticks(range(len(ecosystems)), [ecosystem.label for ecosystem in ecosystems])
        aggregated.set_ylim(len(ecosystems) - 0.5, -0.5)
        aggregated.set_xlabel(f"perplexity, mean of {last + 1} rounds (95 % interval)")
        aggregated.margins(x=0.1)
    style.save(figure, rows, out)
