"""Share of its parents' fingerprints that a child carries, in populations with known parents.

For each child and each member of the generation before, the table has I(member -> child) and their
relation: the member is a parent by weights and text, by one of them, a parent of others, or no
parent. The two effects are coefficients of I on 'wrote the text that the child read' and 'gave the
child its weights'. Every child and every member has its own level, so neither a member that writes
much nor a child with a long fingerprint causes an effect.
"""

import numpy as np
import pandas as pd

from pollination.core import artifacts
from pollination.plan.operators import Start, text_of, weights_of

RELATIONS = ("weights and text", "text", "weights", "parent of others", "no parent")


def relation(by_weights: bool, by_text: bool, is_parent: bool) -> str:
    if by_text:
        return RELATIONS[0] if by_weights else RELATIONS[1]
    if by_weights:
        return RELATIONS[2]
    return RELATIONS[3] if is_parent else RELATIONS[4]


def parents(family: dict) -> dict:
    """Return a planned child with weights_from, text_from and parents (names of models).

    `family` has the keys `writers` and `givers` (ranks) if a graph or a soup chooses them.
    """
    before, k, slot = family["before"], family["k"], family["slot"]
    holders = (
        [before[m] for m in artifacts.read_json(family["selection"])["parents"]]
        if family["selection"]
        else before
    )
    weights, text = weights_of(family), text_of(family)
    givers = {Start.RANK: holders, Start.SLOT: before, Start.SOUP: holders}.get(weights.start)
    origins = family.get("givers") or [weights.origin(slot, k)]
    return family | {
        "weights_from": [givers[origin] for origin in origins] if givers else [],
        "text_from": [holders[rank] for rank in family.get("writers") or text.writers(slot, k)],
        "parents": holders,
    }


def trace(families: list[dict], pairs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per (child, member of the generation before).

    `families`: one dict per child, as `parents` returns it; `pairs`: all ordered pairs of a survey.
    Models without a fingerprint (no recurring words in their samples) are left out.
    """
    measured = {
        (row.source, row.target): {
            "influence": row.influence,
            "expected": row.expected,
            "jaccard": row.jaccard_all,
        }
        for row in pairs.itertuples(index=False)
    }
    rows = []
    for family in families:
        for member in family["before"]:
            if (member, family["child"]) in measured:
                by_weights = member in family["weights_from"]
                by_text = member in family["text_from"]
                row = {key: family[key] for key in ("experiment", "generation", "child")}
                row |= {"member": member, "by_weights": by_weights, "by_text": by_text}
                row |= {"relation": relation(by_weights, by_text, member in family["parents"])}
                rows.append(row | measured[member, family["child"]])
    columns = [
        "experiment",
        "generation",
        "child",
        "member",
        "by_weights",
        "by_text",
        "relation",
        "influence",
        "expected",
        "jaccard",
    ]
    return pd.DataFrame(rows, columns=columns)


def effects(rows: pd.DataFrame, seed: int, permutations: int) -> list[dict]:
    """Return the coefficient and two-sided permutation p of text and weights, by experiment.

    A permutation shuffles the parents of one kind among children that share the other kind. An
    effect is left out if it is not distinguishable from the other (own text, a single parent).
    """
    results = []
    for experiment, part in rows.groupby("experiment", sort=False):
        child, member = part.child.to_numpy(), part.member.to_numpy()
        members = part.generation.astype(str) + member
        levels = np.column_stack(
            [pd.get_dummies(values).to_numpy(float) for values in (child, members)]
        )
        by = {"text": part.by_text.to_numpy(float), "weights": part.by_weights.to_numpy(float)}
        for name, control in (("text", "weights"), ("weights", "text")):
            held = np.column_stack([levels, by[control]])
            left = np.eye(len(part)) - held @ np.linalg.pinv(held)
            y, x = left @ part.influence.to_numpy(), left @ by[name]
            if x @ x < 1e-9:
                continue
            value, generator = float(y @ x / (x @ x)), np.random.default_rng(seed)
            blocks = _alike(part, control)
            dealt = [
                _coefficient(y, left @ _deal(by[name], blocks, generator))
                for _ in range(permutations)
            ]
            as_large = sum(abs(permuted) >= abs(value) - 1e-12 for permuted in dealt)
            results.append(
                {
                    "experiment": experiment,
                    "effect": name,
                    "value": value,
                    "p": (1 + as_large) / (1 + permutations),
                    "children": int(part.child.nunique()),
                }
            )
    return results


def _coefficient(y: np.ndarray, x: np.ndarray) -> float:
    return float(y @ x / (x @ x)) if x @ x > 1e-9 else 0.0


def _alike(part: pd.DataFrame, way: str) -> list[np.ndarray]:
    """Return rows (children, members) of each set that shares its parents by `way`."""
    wide = part.assign(row=np.arange(len(part)))
    by_child = wide[wide[f"by_{way}"]].groupby("child")
    shared = by_child.member.apply(lambda names: "|".join(sorted(names)))
    sets = wide.groupby(["generation", wide.child.map(shared).fillna("")], sort=False)
    return [
        np.stack([child.row.to_numpy() for _, child in block.groupby("child", sort=False)])
        for _, block in sets
    ]


def _deal(
    by_parent: np.ndarray, blocks: list[np.ndarray], generator: np.random.Generator
) -> np.ndarray:
    """Return `by_parent` with the parents shuffled among the children of each block."""
    dealt = by_parent.copy()
    for rows in blocks:
        dealt[rows] = by_parent[rows[generator.permutation(len(rows))]]
    return dealt
