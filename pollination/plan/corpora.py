"""List the kinds of corpora: where the text comes from, and what plan, forecast and job need.

A new kind needs an entry here, a module in pollination/data/ that reads it, and a test.
"""

from dataclasses import dataclass

from pollination.plan.config.paths import TEXT_ENDINGS
from pollination.plan.plan import Plan


@dataclass(frozen=True)
class CorpusKind:
    """A source of documents."""

    says: str
    """One line for the table of keys in config/README.md."""
    reader: str
    """The function that reads the documents, as "module.function" under pollination/data/.

    `reader(spec, seed, folder, sources)` returns the description of the source for corpus.json, and
    a function that iterates over (doc_id, text), from the start at each call. `spec` is the
    config's `corpora.{name}`, `folder` the corpus folder, `sources` the files of `corpus_sources`.
    """
    needs: tuple[str, ...] = ()
    """Keys that the kind needs. They determine what it reads: path (local files), corpora (other
    corpora, split by split), experiment and generation (the text that this generation wrote).
    """
    endings: tuple[str, ...] = ()
    """For kinds that read local files: the endings of the files that are read from a folder."""
    splits: bool = False
    """Whether `splits` may name the data set's own training, validation and test text."""
    stager: str = ""
    """For kinds that are downloaded: the function, as "module.function" under pollination/data/.

    `stager(spec, path, work, stop)` streams up to max_tokens into one local file, and returns what
    the record says about the source, e.g. `{"revision": ...}`. The folder `work` outlives a killed
    job. Once `stop` is true, the stager saves its progress there and raises Stopped (core/job.py).
    """
    world: bool = False
    """Whether the true grammar is known; the reader then writes it (world.json) and benchmarks."""

    @property
    def local(self) -> bool:
        """Return whether it reads local files."""
        return "path" in self.needs

    @property
    def joined(self) -> bool:
        """Return whether it joins other corpora, split by split."""
        return "corpora" in self.needs

    @property
    def written(self) -> bool:
        """Return whether an experiment of the run writes it."""
        return "experiment" in self.needs


CORPUS_KINDS = {
    "microworld": CorpusKind(
        "generated from a known grammar", reader="corpora.from_grammar", world=True
    ),
    "files": CorpusKind(
        "local files of text or tables",
        reader="corpora.from_files",
        needs=("path",),
        endings=TEXT_ENDINGS,
        splits=True,
    ),
    "hub": CorpusKind(
        "a data set from the Hugging Face hub",
        reader="corpora.from_hub",
        needs=("name", "max_tokens"),
        splits=True,
        stager="hub.stage_hub",
    ),
    "union": CorpusKind(
        "several corpora joined into one", reader="corpora.from_corpora", needs=("corpora",)
    ),
    "synthetic": CorpusKind(
        "text that an experiment of this run wrote",
        reader="corpora.from_experiment",
        needs=("experiment", "generation"),
    ),
}


def kind_of(plan: Plan, corpus: str) -> CorpusKind:
    """Return the kind of a corpus of the config."""
    return CORPUS_KINDS[plan.config["corpora"][corpus]["kind"]]


def joined_corpora(corpora: dict[str, dict], corpus: str) -> list[str]:
    """Return the corpora that a union joins, unions within it included; none for other kinds."""
    spec = corpora.get(corpus, {})
    if not spec or not CORPUS_KINDS[spec["kind"]].joined:
        return []
    found = [joined_corpora(corpora, part) or [part] for part in spec["corpora"]]
    return list(dict.fromkeys(part for parts in found for part in parts))
