"""The Gaussian theory of study A (section 6.1, appendix A).

It simulates recursive estimation alone and as the best of K, and computes its tail bound.

INPUTS   only the config's `theory`
OUTPUTS  <results>/theory/{recursion,summary,sensitivity,bound}.parquet,
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
        "The theory of the run {config[run]} is calculated and drawn"


rule simulate_recursion:
    output:
        recursion="<results>/theory/recursion.parquet",
        summary="<results>/theory/summary.parquet",
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
        "Estimating a Gaussian again and again, alone and as the best of K"
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
        "Sensitivity of the last generation to samples, estimators, noise and dimensions"
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
        "The printed tail bound beside the exact probability and the simulated one"
    script:
        "../workflow/scripts/simulate_theory.py"


for figure, entry in THEORY.items():

    rule:  # one for each picture: a rule can have one caption only
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
