"""Test all claims on one run."""

from importlib import import_module

from pollination.analysis.claims.populations import Accuracies
from pollination.analysis.claims.rounds import Rounds
from pollination.analysis.claims.verdicts import correct, no_data, row
from pollination.analysis.run import Run
from pollination.plan.claims import CLAIMS, Claim


def judge(run: Run) -> list[dict]:
    """Return one row per test, in the order of CLAIMS; a claim without data says why."""
    shared = {"populations": Accuracies(run), "rounds": Rounds(run), "standalone": None}
    rows = [tested for claim in CLAIMS for tested in judge_one(claim, run, shared)]
    correct(rows)
    return rows


def judge_one(claim: Claim, run: Run, shared: dict) -> list[dict]:
    declared = run.plan.config["claims"]
    if why := declared["lacks"][claim.target]:
        return [no_data(claim, why)]
    module, function = claim.test.split(".")
    if module == "rounds":
        shared[module].limit(declared["roles"][claim.target])
    role = declared["roles"].get(claim.target)
    if module == "populations" and not shared[module].tasks(next(iter(role.values()))[0]):
        return [no_data(claim, "no benchmark of the run has a metric with a value per question")]
    test = getattr(import_module(f"pollination.analysis.claims.{module}"), function)
    findings = test(claim, run, role, shared[module])
    if isinstance(findings, str):
        return [no_data(claim, f"{claim.target}: {findings}")]
    return [row(claim, finding) for finding in findings]
