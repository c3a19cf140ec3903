"""Compare models by the linguistic fingerprints of their outputs (study A, section 4, appendix B).

The outputs come from deployed models, from Slop Forensics results, or from this run's members.

INPUTS   the config's `fingerprint`: models.csv and outputs; an API; samples and selections of this
         run's experiments
OUTPUTS  <results>/fingerprint/{survey}/: parts/, outputs/, pairs.parquet, statistics.json,
         inheritance.*; <results>/report/fingerprint_*
"""

from pollination.plan.figures import FINGERPRINT
from pollination.plan.standalone import (
    catalogue_file,
    collect_prompts,
    families,
    fingerprint_files,
    part_files,
    part_sources,
    sampled_models,
    served,
    stopword_files,
    survey_selections,
)


rule fingerprint:
    input:
        fingerprint_files(plan),
    localrule: True
    message:
        "The fingerprints of the run {config[run]} are compared and drawn"


rule stage_stopwords:
    output:
        stopwords="<results>/staged/stopwords.txt",
        run="<results>/staged/stopwords.run.json",
    log:
        "<logs>/staged/stopwords.log",
    benchmark:
        "<benchmarks>/staged/stopwords.tsv"
    localrule: downloads_are_local
    conda:
        "../envs/pollination.yaml"
    params:
        recipe=1,
    message:
        "Staging NLTK's English stopwords"
    script:
        "../workflow/scripts/stage_stopwords.py"


rule collect_outputs:
    input:
        prompts=ask(collect_prompts, "survey"),
    output:
        outputs="<results>/fingerprint/{survey}/outputs/{part}.parquet",
        run="<results>/fingerprint/{survey}/outputs/{part}.run.json",
    log:
        "<logs>/fingerprint/{survey}/outputs/{part}.log",
    benchmark:
        "<benchmarks>/fingerprint/{survey}/outputs/{part}.tsv"
    localrule: downloads_are_local
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(4000),
        runtime=minutes(720),
    params:
        recipe=1,  # new columns do not raise it: users pay for each answer
        collect=setting("fingerprint/{survey}/collect"),
        served=ask(served, "survey", "part"),
    message:
        "Collecting the outputs of {wildcards.part} for survey {wildcards.survey}"
    script:
        "../workflow/scripts/collect_outputs.py"


rule count_fingerprints:
    input:
        outputs=ask(part_sources, "survey", "part"),
        stopwords=ask(stopword_files, "survey"),
    output:
        fingerprints="<results>/fingerprint/{survey}/parts/{part}.json",
        run="<results>/fingerprint/{survey}/parts/{part}.run.json",
    log:
        "<logs>/fingerprint/{survey}/{part}.log",
    benchmark:
        "<benchmarks>/fingerprint/{survey}/{part}.tsv"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=grows(120),
    params:
        recipe=1,
        kind=setting("fingerprint/{survey}/kind"),
        settings=setting("fingerprint/{survey}/count"),
        models=ask(sampled_models, "survey"),
    message:
        "Counting the fingerprints of {wildcards.part}, survey {wildcards.survey}"
    script:
        "../workflow/scripts/count_fingerprints.py"


rule compare_fingerprints:
    input:
        parts=ask(part_files, "survey"),
        models=ask(catalogue_file, "survey"),
    output:
        pairs="<results>/fingerprint/{survey}/pairs.parquet",
        statistics="<results>/fingerprint/{survey}/statistics.json",
        run="<results>/fingerprint/{survey}/compare.run.json",
    log:
        "<logs>/fingerprint/{survey}/compare.log",
    benchmark:
        "<benchmarks>/fingerprint/{survey}/compare.tsv"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
    params:
        recipe=2,  # 2: densities of similarities are reflected at 0 and 1
        compare=setting("fingerprint/{survey}/compare"),
        mismatch=setting("fingerprint/{survey}/mismatch"),
        surveyed=ask(sampled_models, "survey"),
        seed=config["evaluation_seed"],
    message:
        "Comparing the fingerprints of survey {wildcards.survey}"
    script:
        "../workflow/scripts/compare_fingerprints.py"


rule trace_inheritance:
    input:
        pairs="<results>/fingerprint/{survey}/pairs.parquet",
        selections=ask(survey_selections, "survey"),
    output:
        inheritance="<results>/fingerprint/{survey}/inheritance.parquet",
        effects="<results>/fingerprint/{survey}/inheritance.json",
        run="<results>/fingerprint/{survey}/inheritance.run.json",
    log:
        "<logs>/fingerprint/{survey}/inheritance.log",
    benchmark:
        "<benchmarks>/fingerprint/{survey}/inheritance.tsv"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
    params:
        recipe=1,
        families=ask(families, "survey"),
        permutations=setting("fingerprint/{survey}/compare/permutations"),
        seed=config["evaluation_seed"],
    message:
        "Searching children for their parents' fingerprints, survey {wildcards.survey}"
    script:
        "../workflow/scripts/trace_inheritance.py"


for figure, entry in FINGERPRINT.items():

    rule:  # one rule per figure, because a rule can have only one caption
        name:
            f"draw_{figure}"
        input:
            pairs="<results>/fingerprint/{survey}/pairs.parquet",
            statistics="<results>/fingerprint/{survey}/statistics.json",
            inheritance=(
                multiext("<results>/fingerprint/{survey}/inheritance", ".parquet", ".json")
                if entry.families
                else []
            ),
            code=figure_source(entry.module),
        output:
            numbers=report(
                f"<results>/report/{figure}.{{survey}}.csv",
                caption=f"../workflow/report/{figure}.rst",
                category="6 Fingerprints",
                subcategory="{survey}",
                labels={"figure": entry.title, "as": "numbers (CSV)"},
            ),
            svg=report(
                f"<results>/report/{figure}.{{survey}}.svg",
                caption=f"../workflow/report/{figure}.rst",
                category="6 Fingerprints",
                subcategory="{survey}",
                labels={"figure": entry.title, "as": "picture"},
            ),
            png=f"<results>/report/{figure}.{{survey}}.png",
            run=f"<results>/report/{figure}.{{survey}}.run.json",
        log:
            f"<logs>/report/{figure}.{{survey}}.log",
        benchmark:
            f"<benchmarks>/report/{figure}.{{survey}}.tsv"
        conda:
            "../envs/pollination.yaml"
        resources:
            mem_mb=grows(4000),
            runtime=grows(30),
        params:
            recipe=1,
            figure=figure,
        message:
            f"Drawing {figure} of survey {{wildcards.survey}}"
        script:
            "../workflow/scripts/draw_tables.py"
