"""Write the page of descent: generations from left to right, members from top to bottom.

The page shows a model's parents, score and text when the reader points at it or clicks it. The
final champion's ancestors have a black rim.
"""

from pathlib import Path

import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex

from pollination.analysis.run import Run
from pollination.figures import page, style
from pollination.plan import layout
from pollination.plan.lineage import ancestry, family, givers

COLUMNS = (
    "experiment",
    "generation",
    "member",
    "value",
    "selected",
    "ancestor",
    "champion",
    "weights_from",
    "text_from",
)
ACROSS, DOWN = 120, 44  # pixels between generations, and between members
RADIUS, LEFT = 15, 92  # pixels of a model's radius, and left of the first generation
TEXTS = 2  # completions on a model's card
STYLE = """<style>
svg {{ max-width: 100%; height: auto; display: block; }} \
svg text {{ font: 11px system-ui, sans-serif; pointer-events: none; }}
.edge {{ fill: none; stroke: #888; stroke-width: 1.1; opacity: .16; }} \
.edge.text {{ stroke: #D55E00; stroke-dasharray: 5 3; }}
.edge.ancestor {{ opacity: .9; stroke: #222; stroke-width: 1.8; }} \
.edge.text.ancestor {{ stroke: #D55E00; }}
.model circle {{ stroke: #fff; stroke-width: 1; }} \
.model.ancestor circle {{ stroke: #000; stroke-width: 2.2; }}
.model.champion circle {{ stroke: #D55E00; stroke-width: 3.5; }} \
.model:hover circle, .model:focus circle {{ stroke: #0072B2; stroke-width: 4; }}
.cards {{ min-height: 15rem; border: 1px solid #ccc; border-radius: 6px; \
padding: .6rem .9rem; margin-top: .6rem; }}
.card {{ display: none; }} .card h3 {{ margin: 0 0 .3rem; font-size: 1rem; }} \
.card p {{ margin: .2rem 0; }}
.card .said {{ white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6; \
padding: .3rem .6rem; margin: .3rem 0; }}
.hint {{ color: #666; }} .scroll {{ overflow-x: auto; }} .scroll svg {{ min-width: {width}px; }}
{rules}
</style>
"""


def draw(run: Run, out: Path) -> None:
    parts, rows = [], []
    names = [names[0] for names in (run.roles["population"], run.roles["line"]) if names]
    for number, name in enumerate(names):
        html, mine = drawn(run, name, f"e{number}")
        parts.append(html)
        rows += mine
    style.write_csv(pd.DataFrame(rows, columns=list(COLUMNS)), out)
    said = (
        "<p>Point at a model, or click it, to see its parents, its score and its text. Solid lines "
        "show weights, dashed lines text. The orange rim marks the final champion; black rims mark "
        "its ancestors. <code>pollination lineage MODEL</code> lists all shards that a model "
        "read.</p>\n"
    )
    page.save("Lineage of the members", [said, *parts], out)


