"""Check the interaction graph of an experiment (plan/graph.py)."""

from pollination.plan.graph import EXACT, GRAPHS, draw, values
from pollination.plan.operators import selects, text_of, weights_of


def check_graph(key: str, experiment: dict, mistakes: list[str]) -> None:
    """Check `graph` and `soup` of an experiment whose `select.k` is filled in."""
    for name, operator, value, human, is_used in (
        ("graph", "text", "graph", experiment["human"]["fraction"], text_of(experiment).is_graph),
        ("soup", "weights", "soup", 0.0, weights_of(experiment).is_soup),
    ):
        graph = experiment[name]
        if is_used != (graph is not None):
            mistakes.append(
                f"{key}.{name}: the key is missing, but {key}.{operator} is {value!r}; add {name} "
                f"with a rule; allowed: {', '.join(GRAPHS)}"
                if graph is None
                else f"{key}.{name} has no effect with {operator}: {experiment[operator]!r}; set "
                f"{operator}: {value}, or remove {name}"
            )
        elif graph is not None:
            found = _mistakes(graph, _writers(experiment), experiment["population"], human)
            mistakes += [f"{key}.{name}.{mistake}" for mistake in found]


def most_writers(experiment: dict) -> int:
    """Return the largest number of writers whose text one child reads."""
    text = text_of(experiment)
    if not text.is_graph:
        return experiment["population"] if text.dealt else 1
    rows = draw(experiment["graph"], experiment["seed"], _writers(experiment), 1).rows
    return max(map(len, rows))


def _writers(experiment: dict) -> int:
    return experiment["select"]["k"] if selects(experiment) else experiment["population"]


def _mistakes(graph: dict, writers: int, children: int, fraction: float) -> list[str]:
    rule = graph["rule"]
    reads = {*GRAPHS[rule].reads, *(["shares"] if rule == "shares" else ["own"])}
    optional = dict.fromkeys(name for entry in GRAPHS.values() for name in entry.reads)
    found = [
        f"{name}: {graph[name]} has no effect with rule: {rule}; remove it, or choose another rule"
        for name in (*optional, "shares", "own")
        if graph[name] is not None and name not in reads
    ]
    if fraction >= 1:
        found.append(
            f"rule: {rule} has no text to share, because human.fraction is {fraction}; lower "
            "human.fraction, or set text: human"
        )
    if rule == "shares":
        return found + _mistakes_of_shares(graph, writers, children, fraction)
    most = {"hub": writers - 1, "neighbours": writers - 1, "islands": writers}
    found += [
        f"{name}: {value} is too large for {writers} writers; allowed: at most {most[name]}"
        for name, value in values(graph).items()
        if name in most and value > most[name]
    ]
    if graph["own"] is not None and graph["own"] > 1 - fraction + EXACT:
        found.append(
            f"own: {graph['own']} and human.fraction {fraction} exceed 1; lower one of them"
        )
    if not found and graph["own"] is not None and graph["own"] < 1 - fraction - EXACT:
        try:  # with migration, and without it
            for generation in (0, 1):
                draw(graph, 0, writers, generation)
        except ValueError as error:
            found.append(
                f"own: {graph['own']} leaves a share to other writers, but {error}; set own: "
                "null, or change the rule"
            )
    return found


def _mistakes_of_shares(graph: dict, writers: int, children: int, fraction: float) -> list[str]:
    rows = graph["shares"]
    if rows is None:
        return ["shares: the key is missing, but rule is 'shares'; add one list per child"]
    found = []
    if len(rows) != children or any(len(row) != writers for row in rows):
        found.append(
            f"shares: {len(rows)} lists of {', '.join(map(str, sorted(set(map(len, rows)))))}"
            f" shares; allowed: {children} lists (one per child) of {writers} (one per writer)"
        )
    for child, row in enumerate(rows):
        if abs(sum(row) + fraction - 1) > EXACT:
            found.append(
                f"shares: the shares of child {child} and human.fraction {fraction} sum to "
                f"{sum(row) + fraction:g}; they must sum to 1"
            )
            break
    if graph["draw"] != "once":
        found.append(f"draw: {graph['draw']!r} has no effect with rule: shares; set draw: once")
    return found
