"""Build a corpus folder: training text, held-out text and prompts.

The text comes from a grammar, local files, the hub, other corpora or an experiment.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pollination.core import artifacts
from pollination.core.seeds import derive_seed
from pollination.data.contamination import overlap
from pollination.data.files import (
    read_documents,
    read_files,
    read_parquet,
    read_staged,
    resolve_files,
)
from pollination.data.microworld import World
from pollination.plan.corpora import CORPUS_KINDS

__all__ = ["build_corpus", "first_sentences", "overlap", "prompts", "read_documents"]

SPLITS = ("train", "validation", "test", "prompts")
SCHEMA = pa.schema([("doc_id", pa.string()), ("text", pa.string())])
BATCH_CHARACTERS = 8_000_000  # of text that each split holds in memory until it is written
# Documents per seed. A larger microworld corpus begins with the documents of a smaller one.
WORLD_CHUNK = 1000

Documents = Iterator[tuple[str, str | None]]
Read = tuple[dict, Callable[[], Documents]]
"""The entries of corpus.json about a source, and a function that iterates over its documents."""


def build_corpus(spec: dict, seed: int, folder: Path, sources: Sequence[Path] = ()) -> None:
    """Write {train,validation,test,prompts}.parquet (doc_id, text) and corpus.json.

    A microworld also gets world.json and tasks/. `folder` has the name of the corpus, `spec` is
    the config's `corpora.{name}`, and `sources` are the files that the plan lists for it
    (`corpus_sources`). A document's split is a hash of (seed, doc_id), so other documents do not
    move it. If a wanted split stays empty, one document is moved into it. If the corpus has its
    own splits (`splits`, or the splits of the corpora that it joins), doc_ids begin with
    "{split}/".
    ValueError: there are no documents, or fewer than wanted splits, or a file is missing or
    unreadable.
    """
    folder = Path(folder)
    read = _function(CORPUS_KINDS[spec["kind"]].reader)
    about, documents = read(spec, seed, folder, sources)
    about |= _write_splits(documents, spec, seed, folder)
    artifacts.write_json(folder / "corpus.json", {"kind": spec["kind"], "seed": seed} | about)


def stage_corpus(spec: dict, path: Path) -> None:
    """Download a corpus into one local file with the stager of its kind."""
    _function(CORPUS_KINDS[spec["kind"]].stager)(spec, path)


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
    return {"files": count}, partial(_local, spec, paths, f"{key}.column")


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
        yield from (
            (f"{name}:{n}", text) for n, text in enumerate(read_parquet(path, "completion"))
        )


def _union(folders: list[Path]) -> Documents:
    for split in SPLITS:
        for folder in folders:
            yield from (
                (f"{split}/{folder.name}/{doc_id}", text)
                for doc_id, text in read_documents(folder, split)
            )


class _EmptySplit(Exception):
    """A wanted split has no document. `doc_id` moves into it."""

    def __init__(self, doc_id: str, split: str) -> None:
        self.move = {doc_id: split}


def _write_splits(documents: Callable[[], Documents], spec: dict, seed: int, folder: Path) -> dict:
    """Write the four files, all or none. Return the counts for corpus.json.

    A small corpus may be read more than once.
    """
    if CORPUS_KINDS[spec["kind"]].joined:
        return _write_once(
            documents(), spec, lambda doc_id: (doc_id.split("/")[0],), ["train"], folder
        )
    if spec.get("splits"):
        # a data set has no split for prompts; its validation text is not trained on either
        own = {"train": ("train",), "validation": ("validation", "prompts"), "test": ("test",)}
        try:
            return _write_once(
                documents(), spec, lambda doc_id: own[doc_id.split("/")[0]], ["train"], folder
            )
        except _EmptySplit:
            raise ValueError(
                f"corpora.{folder.name}.splits.train: {spec['splits'].get('train')!r} holds no "
                "usable document. Correct it, column or min_characters"
            ) from None
    fractions = {"validation": 0.02, "test": 0.02, "prompts": 0.05} | spec.get("held_out", {})
    if sum(fractions.values()) >= 1:
        raise ValueError(
            f"corpora.{folder.name}.held_out: the shares {fractions} sum to "
            f"{sum(fractions.values()):g}; allowed: less than 1, because the rest is the training "
            "text. Lower a share"
        )
    moved: dict[str, str] = {}

    def splits_of(doc_id: str) -> tuple[str]:
        return (moved.get(doc_id) or _split(seed, doc_id, fractions),)

    wanted = ["train", *(split for split in SPLITS[1:] if fractions[split] > 0)]
    while True:
        try:
            return _write_once(documents(), spec, splits_of, wanted, folder)
        except _EmptySplit as empty:
            moved.update(empty.move)


def _write_once(
    documents: Documents,
    spec: dict,
    splits_of: Callable[[str], tuple[str, ...]],
    wanted: list[str],
    folder: Path,
) -> dict:
    with ExitStack() as stack:
        paths = {
            split: stack.enter_context(artifacts.atomic(folder / f"{split}.parquet"))
            for split in SPLITS
        }
        writers = {split: stack.enter_context(_Writer(path)) for split, path in paths.items()}
        skipped: Counter = Counter()
        for doc_id, text in _kept(documents, spec, skipped):
            for split in splits_of(doc_id):
                writers[split].add(doc_id, text)
        counts = {split: writer.documents for split, writer in writers.items()}
        total = sum(counts.values())
        reasons = (
            ", ".join(f"{count} {reason}" for reason, count in skipped.items())
            or "the source has none"
        )
        if total == 0:
            raise ValueError(
                f"corpora.{folder.name}: the corpus is empty, because no document is usable "
                f"({reasons}). Correct its source, column or min_characters"
            )
        if total < len(wanted):
            raise ValueError(
                f"corpora.{folder.name}.held_out: {total} documents cannot fill the splits "
                f"{', '.join(wanted)}; allowed: at least one document per split. Add documents, or "
                "set a share of held_out to 0"
            )
        empty = [split for split in wanted if counts[split] == 0]
        if empty:
            donor = max(SPLITS, key=lambda split: counts[split])
            raise _EmptySplit(writers[donor].first, empty[0])
        characters = {split: writer.characters for split, writer in writers.items()}
        return {"documents": counts, "characters": characters, "skipped": dict(skipped)}


def _kept(documents: Documents, spec: dict, skipped: Counter) -> Iterator[tuple[str, str]]:
    """Yield the usable documents. Count the others in `skipped` by reason."""
    least, most = spec.get("min_characters", 1), spec.get("max_documents") or float("inf")
    used: Counter[str] = Counter()
    for doc_id, text in documents:
        split = doc_id.split("/")[0] if spec.get("splits") else ""
        if used[split] >= most:
            if not split:
                return
        elif text is None:
            skipped["without text"] += 1
        elif len(text.strip()) < least:
            skipped["shorter than min_characters"] += 1
        else:
            used[split] += 1
            yield doc_id, text


def _split(seed: int, doc_id: str, fractions: dict[str, float]) -> str:
    place = derive_seed(seed, "split", doc_id) / 2**63
    for split, fraction in fractions.items():
        if place < fraction:
            return split
        place -= fraction
    return "train"


class _Writer:
    """Append documents to a parquet file in row groups of about BATCH_CHARACTERS."""

    def __init__(self, path: Path) -> None:
        self.file = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self.rows: list[tuple[str, str]] = []
        self.held = self.documents = self.characters = 0
        self.first = ""

    def add(self, doc_id: str, text: str) -> None:
        self.first = self.first or doc_id
        self.rows.append((doc_id, text))
        self.documents += 1
        self.characters += len(text)
        self.held += len(text) + 100  # empty and tiny documents also fill a batch
        if self.held >= BATCH_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            doc_ids, texts = zip(*self.rows, strict=True)
            self.file.write_table(
                pa.Table.from_pydict({"doc_id": doc_ids, "text": texts}, schema=SCHEMA)
            )
        self.rows, self.held = [], 0

    def close(self) -> None:
        self.flush()
        self.file.close()

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_) -> None:
        self.close()


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
