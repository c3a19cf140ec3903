"""Simulate the Gaussian theory of study A (section 6.1, appendix A).

The rules simulate recursive estimation with one estimator and with the best of K, and compute the
tail bound.

INPUTS   only the config's `theory`
OUTPUTS  <results>/theory/{recursion,summary,windows,sensitivity,bound}.parquet,
         <results>/report/theory_*.svg, .png, .csv
"""

from pollination.core.settings import definition, lean
from pollination.plan.figures import THEORY
from pollination.plan.standalone import theory_files

theory = lean(config["theory"], definition("theory"))


rule theory:
    input:
        theory_files(plan),
    localrule: True
    message:
        "The theory of run {config[run]} is computed and drawn"


rule simulate_recursion:
    output:
        recursion="<results>/theory/recursion.parquet",
        summary="<results>/theory/summary.parquet",
        windows="<results>/theory/windows.parquet",
        run="<results>/theory/recursion.run.json",
    log:
        "<logs>/theory/recursion.log",
    benchmark:
        "<benchmarks>/theory/recursion.tsv"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
    params:
        recipe=1,
        theory={key: value for key, value in theory.items() if key not in ("grid", "bound")},
    message:
        "Simulating recursive estimation of a Gaussian, with one estimator and the best of K"
    script:
        "../workflow/scripts/simulate_theory.py"


rule simulate_sensitivity:
    output:
        sensitivity="<results>/theory/sensitivity.parquet",
        run="<results>/theory/sensitivity.run.json",
    log:
        "<logs>/theory/sensitivity.log",
    benchmark:
        "<benchmarks>/theory/sensitivity.tsv"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(4000),
        runtime=grows(120),
    params:
        recipe=1,
        theory={
            key: value
            for key, value in theory.items()
            if key not in ("runs", "shown", "k", "bound")
        },
    message:
        "Measuring the sensitivity to samples, estimators, noise and dimensions"
    script:
        "../workflow/scripts/simulate_theory.py"


rule check_bound:
    output:
        bound="<results>/theory/bound.parquet",
        run="<results>/theory/bound.run.json",
    log:
        "<logs>/theory/bound.log",
    benchmark:
        "<benchmarks>/theory/bound.tsv"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
    params:
        recipe=1,
        theory={key: theory.get(key) for key in ("variance", "seed", "bound")},
    message:
        "Comparing the printed tail bound with the exact and the simulated probability"
    script:
        "../workflow/scripts/simulate_theory.py"


for figure, entry in THEORY.items():

    rule:  # one rule per figure, because a rule can have only one caption
        name:
            f"draw_{figure}"
        input:
            table=f"<results>/theory/{entry.reads[0]}.parquet",
            summary=[f"<results>/theory/{table}.parquet" for table in entry.reads[1:]],
            code=figure_source(entry.module),
        output:
            numbers=report(
                f"<results>/report/{figure}.csv",
                caption=f"../workflow/report/{figure}.rst",
                category="5 Theory",
                labels={"figure": entry.title, "as": "numbers (CSV)"},
            ),
            svg=report(
                f"<results>/report/{figure}.svg",
                caption=f"../workflow/report/{figure}.rst",
                category="5 Theory",
                labels={"figure": entry.title, "as": "picture"},
            ),
            png=f"<results>/report/{figure}.png",
            run=f"<results>/report/{figure}.run.json",
        log:
            f"<logs>/report/{figure}.log",
        benchmark:
            f"<benchmarks>/report/{figure}.tsv"
        conda:
            "../envs/pollination.yaml"
        resources:
            mem_mb=grows(4000),
            runtime=grows(30),
        params:
            recipe=1,
            figure=figure,
        message:
            f"Drawing {figure}"
        script:
            "../workflow/scripts/draw_tables.py"
