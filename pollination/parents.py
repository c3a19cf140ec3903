"""What a parent hands on: its weights, mutated, and the text that it writes."""

from pathlib import Path

from pollination import models
from pollination.corpora import prompts as corpus_prompts
from pollination.generation import write_shard
from pollination.job import Job
from pollination.seeds import derive_seed
from pollination.selection import parent_of


def parent_weights(job: Job) -> Path:
    """The weights of the member that holds the job's rank, as evaluated."""
    members = job.files("members")
    return members[parent_of(job.file("selection"), int(job.wildcards.rank))] if job.file("selection") else members[0]


def write_text(job: Job, shard: Path) -> None:
    """Let the holder of a rank, as evaluated, write one shard."""
    rank, generation = int(job.wildcards.rank), int(job.wildcards.gen)
    seed = derive_seed(job.params.seed, "generate", generation, rank)
    key = job.key(seed)
    work = job.claim(f"shard{job.wildcards.shard}", key)
    if work is None:
        return
    device = models.prepare(job.params.device, job.params.cpu_threads)
    folder = parent_weights(job).parent
    model, tokenizer = models.load_model(folder, device), models.load_tokenizer(folder)
    prompts = corpus_prompts(job.file("prompts").parent, job.params.generate["max_sentences"])
    write_shard(
        model, tokenizer, prompts, job.params.generate, seed, int(job.wildcards.shard), shard, job.log, job.stop, work=work, key=key
    )


def hand_on_weights(job: Job, target: Path) -> None:
    """Write the weights that the children of the job's rank inherit."""
    seed = derive_seed(job.params.seed, "mutate", int(job.wildcards.gen), int(job.wildcards.rank))
    models.write_parent(parent_weights(job), target, **job.params.mutate, seed=seed)
