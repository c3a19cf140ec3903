"""Draw the report's figures from the artifacts of a run, each with its numbers as CSV.

The landing page tells the result with them. `snakemake --report` puts them and their provenance
into one HTML file.

INPUTS   scores, answers, selections, samples and training metrics of the experiments that have a
         role (`figures` in the config)
OUTPUTS  <results>/config.yaml, <results>/report/{figure}.svg, .png, .csv (pages: .html, .csv),
         <results>/claims.json, <results>/report/index.html (the landing page)
"""

from pollination.core.settings import lean, schema
from pollination.plan.sizes import found, warnings
from pollination.plan.figures import REPORT
from pollination.plan.landing import landing_config, landing_inputs
from pollination.plan.report import figure_config, figure_inputs, report_files, stems


localrules:
    write_config,


if workflow.is_main_process:
    # The first page of the report states these counts of artifacts. No rule reads this key.
    config = config | {"small": list(warnings(plan, found(plan)))}


rule figures:
    input:
        report_files(plan),
    localrule: True
    message:
        "All figures of run {config[run]} are drawn"


rule write_config:
    output:
        config="<results>/config.yaml",
        run="<results>/config.run.json",
    log:
        "<logs>/config.log",
    benchmark:
        "<benchmarks>/config.tsv"
    conda:
        "../envs/pollination.yaml"
    params:
        config=lean(plan.config, schema()),
    message:
        "Saving the config of run {config[run]} with all defaults"
    script:
        "../workflow/scripts/write_config.py"


for figure, entry in REPORT.items():
    if entry.page:
        continue

    rule:  # one rule per figure, because a rule can have only one caption
        name:
            f"draw_{figure}"
        input:
            unpack(ask(figure_inputs, "figure")),
            code=figure_source(entry.module),
        output:
            numbers=report(
                "<results>/report/{figure}.csv",
                caption=f"../workflow/report/{figure}.rst",
                category=entry.category,
                labels={"figure": entry.title, "as": "numbers (CSV)"},
            ),
            svg=report(
                "<results>/report/{figure}.svg",
                caption=f"../workflow/report/{figure}.rst",
                category=entry.category,
                labels={"figure": entry.title, "as": "picture"},
            ),
            png="<results>/report/{figure}.png",
            run="<results>/report/{figure}.run.json",
        log:
            "<logs>/report/{figure}.log",
        benchmark:
            "<benchmarks>/report/{figure}.tsv"
        wildcard_constraints:
            figure="|".join(stems(plan, figure)) or "(?!)",
        conda:
            "../envs/pollination.yaml"
        resources:
            mem_mb=grows(4000),
            runtime=minutes(30),
        params:
            recipe=2,  # 2: matched replicates are compared in pairs
            config=ask(figure_config, "figure"),
        message:
            "Drawing {wildcards.figure}"
        script:
            "../workflow/scripts/draw_figure.py"


for figure, entry in REPORT.items():
    if not entry.page:
        continue

    rule:  # one rule per page, because a rule can have only one caption
        name:
            f"draw_{figure}"
        input:
            unpack(ask(figure_inputs, "figure")),
            code=figure_source(entry.module),
        output:
            numbers=report(
                "<results>/report/{figure}.csv",
                caption=f"../workflow/report/{figure}.rst",
                category=entry.category,
                labels={"figure": entry.title, "as": "numbers (CSV)"},
            ),
            html=report(
                "<results>/report/{figure}.html",
                caption=f"../workflow/report/{figure}.rst",
                category=entry.category,
                labels={"figure": entry.title, "as": "page"},
            ),
            others="<results>/{figure}.json" if figure == "claims" else [],
            run="<results>/report/{figure}.run.json",
        log:
            "<logs>/report/{figure}.log",
        benchmark:
            "<benchmarks>/report/{figure}.tsv"
        wildcard_constraints:
            figure=figure,
        conda:
            "../envs/pollination.yaml"
        resources:
            mem_mb=grows(4000),
            runtime=minutes(30),
        params:
            recipe=3,  # 3: claims: matched replicates are compared in pairs
            config=figure_config(plan, figure),
        message:
            "Drawing {wildcards.figure}"
        script:
            "../workflow/scripts/draw_figure.py"


rule write_landing:
    input:
        figures=landing_inputs(plan),
        code=landing_source(),
    output:
        page="<results>/report/index.html",
        run="<results>/report/index.run.json",
    log:
        "<logs>/report/index.log",
    benchmark:
        "<benchmarks>/report/index.tsv"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(2000),
        runtime=minutes(30),
    params:
        recipe=1,
        config=landing_config(plan),
    message:
        "Writing the landing page: {output.page}"
    script:
        "../workflow/scripts/write_landing.py"
