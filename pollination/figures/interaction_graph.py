"""Draw who reads whom: the interaction graph of each experiment that has one."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch

from pollination.analysis import interaction
from pollination.analysis.run import Run
from pollination.figures import style
from pollination.plan import layout
from pollination.plan.graph import Graph, graph_of
from pollination.plan.operators import text_of

COLUMNS = (
    "experiment",
    "generation",
    "member",
    "writers",
    "human",
    "sources",
    "kinds",
    "diversity",
)
MOST = 4  # panels of an experiment whose generations have graphs of their own
COLOURS = (style.SKY, style.ORANGE, style.GREEN, style.PURPLE, style.YELLOW, style.VERMILLION)


def draw(run: Run, out: Path) -> None:
    names = [name for name, e in run.plan.config["experiments"].items() if text_of(e).is_graph]
    panels, rows = [], []
    for name in names:
        panels += [(name, generations) for generations in distinct(run, name)[:MOST]]
        rows += interaction.rows(run.plan, name)
    if not panels:
        return style.nothing("No experiment with a graph has children.", out, COLUMNS)
    figure, axes = style.grid(len(panels), columns=4, width=2.9, height=3.1)
    for axis, (name, generations) in zip(axes, panels, strict=True):
        graph = graph_of(run.plan, name, generations[0])
        draw_panel(axis, run, name, graph)
        mine = [r for r in rows if (r["experiment"], r["generation"]) == (name, generations[0])]
        human = f"{mine[0]['human']:.0%} human, " if mine[0]["human"] else ""
        sources = f"{np.mean([row['sources'] for row in mine]):.3g}"
        axis.set_title(
            f"{name}, {said(generations)}\n{human}{sources} sources per child, "
            f"D {mine[0]['diversity']:.3g}",
            fontsize=8.5,
        )
    style.save(figure, rows, out)
    return None


def distinct(run: Run, name: str) -> list[list[int]]:
    """Return the generations of each distinct graph, in the order of the first."""
    found: dict[str, list[int]] = {}
    for g in range(1, run.plan.experiment(name)["generations"]):
        found.setdefault(str(graph_of(run.plan, name, g).rows), []).append(g)
    return list(found.values())


def said(generations: list[int]) -> str:
    first, last = generations[0], generations[-1]
    if first == last:
        return f"generation {first}"
    if generations == list(range(first, last + 1)):
        return f"generations {first} to {last}"
    return f"generations {', '.join(map(str, generations[:3]))}{', ...' * (len(generations) > 3)}"


def draw_panel(axis: Axes, run: Run, name: str, graph: Graph) -> None:
    """Draw writers and children on one circle, or with selection in two columns."""
    selects = layout.selects(run.plan, name)
    children = run.plan.experiment(name)["population"]
    if selects:
        writers_at = column(-1, graph.writers)
        children_at = column(1, children)
    else:
        angles = np.pi / 2 - 2 * np.pi * np.arange(children) / children
        writers_at = children_at = np.column_stack([np.cos(angles), np.sin(angles)])
    size = max(4.0, min(18.0, 90 / children))
    for child in range(children):
        for writer, share in graph.of(child).items():
            loop = not selects and writer == child
            start, end = writers_at[writer], children_at[child]
            axis.add_patch(
                FancyArrowPatch(
                    tuple(1.02 * start + (0.12 * perpendicular(start) if loop else 0)),
                    tuple(1.02 * end - (0.12 * perpendicular(end) if loop else 0)),
                    arrowstyle="-|>",
                    mutation_scale=7,
                    connectionstyle=f"arc3,rad={-1.8 if loop else 0.0 if selects else 0.12}",
                    shrinkA=0 if loop else size * 0.6,
                    shrinkB=0 if loop else size * 0.6,
                    lw=0.4 + 2.2 * share,
                    color=style.BLACK,
                    alpha=0.25 + 0.6 * share,
                )
            )
    kinds = list(dict.fromkeys(layout.kinds(run.plan, name)))
    colours = [COLOURS[kinds.index(k) % len(COLOURS)] for k in layout.kinds(run.plan, name)]
    for place, at in enumerate(children_at):
        node(axis, at, str(place), size, colours[place] if not selects else "#dddddd")
    for rank, at in enumerate(writers_at) if selects else ():
        node(axis, at, f"r{rank}", size, style.SKY)
    axis.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal")
    axis.set_axis_off()


def column(x: float, count: int) -> np.ndarray:
    return np.column_stack([np.full(count, x), np.linspace(1.2, -1.2, count + 2)[1:-1]])


def perpendicular(vector: np.ndarray) -> np.ndarray:
    return np.array([-vector[1], vector[0]])


def node(axis: Axes, at: np.ndarray, label: str, size: float, colour: str) -> None:
    axis.plot(*at, "o", ms=size, color=colour, mec=style.BLACK, mew=0.8)
    if size > 8:
        axis.text(at[0], at[1], label, ha="center", va="center", fontsize=7.5)
