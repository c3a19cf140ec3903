"""A target for every figure and table of the two studies (pollination/paper.py): `snakemake figure_a6`, `snakemake table_b1`, `snakemake paper`.

INPUTS   scores, sequences, samples of the experiments that play in them (`figures.paper` in the config)
OUTPUTS  <results>/paper/{target}.svg, .png, .csv (tables of text: .html, .csv); what the report draws already is that file
"""

from pollination.paper import TARGETS

for target in TARGETS:

    rule:  # a name to type; a target whose role nobody plays says so in one line
        name:
            target
        input:
            target_files(target),
        localrule: True
        message:
            f"{TARGETS[target].title}"


rule paper:
    input:
        plan.paper_files(),
    localrule: True
    message:
        "The studies' figures of the run {config[run]} are drawn"


rule draw_target:
    input:
        unpack(target_inputs),
        code=target_source,
    output:
        numbers=report(
            "<results>/paper/{target}.csv",
            caption="../workflow/report/paper.rst",
            category="6 Studies",
            labels={"figure": "{target}", "as": "numbers (CSV)"},
        ),
        svg=report(
            "<results>/paper/{target}.svg",
            caption="../workflow/report/paper.rst",
            category="6 Studies",
            labels={"figure": "{target}", "as": "picture"},
        ),
        png="<results>/paper/{target}.png",
        run="<results>/paper/{target}.run.json",
    log:
        "<logs>/paper/{target}.log",
    benchmark:
        "<benchmarks>/paper/{target}.tsv"
    wildcard_constraints:
        target="|".join(name for name, one in TARGETS.items() if not one.is_page),
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(4000),
        runtime=minutes(30),
    params:
        recipe=1,
        title=lambda wildcards: TARGETS[wildcards.target].title,
        draws=lambda wildcards: TARGETS[wildcards.target].draws,
        panels=lambda wildcards: TARGETS[wildcards.target].panels,
        config=lambda wildcards: plan.target_config(wildcards.target),
    message:
        "Drawing {wildcards.target}"
    script:
        "../workflow/scripts/draw_target.py"


use rule draw_target as write_target with:
    output:
        numbers=report(
            "<results>/paper/{target}.csv",
            caption="../workflow/report/paper.rst",
            category="6 Studies",
            labels={"figure": "{target}", "as": "numbers (CSV)"},
        ),
        html=report(
            "<results>/paper/{target}.html",
            caption="../workflow/report/paper.rst",
            category="6 Studies",
            labels={"figure": "{target}", "as": "page"},
        ),
        run="<results>/paper/{target}.run.json",
    wildcard_constraints:
        target="|".join(name for name, one in TARGETS.items() if one.is_page),