def drawn(run: Run, name: str, key: str) -> tuple[str, list[dict]]:
    """Return (HTML, rows) of one experiment; `key` is the prefix of its ids."""
    nodes, experiment = family(run.plan, name), run.plan.experiment(name)
    champion = (experiment["generations"] - 1, run.champion(name, experiment["generations"] - 1))
    ancestors = {
        (node["generation"], node["member"])
        for node in ancestry(run.plan, name, *champion)["nodes"]
    }
    values: dict[tuple[int, int], float] = {}
    what = ""
    for g in range(experiment["generations"]):
        what, ranked = run.yardstick(name, g)
        values |= {(g, m): float(value) for m, value in enumerate(ranked)}
    rows = [
        {
            "experiment": name,
            "generation": g,
            "member": m,
            "value": values[g, m],
            "selected": m in run.parents(name, g),
        }
        | {"ancestor": (g, m) in ancestors, "champion": (g, m) == champion}
        | {
            "weights_from": label(givers(node)),
            "text_from": label(node["text_from"]),
        }
        for (g, m), node in nodes.items()
    ]
    low, high = limits(list(values.values()))

    def at(place: tuple[int, int]) -> tuple[int, int]:
        return LEFT + ACROSS * place[0], 40 + DOWN * place[1]

    width, height = LEFT + ACROSS * champion[0] + 60, 40 + DOWN * experiment["population"]
    edges: list[str] = []
    models: list[str] = []
    cards: list[str] = []
    rules: list[str] = []
    for place, node in nodes.items():
        ident, kin = f"{key}g{place[0]}m{place[1]}", " ancestor" if place in ancestors else ""
        parents = [("weights", giver) for giver in givers(node)]
        parents += [("text", parent) for parent in node["text_from"]]
        lines = "".join(
            f'<path class="edge {kind}{kin}" d="{curve(at(parent), at(place), kind)}"/>'
            for kind, parent in parents
        )
        edges.append(f'<g id="{ident}p">{lines}</g>' if lines else "")
        colour = to_hex(colormaps["viridis"]((values[place] - low) / (high - low)))
        ink = "#000" if (values[place] - low) / (high - low) > 0.55 else "#fff"
        marks = f"model{kin}{' champion' if place == champion else ''}"
        x, y = at(place)
        models.append(
            f'<a class="{marks}" id="{ident}" href="#{ident}c" aria-label="generation {place[0]}, '
            f'member {place[1]}"><circle cx="{x}" cy="{y}" r="{RADIUS}"'
            f' fill="{colour}"/><text x="{x}" y="{y + 4}" text-anchor="middle" '
            f'fill="{ink}">{values[place]:.2f}</text></a>'
        )
        selected = bool(rows[len(cards)]["selected"])
        cards.append(card(run, name, f"{ident}c", place, node, what, values[place], selected))
        rules.append(f"body:has(#{ident}:is(:hover, :focus)) #{ident}c {{ display: block; }}")
        rules.append(
            f"body:has(#{ident}:is(:hover, :focus)) #{ident}p .edge {{ opacity: 1; stroke-width: "
            "3; }"
        )
    axes = [
        f'<text x="{LEFT + ACROSS * g}" y="16" text-anchor="middle">generation {g}</text>'
        for g in range(champion[0] + 1)
    ]
    axes += [
        f'<text x="4" y="{44 + DOWN * m}">member {m}</text>'
        for m in range(experiment["population"])
    ]
    picture = (
        f'<div class="scroll"><svg viewBox="0 0 {width} {height}" role="img" aria-label="lineage '
        f'of {page.attribute(name)}">'
    )
    picture += "".join(axes + edges + models) + "</svg></div>\n"
    rules.append(f"#{key} .card:target {{ display: block; }}")
    rules.append(
        f"body:has(#{key} .model:is(:hover, :focus)) #{key} .card:target:not(:hover) {{ display: "
        "none; }"
    )
    rules.append(
        f"body:has(#{key} .model:is(:hover, :focus)) #{key} .hint, #{key}:has(.card:target) "
        ".hint { display: none; }"
    )
    # The later rule wins: pointing at a model hides the card of the clicked model.
    rules.sort(key=lambda rule: "card:target" not in rule)
    hint = '<p class="hint">Point at a model to see its card.</p>'
    better = "lower" if what.startswith("nats") else "higher"
    measured = (
        f"<p>Colour and number: {page.text(what)} ({better} is better). Champion: "
        f"{page.text(run.champion_rule(name))}.</p>\n"
    )
    return (
        f'<section id="{key}"><h2>{page.text(name)}</h2>\n{measured}'
        + STYLE.format(width=min(width, 640), rules="\n".join(rules))
        + picture
        + f'<div class="cards">{hint}{"".join(cards)}</div></section>\n'
    ), rows


def card(
    run: Run,
    name: str,
    ident: str,
    place: tuple[int, int],
    node: dict,
    what: str,
    value: float,
    selected: bool,
) -> str:
    """Return the card of one model: its parents, its score and its first completions."""
    folder = layout.member_folder(run.plan, name, *place)
    samples = run.table(folder, "samples.parquet", ["prompt", "completion"]).head(TEXTS)
    if node["weights_from"]:
        mutated = ", mutated" if node["mutated"] else ""
        origin = f"weights from {label(givers(node))}{mutated}"
    elif node["pretrained"]:
        origin = f"pretrained model {node['pretrained']}"
    else:
        origin = "founder" if place[0] == 0 else "new random weights"
    read = [f"text from {label(node['text_from'])}"] if node["text_from"] else []
    read += [f"human text of {node['human']}"] if node["human"] else []
    said = "".join(
        f'<div class="said"><small>{page.text(row.prompt)}</small>\n'
        f"{page.text(row.completion)}</div>"
        for row in samples.itertuples()
    )
    return (
        f'<div class="card" id="{ident}"><h3>generation {place[0]}, member '
        f"{place[1]}{' (a parent)' if selected else ''}</h3>"
        f"<p>{page.text(what)}: <b>{value:.4g}</b></p>"
        f"<p>{page.text('; '.join([origin, *read]))}</p>{said}</div>\n"
    )


def curve(start: tuple[int, int], end: tuple[int, int], kind: str) -> str:
    """Return a path from parent to child; paths of weights and of text run side by side."""
    shift = -4 if kind == "weights" else 4
    (x, y), (to_x, to_y) = (start[0] + RADIUS, start[1] + shift), (end[0] - RADIUS, end[1] + shift)
    middle = (x + to_x) / 2
    return f"M{x} {y} C{middle} {y}, {middle} {to_y}, {to_x} {to_y}"


def limits(values: list[float]) -> tuple[float, float]:
    return (
        (min(values), max(values))
        if max(values) > min(values)
        else (min(values) - 0.01, max(values) + 0.01)
    )


def label(places: list[tuple[int, int]]) -> str:
    return "; ".join(f"generation {g} member {m}" for g, m in places)
