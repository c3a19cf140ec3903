"""Every kind of corpus: where its text comes from, and what the plan, the forecast and the job that
builds it need to know of it.

A new kind is an entry here, a module in pollination/data/ that reads it, and a test.
"""

from dataclasses import dataclass

from pollination.plan.config.paths import TEXT_ENDINGS
from pollination.plan.plan import Plan


@dataclass(frozen=True)
class CorpusKind:
    """One source of documents."""

    says: str
    """One line for the table of keys in config/README.md."""
    reader: str
    """The function that reads the documents, as "module.function" under pollination/data/.

    `reader(spec, seed, folder, sources)` returns what corpus.json says of the source, and a
    function that iterates over (doc_id, text) from the start at each call. `spec` is the config's
    `corpora.{name}`, `folder` the corpus folder, `sources` the files of `corpus_sources`.
    """
    needs: tuple[str, ...] = ()
    """Keys that the kind cannot do without. They say what it reads: path (local files), corpora
    (other corpora, split by split), experiment and generation (what that generation wrote).
    """
    endings: tuple[str, ...] = ()
    """Kinds that read local files: the endings of those that count when `path` names a folder."""
    splits: bool = False
    """The key `splits` may name the data set's own training, validation and test text."""
    stager: str = ""
    """Kinds that are downloaded: the function that streams up to max_tokens into one local file, as
    "module.function" under pollination/data/, called with (spec, path).
    """
    world: bool = False
    """Its truth is known: the reader writes the grammar (world.json) and benchmarks about it."""

    @property
    def local(self) -> bool:
        """Whether it reads local files."""
        return "path" in self.needs

    @property
    def joined(self) -> bool:
        """Whether it is put together from other corpora, split by split."""
        return "corpora" in self.needs

    @property
    def written(self) -> bool:
        """Whether an experiment of the run writes it."""
        return "experiment" in self.needs


CORPUS_KINDS = {
    "microworld": CorpusKind(
        "generated from a known grammar", reader="corpora.from_grammar", world=True
    ),
    "files": CorpusKind(
        "local parquet, jsonl or txt",
        reader="corpora.from_files",
        needs=("path",),
        endings=TEXT_ENDINGS,
        splits=True,
    ),
    "hub": CorpusKind(
        "a data set of the Hugging Face hub",
        reader="corpora.from_hub",
        needs=("name", "max_tokens"),
        splits=True,
        stager="hub.stage_hub",
    ),
    "union": CorpusKind(
        "several corpora as one", reader="corpora.from_corpora", needs=("corpora",)
    ),
    "synthetic": CorpusKind(
        "what an experiment of this run wrote",
        reader="corpora.from_experiment",
        needs=("experiment", "generation"),
    ),
}


def kind_of(plan: Plan, corpus: str) -> CorpusKind:
    """The kind of a corpus of the config."""
    return CORPUS_KINDS[plan.config["corpora"][corpus]["kind"]]
