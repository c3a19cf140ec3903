"""Embed the members' samples and measure their diversity (docs/semantics.md).

An encoder or TF-IDF embeds the text. One rule counts the words of the human text.

INPUTS   samples.parquet of the experiments of `evaluate.semantics`; an encoder from the hub or a
         folder; corpora
OUTPUTS  <results>/semantics/, <results>/corpora/{corpus}/vocabulary.parquet
"""

from pollination.plan.embedding import (
    embedded_groups,
    embedded_models,
    embedded_places,
    embedded_samples,
)
from pollination.plan.semantics import embeddings_file, encoder_files, semantics_setting


rule count_vocabulary:
    input:
        train="<results>/corpora/{corpus}/train.parquet",
        about="<results>/corpora/{corpus}/corpus.json",
    output:
        vocabulary="<results>/corpora/{corpus}/vocabulary.parquet",
        run="<results>/corpora/{corpus}/vocabulary.run.json",
    log:
        "<logs>/corpora/{corpus}.vocabulary.log",
    benchmark:
        "<benchmarks>/corpora/{corpus}.vocabulary.tsv"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(4000),
        runtime=minutes(120),
    params:
        recipe=1,
    message:
        "Counting the words of corpus {wildcards.corpus}"
    script:
        "../workflow/scripts/count_vocabulary.py"


rule stage_encoder:
    output:
        weights="<results>/semantics/encoder/model.safetensors",
        config="<results>/semantics/encoder/config.json",
        tokenizer="<results>/semantics/encoder/tokenizer.json",
        tokenizer_config="<results>/semantics/encoder/tokenizer_config.json",
        run="<results>/semantics/encoder/run.json",
    log:
        "<logs>/semantics/encoder.log",
    benchmark:
        "<benchmarks>/semantics/encoder.tsv"
    localrule: downloads_are_local
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=minutes(60),
    params:
        recipe=1,
        encoder=semantics_setting(plan, "encoder"),
        revision=semantics_setting(plan, "revision"),
    message:
        "Staging the encoder for the samples"
    script:
        "../workflow/scripts/stage_encoder.py"


rule embed_samples:
    input:
        samples=embedded_samples(plan),
        encoder=encoder_files(plan),
    output:
        embeddings="<results>/semantics/encoder.embeddings.parquet",
        run="<results>/semantics/encoder.embeddings.run.json",
    log:
        "<logs>/semantics/encoder.embeddings.log",
    benchmark:
        "<benchmarks>/semantics/encoder.embeddings.tsv"
    conda:
        "../envs/pollination.yaml"
    threads: config["cpu_threads"]
    resources:
        mem_mb=grows(16000),
        runtime=minutes(120),
        gpu=1,
    params:
        recipe=1,
        models=embedded_models(plan),
        places=embedded_places(plan),
        texts=sorted(config["evaluate"]["samples"]["texts"]),
        max_tokens=semantics_setting(plan, "max_tokens"),
        batch_size=config["evaluate"]["batch_size"],
        device=ANY_DEVICE,
        cpu_threads=config["cpu_threads"],
    message:
        "Embedding the samples with an encoder"
    script:
        "../workflow/scripts/embed_samples.py"


rule weigh_samples:
    input:
        samples=embedded_samples(plan),
    output:
        embeddings="<results>/semantics/tfidf.embeddings.parquet",
        run="<results>/semantics/tfidf.embeddings.run.json",
    log:
        "<logs>/semantics/tfidf.embeddings.log",
    benchmark:
        "<benchmarks>/semantics/tfidf.embeddings.tsv"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=minutes(60),
    params:
        recipe=1,
        models=embedded_models(plan),
        places=embedded_places(plan),
        texts=sorted(config["evaluate"]["samples"]["texts"]),
    message:
        "Embedding the samples with TF-IDF"
    script:
        "../workflow/scripts/embed_samples.py"


rule compare_samples:
    input:
        embeddings=embeddings_file(plan),
    output:
        diversity="<results>/semantics/diversity.parquet",
        run="<results>/semantics/diversity.run.json",
    log:
        "<logs>/semantics/diversity.log",
    benchmark:
        "<benchmarks>/semantics/diversity.tsv"
    conda:
        "../envs/pollination.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=minutes(120),
    params:
        recipe=1,
        groups=embedded_groups(plan),
        seed=config["evaluation_seed"],
    message:
        "Measuring the diversity of the samples"
    script:
        "../workflow/scripts/compare_samples.py"
