"""Deal the documents of a corpus to train, validation, test and prompts, and write their files."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pollination.core import artifacts
from pollination.data.contamination import Questions
from pollination.data.passages import (
    HELD_OUT,
    PASSAGE,
    JoinedSplits,
    OwnSplits,
    Piece,
    Shares,
)
from pollination.plan.corpora import CORPUS_KINDS
from pollination.plan.sizes import SIZES, floors

SPLITS = ("train", "validation", "test", "prompts")
SCHEMA = pa.schema([("doc_id", pa.string()), ("text", pa.string())])
MOVES = 20  # of documents between splits, each after the corpus was read again
BATCH_CHARACTERS = 8_000_000  # of text that each split holds in memory until it is written

Documents = Iterator[tuple[str, str | None]]
Dealt = Shares | OwnSplits | JoinedSplits


class _Again(Exception):
    """The splits must be written again: long documents are cut, or a passage moves (`move`)."""

    def __init__(self, move: dict[str, str] | None = None) -> None:
        self.move = move


def write_splits(
    documents: Callable[[], Documents], spec: dict, seed: int, folder: Path, asked: Questions | None
) -> dict:
    """Write the four files, all or none. Return the counts for corpus.json."""
    dealt, least = dealing(spec, seed, folder.name)
    return settled(
        lambda: _write_once(documents(), spec, dealt, least, folder, asked),
        dealt,
        f"corpora.{folder.name}",
    )


def settled(deal: Callable[[], dict], dealt: Dealt, key: str) -> dict:
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


def dealing(spec: dict, seed: int, name: str) -> tuple[Dealt, dict[str, int]]:
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
        return deal_documents(documents, spec, dealt, least, folder.name, asked, writers)


def deal_documents(
    documents: Iterable[tuple[str, str | None]],
    spec: dict,
    dealt: Dealt,
    least: dict[str, int],
    name: str,
    asked: Questions | None,
    writers: Mapping[str, "Count"],
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


def _check_counts(
    writers: Mapping[str, "Count"],
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


class Count:
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


class _Writer(Count):
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
