"""All claims tested on one run."""

from importlib import import_module

from pollination.claims.declared import CLAIMS, Claim
from pollination.claims.populations import Accuracies
from pollination.claims.rounds import Rounds
from pollination.claims.verdicts import correct, no_data, row
from pollination.figures.data import Run


def judge(run: Run) -> list[dict]:
    """A row a test, in the order of CLAIMS; a claim without data is a row that says what it lacks."""
    shared = {"populations": Accuracies(run), "rounds": Rounds(run), "sides": None}
    rows = [one for claim in CLAIMS for one in judge_one(claim, run, shared)]
    correct(rows)
    return rows


def judge_one(claim: Claim, run: Run, shared: dict) -> list[dict]:
    given = run.plan.config["claims"]
    if why := given["lacks"][claim.target]:
        return [no_data(claim, why)]
    module, function = claim.test.split(".")
    if module == "rounds":
        shared[module].limit(given["roles"][claim.target])
    found = getattr(import_module(f"pollination.claims.{module}"), function)(claim, run, given["roles"].get(claim.target), shared[module])
    return [no_data(claim, f"{claim.target}: {found}")] if isinstance(found, str) else [row(claim, one) for one in found]
