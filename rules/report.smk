"""The report: a figure from the artifacts of a run, each with its numbers as CSV; `snakemake --report` puts them into one HTML file.

INPUTS   scores, answers, selections, samples and training metrics of the experiments that play a role (`figures:` in the config)
OUTPUTS  <results>/config.yaml, <results>/report/{figure}.svg, .png, .csv (pages: .html, .csv), <results>/claims.json
"""

from pollination.report import FIGURES, PAGES


localrules:
    write_config,


rule figures:
    input:
        plan.report_files(),
    localrule: True
    message:
        "The figures of the run {config[run]} are drawn"


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
        config=config,
    message:
        "Saving the config of the run {config[run]}, defaults filled in"
    script:
        "../workflow/scripts/write_config.py"


for figure, (category, title) in FIGURES.items():

    rule:  # one for each picture: a rule can have one caption only
        name:
            f"draw_{figure}"
        input:
            unpack(figure_inputs),
            code=figure_source(figure),
        output:
            numbers=report(
                "<results>/report/{figure}.csv",
                caption=f"../workflow/report/{figure}.rst",
                category=category,
                labels={"figure": title, "as": "numbers (CSV)"},
            ),
            svg=report(
                "<results>/report/{figure}.svg",
                caption=f"../workflow/report/{figure}.rst",
                category=category,
                labels={"figure": title, "as": "picture"},
            ),
            png="<results>/report/{figure}.png",
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
            recipe=1,
            config=plan.figure_config(figure),
        message:
            "Drawing {wildcards.figure}"
        script:
            "../workflow/scripts/draw_figure.py"


for figure, (category, title) in PAGES.items():

    rule:  # one for each page: a rule can have one caption only
        name:
            f"draw_{figure}"
        input:
            unpack(figure_inputs),
            code=figure_source(figure),
        output:
            numbers=report(
                "<results>/report/{figure}.csv",
                caption=f"../workflow/report/{figure}.rst",
                category=category,
                labels={"figure": title, "as": "numbers (CSV)"},
            ),
            html=report(
                "<results>/report/{figure}.html",
                caption=f"../workflow/report/{figure}.rst",
                category=category,
                labels={"figure": title, "as": "page"},
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
            recipe=1,
            config=plan.figure_config(figure),
        message:
            "Drawing {wildcards.figure}"
        script:
            "../workflow/scripts/draw_figure.py"
