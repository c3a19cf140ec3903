"""How much of its parents' fingerprints a child carries, where who read whom is known: the populations' own samples.

For each child and each member of the generation before: I(member -> child), and what the member is to it: parent by weights and text, by one
of them, a parent of others, or none. The two effects are coefficients of I on 'wrote the text that the child read' and 'gave the child its
weights', with a level for every child and every member, so that neither a talkative member nor a child with a long fingerprint makes an effect.
"""

import numpy as np
import pandas as pd

from pollination import artifacts

RELATIONS = ("weights and text", "text", "weights", "parent of others", "no parent")


def relation(by_weights: bool, by_text: bool, is_parent: bool) -> str:
    if by_weights and by_text:
        return RELATIONS[0]
    return RELATIONS[1] if by_text else RELATIONS[2] if by_weights else RELATIONS[3] if is_parent else RELATIONS[4]


def parents(family: dict) -> dict:
    """A child as Plan.families plans it, with weights_from, text_from and parents (models' names) from the selection, which is read now."""
    before, k, slot = family["before"], family["k"], family["slot"]
    holders = [before[m] for m in artifacts.read_json(family["selection"])["parents"]] if family["selection"] else before
    rank = {"parent": [holders[slot // k]], "own": [before[slot]], "fresh": [], "founder": []}
    read = {"parent": [holders[slot % k]], "own": [before[slot]], "pool": holders}
    return family | {"weights_from": rank[family["weights"]], "text_from": read[family["text"]], "parents": holders}


def trace(families: list[dict], pairs: pd.DataFrame) -> pd.DataFrame:
    """One row a (child, member of the generation before). `families`: a dict a child, as `parents` gives it; `pairs`: all ordered pairs of a
    survey. Models without a fingerprint (nothing recurs in their samples) are left out."""
    found = {(row.source, row.target): (row.influence, row.expected, row.jaccard_all) for row in pairs.itertuples(index=False)}
    rows = []
    for family in families:
        for member in family["before"]:
            if (member, family["child"]) in found:
                by = {"by_weights": member in family["weights_from"], "by_text": member in family["text_from"]}
                row = {key: family[key] for key in ("experiment", "generation", "child")} | {"member": member} | by
                row |= {"relation": relation(*by.values(), member in family["parents"])}
                rows.append(row | dict(zip(("influence", "expected", "jaccard"), found[member, family["child"]], strict=True)))
    columns = ["experiment", "generation", "child", "member", "by_weights", "by_text", "relation", "influence", "expected", "jaccard"]
    return pd.DataFrame(rows, columns=columns)


def effects(rows: pd.DataFrame, seed: int, permutations: int) -> list[dict]:
    """For each experiment and each of text and weights: the coefficient, and a two-sided permutation p-value: the children of one parent by the
    other way are dealt their parents anew. An effect that cannot be told from the other (one's own text, one parent) is left out."""
    found = []
    for experiment, part in rows.groupby("experiment", sort=False):
        child, member = part.child.to_numpy(), part.member.to_numpy()
        levels = np.column_stack([pd.get_dummies(values).to_numpy(float) for values in (child, part.generation.astype(str) + member)])
        given = {"text": part.by_text.to_numpy(float), "weights": part.by_weights.to_numpy(float)}
        for name, other in (("text", "weights"), ("weights", "text")):
            held = np.column_stack([levels, given[other]])
            left = np.eye(len(part)) - held @ np.linalg.pinv(held)
            y, x = left @ part.influence.to_numpy(), left @ given[name]
            if x @ x < 1e-9:
                continue
            value, generator = float(y @ x / (x @ x)), np.random.default_rng(seed)
            blocks = _alike(part, other)
            dealt = [_coefficient(y, left @ _deal(given[name], blocks, generator)) for _ in range(permutations)]
            p = (1 + sum(abs(one) >= abs(value) - 1e-12 for one in dealt)) / (1 + permutations)
            found.append({"experiment": experiment, "effect": name, "value": value, "p": p, "children": int(part.child.nunique())})
    return found


def _coefficient(y: np.ndarray, x: np.ndarray) -> float:
    return float(y @ x / (x @ x)) if x @ x > 1e-9 else 0.0


def _alike(part: pd.DataFrame, other: str) -> list[np.ndarray]:
    """Row numbers (children, members) of each set of children of one generation that share their parents by the `other` way."""
    wide = part.assign(row=np.arange(len(part)))
    shared = wide[wide[f"by_{other}"]].groupby("child").member.apply(lambda names: "|".join(sorted(names)))
    sets = wide.groupby(["generation", wide.child.map(shared).fillna("")], sort=False)
    return [np.stack([one.row.to_numpy() for _, one in block.groupby("child", sort=False)]) for _, block in sets]


def _deal(given: np.ndarray, blocks: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """`given` with its parents dealt anew among the children of each block."""
    dealt = given.copy()
    for rows in blocks:
        dealt[rows] = given[rows[generator.permutation(len(rows))]]
    return dealt
