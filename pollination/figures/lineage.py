"""The final champion's ancestry as a graph: generations from left to right, slots from top to bottom."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from pollination.figures import style
from pollination.figures.data import Run
from pollination.lineage import ancestry

COLUMNS = ("experiment", "generation", "member", "value", "selected", "ancestor", "champion", "weights_from", "text_from")


def draw(run: Run, out: Path) -> None:
    name = (run.roles["population"] + run.roles["line"])[0]
    generations, size = run.plan.experiment(name)["generations"], run.plan.experiment(name)["population"]
    champion = (generations - 1, run.champion(name, generations - 1))
    nodes = {(node["generation"], node["member"]): node for node in ancestry(run.plan, name, *champion)["nodes"]}
    values, what = {}, ""
    for g in range(generations):
        what, ranked = run.yardstick(name, g)
        values |= {(g, m): float(value) for m, value in enumerate(ranked)}
    rows = []
    for place, value in values.items():
        node, parents = nodes.get(place), run.parents(name, place[0])
        row = {"experiment": name, "generation": place[0], "member": place[1], "value": value, "selected": place[1] in parents}
        row |= {"ancestor": node is not None, "champion": place == champion}
        weights, text = (node["weights_from"], node["text_from"]) if node else (None, [])
        rows.append(row | {"weights_from": label([weights] if weights else []), "text_from": label(text)})
    figure, (axis,) = style.grid(1, columns=1, width=min(20.0, 3.6 + 1.3 * generations), height=max(2.2, 1.4 + 0.42 * size))
    draw_edges(axis, nodes, last=champion[0])
    scale = ScalarMappable(Normalize(*limits([row["value"] for row in rows])), cmap="viridis")
    big = 21 if generations <= 12 else 8
    for row in rows:
        draw_node(axis, row, scale, big, bool(run.parents(name, row["generation"])))
    axis.set_xlim(-0.5, generations - 0.5)
    axis.set_ylim(size - 0.4, -0.6)
    axis.set_yticks(range(size), [f"member {m}" for m in range(size)])
    axis.xaxis.set_major_locator(style.MaxNLocator(integer=True, min_n_ticks=1))
    axis.set_xlabel("generation")
    axis.grid(visible=False)
    for side in ("left", "bottom"):
        axis.spines[side].set_visible(False)
    axis.tick_params(length=0)
    figure.colorbar(scale, ax=axis, label=what, pad=0.02, fraction=0.04, aspect=14)
    axis.set_title(f"{name}: ancestors of its champion,\nmember {champion[1]} of generation {champion[0]} ({run.champion_rule()})")
    style.legend(figure, keys(run, name))
    style.save(figure, pd.DataFrame(rows, columns=list(COLUMNS)), out)


def limits(values: list[float]) -> tuple[float, float]:
    return (min(values), max(values)) if max(values) > min(values) else (min(values) - 0.01, max(values) + 0.01)


def label(places: list[tuple[int, int]]) -> str:
    return "; ".join(f"generation {g} member {m}" for g, m in places)


def draw_edges(axis: Axes, nodes: dict[tuple[int, int], dict], last: int) -> None:
    """Weights solid, text dashed; bent apart, so that both show where one parent gave both."""
    for (generation, member), node in nodes.items():
        weights = [(node["weights_from"], "-", style.BLACK, 0.13, 1.7)] if node["weights_from"] else []
        text = [(place, (0, (4, 2.5)), style.VERMILLION, -0.13, 1.4) for place in node["text_from"]]
        for (g, m), dash, colour, bend, width in weights + text:
            shape = {
                "connectionstyle": f"arc3,rad={bend}",
                "arrowstyle": "-|>",
                "mutation_scale": 9,
                "shrinkA": 11,
                "shrinkB": 16 if node["generation"] == last else 11,
            }
            look = {"linestyle": dash, "color": colour, "linewidth": width, "alpha": 0.85, "zorder": 1}
            axis.add_patch(FancyArrowPatch((g, m), (generation, member), **shape, **look))


def draw_node(axis: Axes, row: dict, scale: ScalarMappable, size: float, selects: bool) -> None:
    grey = not row["ancestor"] and not (selects and row["selected"])
    face = "#dcdcdc" if grey else scale.to_rgba(row["value"])
    place = (row["generation"], row["member"])
    if row["champion"]:
        axis.plot(*place, marker="o", ms=size * 1.42, mfc="white", mec=style.VERMILLION, mew=2.2, zorder=2)
    edge = {"mec": "black" if row["ancestor"] else "white", "mew": 1.4 if row["ancestor"] else 0.5}
    axis.plot(
        *place,
        marker="o",
        ms=size if row["ancestor"] else size * 0.72,
        mfc=face,
        alpha=1 if row["ancestor"] or grey else 0.55,
        zorder=3,
        **edge,
    )
    if row["ancestor"] and size > 10:
        dark = sum(face[:3]) < 1.5
        axis.text(*place, f"{row['value']:.2f}", ha="center", va="center", fontsize=7, color="white" if dark else "black", zorder=4)


def keys(run: Run, name: str) -> list:
    handles = [
        Line2D([], [], color=style.BLACK, lw=1.7, label="weights from"),
        Line2D([], [], color=style.VERMILLION, lw=1.4, ls=(0, (4, 2.5)), label="text from"),
        Line2D([], [], ls="", marker="o", ms=8, mfc="#35b779", mec="black", mew=1.4, label="ancestor"),
        Line2D([], [], ls="", marker="o", ms=10, mfc="white", mec=style.VERMILLION, mew=2, label="champion"),
    ]
    if run.plan.selects(name):
        handles.append(Line2D([], [], ls="", marker="o", ms=6, mfc="#35b779", mec="white", alpha=0.55, label="other parent"))
        handles.append(Line2D([], [], ls="", marker="o", ms=6, mfc="#dcdcdc", mec="white", label="not selected"))
    return handles
