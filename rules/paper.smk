"""Draw the figures and tables of the two studies (pollination/plan/config/targets.py).

Each one is a target: `snakemake figure_a6`, `snakemake table_b1`. `snakemake paper` draws all
targets to which the config assigns experiments.

INPUTS   scores, sequences and samples of the experiments that `figures.paper` in the config names
OUTPUTS  <results>/paper/{target}.svg, .png, .csv (tables of text: .html, .csv); if the report
         already has the figure, the target is the report's file
"""

from pollination.plan.config.targets import TARGETS
from pollination.plan.figures import FIGURES
from pollination.plan.paper import (
    paper_files,
    target_config,
    target_inputs,
    target_module,
    target_setting,
)

for target in TARGETS:

    rule:  # the target's name; it exits with one line if the config assigns no experiment
        name:
            target
        input:
            files_or_reason(target),
        localrule: True
        message:
            f"{TARGETS[target].title}"


rule paper:
    input:
        paper_files(plan),
    localrule: True
    message:
        "All studies' figures of run {config[run]} are drawn"


rule draw_target:
    input:
        unpack(ask(target_inputs, "target")),
        code=lambda wildcards: figure_source(target_module(wildcards.target)),
    output:
        numbers=report(
            "<results>/paper/{target}.csv",
            caption="../workflow/report/paper.rst",
            category="7 Studies",
            labels={"figure": "{target}", "as": "numbers (CSV)"},
        ),
        svg=report(
            "<results>/paper/{target}.svg",
            caption="../workflow/report/paper.rst",
            category="7 Studies",
            labels={"figure": "{target}", "as": "picture"},
        ),
        png="<results>/paper/{target}.png",
        run="<results>/paper/{target}.run.json",
    log:
        "<logs>/paper/{target}.log",
    benchmark:
        "<benchmarks>/paper/{target}.tsv"
    wildcard_constraints:
        target="|".join(name for name, one in TARGETS.items() if not FIGURES[one.draws].page),
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(4000),
        runtime=minutes(30),
    params:
        recipe=1,
        title=ask(target_setting, "target", key="title"),
        draws=ask(target_setting, "target", key="draws"),
        panels=ask(target_setting, "target", key="panels"),
        config=ask(target_config, "target"),
    message:
        "Drawing {wildcards.target}"
    script:
        "../workflow/scripts/draw_target.py"


use rule draw_target as write_target with:
    output:
        numbers=report(
            "<results>/paper/{target}.csv",
            caption="../workflow/report/paper.rst",
            category="7 Studies",
            labels={"figure": "{target}", "as": "numbers (CSV)"},
        ),
        html=report(
            "<results>/paper/{target}.html",
            caption="../workflow/report/paper.rst",
            category="7 Studies",
            labels={"figure": "{target}", "as": "page"},
        ),
        run="<results>/paper/{target}.run.json",
    wildcard_constraints:
        target="|".join(name for name, one in TARGETS.items() if FIGURES[one.draws].page),
