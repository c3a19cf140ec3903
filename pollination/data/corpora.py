"""Build a corpus folder: training text, held-out text and prompts.

The text comes from a grammar, local files, the hub, other corpora or an experiment.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from pollination.core import artifacts
from pollination.core.datafiles import read_column
from pollination.core.job import StopRequest
from pollination.core.sanitize import line
from pollination.core.seeds import derive_seed
from pollination.data.contamination import Questions, overlap
from pollination.data.files import (
    read_documents,
    read_files,
    read_staged,
    resolve_files,
)
from pollination.data.microworld import World
from pollination.data.splits import (
    SPLITS,
    Count,
    Documents,
    deal_documents,
    dealing,
    settled,
    write_splits,
)
from pollination.plan.config.paths import find_data
from pollination.plan.corpora import CORPUS_KINDS, kind_of
from pollination.plan.inputs import corpus_sources
from pollination.plan.plan import Plan
from pollination.plan.sizes import SIZES

__all__ = ["build_corpus", "first_sentences", "overlap", "prompts", "read_documents"]

FORECAST_CHARACTERS = 100_000_000  # of text that a forecast reads at most
# Documents per seed. A larger microworld corpus begins with the documents of a smaller one.
WORLD_CHUNK = 1000

Read = tuple[dict, Callable[[], Documents]]
"""The entries of corpus.json about a source, and a function that iterates over its documents."""


def build_corpus(
    spec: dict,
    seed: int,
    folder: Path,
    sources: Sequence[Path] = (),
    questions: Iterable[str] = (),
) -> None:
    """Write {train,validation,test,prompts}.parquet (doc_id, text) and corpus.json.

    A microworld also gets world.json and tasks/. `folder` has the name of the corpus, `spec` is
    the config's `corpora.{name}`, and `sources` are the files that the plan lists for it
    (`corpus_sources`). A document's split is a hash of (seed, doc_id), so other documents do not
    move it. If a wanted split has fewer documents than plan/sizes.py allows, documents move into
    it. If the corpus has its own splits (`splits`, or the splits of the corpora that it joins),
    doc_ids begin with "{split}/". With `passages`, long documents are cut (passages.py). With
    `on_overlap: remove`, documents that contain one of `questions` are dropped before they are
    split or cut; corpus.json lists them by question.
    ValueError: there are no documents, or too few for the wanted splits, or a file is missing or
    unreadable.
    """
    folder = Path(folder)
    read = _function(CORPUS_KINDS[spec["kind"]].reader)
    about, documents = read(spec, seed, folder, sources)
    asked = Questions(questions) if spec.get("on_overlap") == "remove" else None
    about |= write_splits(documents, spec, seed, folder, asked)
    artifacts.write_json(folder / "corpus.json", {"kind": spec["kind"], "seed": seed} | about)


def stage_corpus(spec: dict, path: Path, work: Path, stop: StopRequest) -> dict[str, str]:
    """Download a corpus into one local file with the stager of its kind (plan/corpora.py).

    A download that was stopped or killed resumes from its work folder. Returns what the record
    says about the source.
    """
    return _function(CORPUS_KINDS[spec["kind"]].stager)(spec, path, work, stop)


def _function(name: str) -> Callable:
    """Return a function of this package, named as "module.function"."""
    module, function = name.split(".")
    return getattr(import_module(f"pollination.data.{module}"), function)


# The readers of the kinds in pollination/plan/corpora.py


def from_grammar(spec: dict, seed: int, folder: Path, sources: Sequence[Path]) -> Read:
    """Read a microworld. This also writes its grammar and benchmarks into `folder`."""
    world = World.create(spec, derive_seed(seed, "world"))
    about = write_world(world, folder) | {"mean_sentences": world.mean_sentences}
    documents_seed = derive_seed(seed, "documents")
    return about, partial(_world_documents, world, spec["documents"], documents_seed)


def from_files(spec: dict, seed: int, folder: Path, sources: Sequence[Path]) -> Read:
    """Read local files, which `spec` names."""
    paths = spec.get("splits") or {"": spec.get("path")}
    key = f"corpora.{folder.name}"
    keys = {split: f"{key}.splits.{split}" if split else f"{key}.path" for split in paths}
    count = sum(len(resolve_files(path, key=keys[split])) for split, path in paths.items())
    about: dict = {"files": count}
    passed_over: dict[str, str] = {}
    for path in paths.values():
        passed_over |= find_data(path).passed_over
    if passed_over:
        about["passed_over"] = {line(name): why for name, why in passed_over.items()}
    return about, partial(_local, spec, paths, f"{key}.column")


def from_hub(spec: dict, seed: int, folder: Path, sources: Sequence[Path]) -> Read:
    """Read the file that `hub.stage_hub` wrote."""
    return {}, partial(read_staged, sources[0])


def from_corpora(spec: dict, seed: int, folder: Path, sources: Sequence[Path]) -> Read:
    """Read other corpora of the run. Their folders lie beside this one."""
    return {"corpora": spec["corpora"]}, partial(
        _union, [folder.parent / part for part in spec["corpora"]]
    )


def from_experiment(spec: dict, seed: int, folder: Path, sources: Sequence[Path]) -> Read:
    """Read the shards that one generation of an experiment wrote."""
    about = {"experiment": spec["experiment"], "generation": spec["generation"]}
    return about, partial(_written, sources)


def write_world(world: World, folder: Path) -> dict:
    """Write world.json and tasks/{benchmark}.parquet. Return the world's entries of corpus.json."""
    artifacts.write_json(folder / "world.json", world.to_json())
    for name, questions in world.benchmarks().items():
        artifacts.write_table(folder / "tasks" / f"{name}.parquet", pa.Table.from_pylist(questions))
    counts = {name: len(questions) for name, questions in world.benchmarks().items()}
    return {
        "entropy_nats_per_token": world.entropy_per_token,
        "facts": len(world.facts),
        "questions": counts,
        "words": len(world.vocabulary),
    }


