"""Build a corpus folder: training text, held-out text and prompts.

The text comes from a grammar, local files, the hub, other corpora or an experiment.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from pollination.data.contamination import Questions, overlap
from pollination.data.files import (
    read_documents,
    read_files,
    read_parquet,
    read_staged,
    resolve_files,
)
from pollination.data.microworld import World
from pollination.data.passages import (
    HELD_OUT,
    PASSAGE,
    JoinedSplits,
    OwnSplits,
    Piece,
    Shares,
)
from pollination.plan.corpora import CORPUS_KINDS, kind_of
from pollination.plan.inputs import corpus_sources
from pollination.plan.plan import Plan
from pollination.plan.sizes import SIZES, floors

__all__ = ["build_corpus", "first_sentences", "overlap", "prompts", "read_documents"]

SPLITS = ("train", "validation", "test", "prompts")
SCHEMA = pa.schema([("doc_id", pa.string()), ("text", pa.string())])
FORECAST_CHARACTERS = 100_000_000  # of text that a forecast reads at most
MOVES = 20  # of documents between splits, each after the corpus was read again
BATCH_CHARACTERS = 8_000_000  # of text that each split holds in memory until it is written
# Documents per seed. A larger microworld corpus begins with the documents of a smaller one.
WORLD_CHUNK = 1000

Documents = Iterator[tuple[str, str | None]]
Read = tuple[dict, Callable[[], Documents]]
"""The entries of corpus.json about a source, and a function that iterates over its documents."""
Dealt = Shares | OwnSplits | JoinedSplits


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
    about |= _write_splits(documents, spec, seed, folder, asked)
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


class _Again(Exception):
    """The splits must be written again: long documents are cut, or a passage moves (`move`)."""

    def __init__(self, move: dict[str, str] | None = None) -> None:
        self.move = move


def _write_splits(
    documents: Callable[[], Documents], spec: dict, seed: int, folder: Path, asked: Questions | None
) -> dict:
    """Write the four files, all or none. Return the counts for corpus.json."""
    dealt, least = _dealt(spec, seed, folder.name)
    return _settled(
        lambda: _write_once(documents(), spec, dealt, least, folder, asked),
        dealt,
        f"corpora.{folder.name}",
    )


def _settled(deal: Callable[[], dict], dealt: Dealt, key: str) -> dict:
    """Return what `deal` returns, after documents moved or were cut so that every split is filled.

    A small corpus may be read more than once.
    """
    for _ in range(MOVES):
        try:
            return deal()
        except _Again as again:
            if again.move is None:
                dealt.characters = PASSAGE
            elif isinstance(dealt, Shares):
                dealt.moved |= again.move
    raise ValueError(
        f"{key}.held_out: the documents are too few for the wanted splits. Add documents, or set a "
        "share to 0"
    )


def _dealt(spec: dict, seed: int, name: str) -> tuple[Dealt, dict[str, int]]:
    """Return how documents get to splits, and the least number of documents of each split."""
    if CORPUS_KINDS[spec["kind"]].joined:
        return JoinedSplits(), {"train": 1}
    characters = spec["passages"] if isinstance(spec.get("passages"), int) else None
    if spec.get("splits"):
        return OwnSplits(characters), {"train": 1} | floors(HELD_OUT)
    fractions = {"validation": 0.02, "test": 0.02, "prompts": 0.05} | spec.get("held_out", {})
    if sum(fractions.values()) >= 1:
        raise ValueError(
            f"corpora.{name}.held_out: the shares {fractions} sum to "
            f"{sum(fractions.values()):g}; allowed: less than 1, because the rest is the training "
            "text. Lower a share"
        )
    wanted = [split for split in HELD_OUT if fractions[split] > 0]
    return Shares(seed, fractions, characters), {"train": 1} | floors(wanted)


def _write_once(
    documents: Documents,
    spec: dict,
    dealt: Dealt,
    least: dict[str, int],
    folder: Path,
    asked: Questions | None,
) -> dict:
    with ExitStack() as stack:
        paths = {
            split: stack.enter_context(artifacts.atomic(folder / f"{split}.parquet"))
            for split in SPLITS
        }
        writers = {split: stack.enter_context(_Writer(path)) for split, path in paths.items()}
        return _deal(documents, spec, dealt, least, folder.name, asked, writers)


def _deal(
    documents: Iterable[tuple[str, str | None]],
    spec: dict,
    dealt: Dealt,
    least: dict[str, int],
    name: str,
    asked: Questions | None,
    writers: Mapping[str, "_Count"],
) -> dict:
    skipped: Counter = Counter()
    removed: dict[str, list[str]] = {}
    longest = 0
    kept = _kept(documents, spec, skipped)
    for doc_id, text in _without(asked, kept, dealt, removed) if asked else kept:
        longest = max(longest, len(text))
        for piece in dealt.pieces(doc_id, text):
            writers[piece.split].add(piece)
    counts = {split: writer.documents for split, writer in writers.items()}
    few = [split for split in least if split in dealt.fills and counts[split] < SIZES[split].few]
    is_auto = spec.get("passages", "auto") == "auto" and not CORPUS_KINDS[spec["kind"]].world
    if few and is_auto and not dealt.characters and longest > 2 * PASSAGE:
        raise _Again
    _check_counts(writers, least, skipped, removed, spec, name, dealt)
    about: dict = {
        "documents": counts,
        "characters": {split: writer.characters for split, writer in writers.items()},
        "skipped": dict(skipped),
    }
    if dealt.characters and longest > 2 * dealt.characters:
        about["passage_characters"] = dealt.characters
    if asked:
        about["removed"] = {
            "documents": len({doc_id for ids in removed.values() for doc_id in ids}),
            "questions": [
                {"question": question, "doc_ids": ids} for question, ids in removed.items()
            ],
        }
    return about


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
    dealt, least = _dealt(spec, seed, name)
    read = _Enough(documents, least)

    def deal() -> dict:
        return _deal(read, spec, dealt, least, name, None, read.begin())

    try:
        _settled(deal, dealt, f"corpora.{name}")
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
        self.counts: dict[str, _Count] = {}
        self.too_long = False

    def begin(self) -> dict[str, "_Count"]:
        self.counts = {split: _Count() for split in SPLITS}
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


def _check_counts(
    writers: Mapping[str, "_Count"],
    least: dict[str, int],
    skipped: Counter,
    removed: dict[str, list[str]],
    spec: dict,
    name: str,
    dealt: Dealt,
) -> None:
    """Raise _Again if a document must move to another split, and a ValueError if none can."""
    held = {split: writer.passages for split, writer in writers.items()}
    gone = len({doc_id for ids in removed.values() for doc_id in ids})
    lost = f"on_overlap: remove dropped {gone} documents that contain benchmark questions"
    remedy = f". {lost}; correct corpora.{name}.on_overlap or add text" if gone else ""
    total = sum(held.values())
    if total == 0:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        raise ValueError(
            f"corpora.{name}: the corpus is empty, because no document is usable "
            f"({reasons or 'the source has none'}). Correct its source, column or "
            f"min_characters{remedy}"
        )
    empty = [split for split, count in least.items() if held[split] < count]
    if isinstance(dealt, JoinedSplits) and gone:
        # the parts may have no prompts of their own; a removal must not take the last ones
        before = {doc_id.split("/")[0] for ids in removed.values() for doc_id in ids}
        empty += sorted(split for split in before if held[split] == 0 and split not in empty)
    if empty and not isinstance(dealt, Shares):
        split = empty[0]
        source = "validation" if split == "prompts" else split
        place = f"splits.{source}: {spec['splits'].get(source)!r}" if spec.get("splits") else split
        raise ValueError(
            f"corpora.{name}.{place} holds "
            + ("no usable document" if held[split] == 0 else f"{held[split]} usable document")
            + f" for {split}; allowed: {max(1, least.get(split, 1))} or more. Correct it, column "
            f"or min_characters{remedy}"
        )
    if total < sum(least.values()):
        raise ValueError(
            f"corpora.{name}.held_out: {total} documents cannot fill the splits "
            f"{', '.join(least)}; allowed: {sum(least.values())} or more. Add documents, or "
            f"set a share of held_out to 0{remedy}"
        )
    if empty:
        donor = max(SPLITS, key=lambda split: held[split] - least.get(split, 0))
        raise _Again({writers[donor].movable: empty[0]})


def _without(
    asked: Questions, documents: Iterator[tuple[str, str]], dealt: Dealt, removed: dict
) -> Iterator[tuple[str, str]]:
    """Yield the documents without benchmark questions. List the others in `removed` by question.

    The test text of a data set's own splits stays complete: no model trains on it.
    """
    for doc_id, text, found in asked.search(documents):
        is_kept = doc_id.startswith("test/") and not isinstance(dealt, Shares)
        if found and not is_kept:
            for words in found:
                removed.setdefault(asked.texts[words][0], []).append(doc_id)
        else:
            yield doc_id, text


def _kept(
    documents: Iterable[tuple[str, str | None]], spec: dict, skipped: Counter
) -> Iterator[tuple[str, str]]:
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


class _Count:
    """Count documents, passages and characters of a split."""

    def __init__(self) -> None:
        self.documents = self.passages = self.characters = 0
        self.movable = ""
        """The document or passage that another split gets if it has too few."""

    def add(self, piece: Piece) -> None:
        self.movable = self.movable or piece.last
        self.documents += 1
        self.passages += piece.passages
        self.characters += len(piece.text)


class _Writer(_Count):
    """Append documents to a parquet file in row groups of about BATCH_CHARACTERS."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.file = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self.rows: list[tuple[str, str]] = []
        self.held = 0

    def add(self, piece: Piece) -> None:
        super().add(piece)
        self.rows.append((piece.doc_id, piece.text))
        self.held += len(piece.text) + 100  # empty and tiny documents also fill a batch
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
