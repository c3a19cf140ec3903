"""Build a corpus folder: training text, held-out text, prompts, and a microworld's tasks."""

from pathlib import Path

from pollination.core.job import Job

with Job(snakemake) as job:
    from pollination.core import artifacts
    from pollination.data.contamination import read_questions
    from pollination.data.corpora import build_corpus
    from pollination.plan.config.paths import Found
    from pollination.plan.sizes import warning

    questions = read_questions(job.files("questions"))
    spec, folder = job.params.corpus, Path(job.output.about).parent
    build_corpus(spec, job.params.seed, folder, job.files("sources"), questions)
    about = artifacts.read_json(job.output.about)
    job.log.info("documents: %s", about["documents"])
    if "passed_over" in about:
        job.log.warning("%s", Found([], about["passed_over"]).summary())
    if "passage_characters" in about:
        job.log.info(
            "long documents are cut into passages of about %d characters",
            about["passage_characters"],
        )
    if "removed" in about:
        job.log.info(
            "on_overlap: remove dropped %d documents that contain one of %d benchmark questions; "
            "corpus.json lists them",
            about["removed"]["documents"],
            len(about["removed"]["questions"]),
        )
    for split in ("validation", "test", "prompts"):
        count = about["documents"][split]
        said = warning(f"corpora.{folder.name}", split, count, spec) if count else None
        if said:
            job.log.warning("%s", said)
