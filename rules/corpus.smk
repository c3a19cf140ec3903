"""Turn a grammar, local files or the hub into documents, tokenizers and packed tokens.

INPUTS   the config's corpora and models; local files; the hub (stage_* rules run where there is a
         network); questions of staged tasks, to search the text for them
OUTPUTS  <results>/corpora/{corpus}/, <results>/models/{model}/,
         <results>/tokens/{model}/{corpus}/{split}.bin, <results>/segments/{pool}/member{m}.bin
"""

from pollination.plan.corpora import CORPUS_KINDS
from pollination.plan.inputs import (
    checked_tasks,
    corpus_settings,
    corpus_sources,
    model_settings,
    removed_questions,
    segment,
    segment_source,
    staged_files,
    tokenizer_corpus,
)
from pollination.plan.layout import pretrained_from


localrules:
    stage,


rule stage:  # `snakemake stage` downloads on a machine with a network
    input:
        staged_files(plan),
    message:
        "All files of run {config[run]} from the hub are staged"


rule stage_corpus:
    output:
        documents="<results>/staged/{corpus}.parquet",
        run="<results>/staged/{corpus}.run.json",
    log:
        "<logs>/staged/{corpus}.log",
    benchmark:
        "<benchmarks>/staged/{corpus}.tsv"
    wildcard_constraints:
        corpus=names(
            "corpora", "kind", [name for name, kind in CORPUS_KINDS.items() if kind.stager]
        ),
    localrule: downloads_are_local
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=minutes(720),
    params:
        recipe=2,
        corpus=ask(corpus_settings, "corpus", is_download=True),
    message:
        "Downloading corpus {wildcards.corpus} from the hub"
    script:
        "../workflow/scripts/stage_corpus.py"


rule build_corpus:
    input:
        sources=ask(corpus_sources, "corpus"),
        questions=ask(removed_questions, "corpus"),
    output:
        train="<results>/corpora/{corpus}/train.parquet",
        validation="<results>/corpora/{corpus}/validation.parquet",
        test="<results>/corpora/{corpus}/test.parquet",
        prompts="<results>/corpora/{corpus}/prompts.parquet",
        about="<results>/corpora/{corpus}/corpus.json",
        run="<results>/corpora/{corpus}/run.json",
    log:
        "<logs>/corpora/{corpus}.log",
    benchmark:
        "<benchmarks>/corpora/{corpus}.tsv"
    wildcard_constraints:
        corpus=names(
            "corpora", "kind", [name for name, kind in CORPUS_KINDS.items() if not kind.world]
        ),
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=minutes(240),
    params:
        recipe=1,
        corpus=ask(corpus_settings, "corpus"),
        seed=config["data_seed"],
    message:
        "Splitting corpus {wildcards.corpus} into training text, held-out text and prompts"
    script:
        "../workflow/scripts/build_corpus.py"


rule build_microworld:
    output:
        train="<results>/corpora/{corpus}/train.parquet",
        validation="<results>/corpora/{corpus}/validation.parquet",
        test="<results>/corpora/{corpus}/test.parquet",
        prompts="<results>/corpora/{corpus}/prompts.parquet",
        about="<results>/corpora/{corpus}/corpus.json",
        world="<results>/corpora/{corpus}/world.json",
        knowledge="<results>/corpora/{corpus}/tasks/knowledge.parquet",
        coreference="<results>/corpora/{corpus}/tasks/coreference.parquet",
        arithmetic="<results>/corpora/{corpus}/tasks/arithmetic.parquet",
        social="<results>/corpora/{corpus}/tasks/social.parquet",
        run="<results>/corpora/{corpus}/run.json",
    log:
        "<logs>/corpora/{corpus}.log",
    benchmark:
        "<benchmarks>/corpora/{corpus}.tsv"
    wildcard_constraints:
        corpus=names("corpora", "kind", [name for name, k in CORPUS_KINDS.items() if k.world]),
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(4000),
        runtime=minutes(60),
    params:
        recipe=1,
        corpus=ask(corpus_settings, "corpus"),
        seed=config["data_seed"],
    message:
        "Generating the microworld {wildcards.corpus}"
    script:
        "../workflow/scripts/build_corpus.py"