def _world_documents(world: World, count: int, seed: int) -> Documents:
    for first in range(0, count, WORLD_CHUNK):
        texts = world.sample_documents(WORLD_CHUNK, np.random.default_rng(derive_seed(seed, first)))
        yield from ((str(first + n), text) for n, text in enumerate(texts[: count - first]))


def _local(spec: dict, paths: dict[str, str | list[str]], key: str) -> Documents:
    """Yield the documents of files by split. The split "" adds no prefix to the doc_ids."""
    for split, path in paths.items():
        for doc_id, text in read_files(spec | {"path": path}, key):
            yield f"{split}/{doc_id}" if split else doc_id, text


def _written(shards: Sequence[Path]) -> Documents:
    """Yield the completions of shards. A doc_id names parent, shard and row."""
    for path in shards:
        name = f"{path.parent.name}.{path.stem}"
        yield from ((f"{name}:{n}", text) for n, text in enumerate(read_column(path, "completion")))


def _union(folders: list[Path]) -> Documents:
    for split in SPLITS:
        for folder in folders:
            yield from (
                (f"{split}/{folder.name}/{doc_id}", text)
                for doc_id, text in read_documents(folder, split)
            )


def forecast(plan: Plan, name: str) -> dict[str, int] | None:
    """Return the documents of each split that a corpus will have, or None if that is unknown.

    Reading stops when no split has few documents (plan/sizes.py). ValueError: the local text is
    unreadable, or too little.
    """
    spec, seed, kind = plan.config["corpora"][name], plan.config["data_seed"], kind_of(plan, name)
    if kind.joined:
        parts = [forecast(plan, part) for part in spec["corpora"]]
        known = [part for part in parts if part]
        return (
            {split: sum(part[split] for part in known) for split in SPLITS}
            if len(known) == len(parts)
            else None
        )
    if kind.world:
        documents: Callable[[], Documents] = partial(_unwritten, spec["documents"])
    elif kind.local:
        sources = [Path(path) for path in corpus_sources(plan, name)]
        documents = _function(kind.reader)(spec, seed, Path(name), sources)[1]
    else:
        return None
    dealt, least = dealing(spec, seed, name)
    read = _Enough(documents, least)

    def deal() -> dict:
        return deal_documents(read, spec, dealt, least, name, None, read.begin())

    try:
        settled(deal, dealt, f"corpora.{name}")
    except ValueError:
        if not read.too_long:
            raise
    if read.too_long:
        return None
    return {split: count.documents for split, count in read.counts.items()}


def _unwritten(documents: int) -> Documents:
    """Yield the doc_ids of a microworld. Its texts are not needed, and long to write."""
    return ((str(n), "?") for n in range(documents))


class _Enough:
    """Iterates over documents until every held-out split has enough, or FORECAST_CHARACTERS."""

    def __init__(self, documents: Callable[[], Documents], least: dict[str, int]) -> None:
        self.documents, self.wanted = documents, [split for split in least if split in SIZES]
        self.counts: dict[str, Count] = {}
        self.too_long = False

    def begin(self) -> dict[str, "Count"]:
        self.counts = {split: Count() for split in SPLITS}
        return self.counts

    def __iter__(self) -> Documents:
        characters = 0
        for doc_id, text in self.documents():
            yield doc_id, text
            enough = (self.counts[split].documents >= SIZES[split].few for split in self.wanted)
            if self.counts["train"].documents and all(enough):
                return
            characters += len(text or "")
            if characters > FORECAST_CHARACTERS:
                self.too_long = True
                return


# A sentence ends
# - after a separate . ! or ?, as in tokenised text and the microworld ("paris .");
# - after . ! or ? with closing quotes or brackets, if white space and no small letter follow, and
#   the full stop does not end an initial, a title, "vs", "e.g" or "i.e";
# - after a full stop of Chinese, Japanese or Hindi;
# - at a blank line.
_SENTENCE = re.compile(
    r"""\S.*?
    (?: (?<=\s)[.!?]+(?=\s|$)
      | (?:
            (?<!\b[A-Z])(?<!\bMr)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bMrs)(?<!\bProf)(?<!\bvs)
            (?<!\be\.g)(?<!\bi\.e)\.+
          | [!?][.!?]*
        )
        ["'”’»)\]]*(?=\s+[^\sa-z]|\s*$)
      | [。！？।]["'”’」』）]*
      | (?=\n\s*\n)
    )""",
    re.VERBOSE | re.DOTALL,
)


def first_sentences(text: str, max_sentences: int) -> str:
    """Return the first `max_sentences` sentences of a text, without surrounding white space.

    A text with fewer sentences is returned whole.
    """
    text = text.strip()
    sentences = list(islice(_SENTENCE.finditer(text), max_sentences))
    return text[: sentences[-1].end()] if len(sentences) == max_sentences else text


def prompts(folder: Path, max_sentences: int) -> list[tuple[str, str]]:
    """Return (doc_id, first sentences) of each held-out prompt document.

    A prompt has at most `max_sentences` sentences (study A, table 2).
    """
    return [
        (doc_id, first_sentences(text, max_sentences))
        for doc_id, text in read_documents(folder, "prompts")
    ]