rule check_overlap:
    input:
        questions=checked_tasks(plan),
        train="<results>/corpora/{corpus}/train.parquet",
        validation="<results>/corpora/{corpus}/validation.parquet",
        prompts="<results>/corpora/{corpus}/prompts.parquet",
    output:
        overlap="<results>/corpora/{corpus}/overlap.json",
        run="<results>/corpora/{corpus}/overlap.run.json",
    log:
        "<logs>/corpora/{corpus}.overlap.log",
    benchmark:
        "<benchmarks>/corpora/{corpus}.overlap.tsv"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=minutes(240),
    params:
        recipe=2,
        max_overlap=setting("corpora/{corpus}/max_overlap"),
    message:
        "Searching corpus {wildcards.corpus} for benchmark questions"
    script:
        "../workflow/scripts/check_overlap.py"


rule prepare_model:
    input:
        ask(tokenizer_corpus, "model"),
    output:
        config="<results>/models/{model}/config.json",
        tokenizer="<results>/models/{model}/tokenizer.json",
        tokenizer_config="<results>/models/{model}/tokenizer_config.json",
        run="<results>/models/{model}/run.json",
    log:
        "<logs>/models/{model}.log",
    benchmark:
        "<benchmarks>/models/{model}.tsv"
    wildcard_constraints:
        model=names("models", "pretrained", [None]),
    localrule: downloads_are_local
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=minutes(240),
    params:
        recipe=3,
        model=ask(model_settings, "model"),
        seed=config["data_seed"],
    message:
        "Preparing the tokenizer and configuration of model {wildcards.model}"
    script:
        "../workflow/scripts/prepare_model.py"


rule stage_model:
    input:
        ask(pretrained_from, "model"),
    output:
        weights="<results>/models/{model}/model.safetensors",
        config="<results>/models/{model}/config.json",
        tokenizer="<results>/models/{model}/tokenizer.json",
        tokenizer_config="<results>/models/{model}/tokenizer_config.json",
        run="<results>/models/{model}/run.json",
    log:
        "<logs>/models/{model}.log",
    benchmark:
        "<benchmarks>/models/{model}.tsv"
    wildcard_constraints:
        model="|".join(
            re.escape(name) for name, spec in config["models"].items() if spec["pretrained"]
        )
        or "(?!)",
    localrule: downloads_are_local
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=minutes(240),
    params:
        recipe=1,
        model=ask(model_settings, "model"),
        seed=config["data_seed"],
    message:
        "Staging the pretrained model {wildcards.model}"
    script:
        "../workflow/scripts/prepare_model.py"


rule pack_tokens:
    input:
        tokenizer="<results>/models/{model}/tokenizer.json",
        tokenizer_config="<results>/models/{model}/tokenizer_config.json",
        documents="<results>/corpora/{corpus}/{split}.parquet",
    output:
        blocks="<results>/tokens/{model}/{corpus}/{split}.bin",
        about="<results>/tokens/{model}/{corpus}/{split}.json",
        run="<results>/tokens/{model}/{corpus}/{split}.run.json",
    log:
        "<logs>/tokens/{model}.{corpus}.{split}.log",
    benchmark:
        "<benchmarks>/tokens/{model}.{corpus}.{split}.tsv"
    conda:
        "../envs/pollination.yaml"
    threads: 4
    resources:
        mem_mb=grows(8000),
        runtime=minutes(240),
    params:
        recipe=2,
        context_tokens=setting("models/{model}/context_tokens"),
        separator=setting("models/{model}/separator"),
    message:
        "Packing {wildcards.corpus}/{wildcards.split} for model {wildcards.model}"
    script:
        "../workflow/scripts/pack_tokens.py"


rule cut_segment:
    input:
        blocks=ask(segment_source, "pool", "member"),
    output:
        blocks="<results>/segments/{pool}/member{member}.bin",
        about="<results>/segments/{pool}/member{member}.json",
        numbers="<results>/segments/{pool}/member{member}.parquet",
        run="<results>/segments/{pool}/member{member}.run.json",
    log:
        "<logs>/segments/{pool}/member{member}.log",
    benchmark:
        "<benchmarks>/segments/{pool}/member{member}.tsv"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=minutes(240),
    params:
        recipe=1,
        segment=ask(segment, "pool"),
        data_seed=config["data_seed"],
    message:
        "Cutting the human text of founder {wildcards.member} of pool {wildcards.pool}"
    script:
        "../workflow/scripts/cut_segment.py"
