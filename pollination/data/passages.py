"""Cut long documents into passages, so that a few documents can fill every split of a corpus."""

import re
from dataclasses import dataclass, field
from itertools import groupby
from typing import ClassVar

from pollination.core.seeds import derive_seed

# Characters: about 500 tokens or 16 English sentences, twice the longest prompt of study A.
PASSAGE = 2000
TRAIN, HELD_OUT = "train", ("validation", "test", "prompts")

# A passage ends at the first kind that occurs: a blank line, a line, a sentence, a word.
_SENTENCE = r"[.!?][\"”’)\]]*\s+|[。！？।]"
_ENDS = [re.compile(ending) for ending in (r"\n\s*\n\s*", r"\n\s*", _SENTENCE, r"\s+")]


@dataclass(frozen=True)
class Piece:
    """A document, or consecutive passages of one, for one split."""

    split: str
    doc_id: str
    text: str
    passages: int = 1
    last: str = ""
    """The id of its last passage; another split may get this passage."""


def cut(text: str, characters: int) -> list[str]:
    """Return the passages of a text, each of at most twice `characters`. Joined, they are the text.

    A text of up to twice `characters` is one passage. A passage ends where a paragraph ends, else a
    line, a sentence or a word, between 0.5 and 1.5 times `characters`.
    """
    passages, start = [], 0
    while len(text) - start > 2 * characters:
        first, last = start + characters // 2, start + characters + characters // 2
        ends = ([m.end() for m in end.finditer(text, first, last)] for end in _ENDS)
        wanted = start + characters
        nearest = (min(found, key=lambda end: abs(end - wanted)) for found in ends if found)
        stop = next(nearest, wanted)
        passages.append(text[start:stop])
        start = stop
    return [*passages, text[start:]]


@dataclass
class Shares:
    """Deals documents to splits by their shares.

    A whole document's split is a hash of (seed, doc_id). With `characters`, a document of more than
    twice that length is cut into passages. Consecutive passages from a hashed place in it are held
    out, each split's share of them. The rest is training text, except the passage after a held-out
    passage: a model that learned it could recite it as the continuation of a prompt.
    """

    seed: int
    shares: dict[str, float]
    characters: int | None = None
    moved: dict[str, str] = field(default_factory=dict)
    """Documents and passages that another split gets, because it has too few."""
    fills: ClassVar = HELD_OUT
    """The splits that get more documents if long ones are cut."""

    def pieces(self, doc_id: str, text: str) -> list[Piece]:
        passages = cut(text, self.characters) if self.characters else [text]
        if len(passages) == 1:
            split = self.moved.get(doc_id) or self._split(doc_id)
            return [Piece(split, doc_id, text, last=doc_id)]
        ids = [f"{doc_id}#{n}" for n in range(len(passages))]
        splits = self._splits(doc_id, len(passages))
        splits = [self.moved.get(name, split) for name, split in zip(ids, splits, strict=True)]
        before = [TRAIN, *splits[:-1]]
        kept = [
            "" if split == TRAIN and previous != TRAIN else split
            for split, previous in zip(splits, before, strict=True)
        ]
        pieces = []
        for split, run in groupby(range(len(passages)), key=kept.__getitem__):
            numbers = list(run)
            if split == TRAIN:
                name = f"{doc_id}#{numbers[0]}-{numbers[-1]}"
                whole = "".join(passages[n] for n in numbers)
                pieces.append(Piece(TRAIN, name, whole, len(numbers), ids[numbers[-1]]))
            elif split:
                pieces += [Piece(split, ids[n], passages[n], last=ids[n]) for n in numbers]
        return pieces

    def _split(self, doc_id: str) -> str:
        place = derive_seed(self.seed, "split", doc_id) / 2**63
        for split, share in self.shares.items():
            if place < share:
                return split
            place -= share
        return TRAIN

    def _splits(self, doc_id: str, count: int) -> list[str]:
        """Return the split of each passage.

        The numbers are rounded so that their expectation over documents is the share.
        """
        edge = derive_seed(self.seed, "passages", doc_id) / 2**63
        held_out: list[str] = []
        for split, share in self.shares.items():
            held_out += [split] * (int(edge + count * share) - int(edge))
            edge += count * share
        start = derive_seed(self.seed, "place", doc_id) % (count - len(held_out) + 1)
        train = [TRAIN] * (count - len(held_out))
        return [*train[:start], *held_out, *train[start:]]


@dataclass
class OwnSplits:
    """Keeps the splits of the data set: doc_ids begin with "{split}/".

    A data set has no split for prompts, so the validation documents also serve as prompts; no model
    trains on them otherwise. Only these prompts are cut into passages: validation and test text
    stays comparable with other work.
    """

    characters: int | None = None
    fills: ClassVar = ("prompts",)

    def pieces(self, doc_id: str, text: str) -> list[Piece]:
        split = doc_id.split("/")[0]
        pieces = [Piece(split, doc_id, text, last=doc_id)]
        if split == "validation":
            passages = cut(text, self.characters) if self.characters else [text]
            names = [f"{doc_id}#{n}" for n in range(len(passages))] if passages[1:] else [doc_id]
            pieces += [
                Piece("prompts", name, part, last=name)
                for name, part in zip(names, passages, strict=True)
            ]
        return pieces


@dataclass
class JoinedSplits:
    """Keeps the splits of the corpora that are joined: doc_ids begin with "{split}/"."""

    characters: int | None = None
    fills: ClassVar = ()

    def pieces(self, doc_id: str, text: str) -> list[Piece]:
        return [Piece(doc_id.split("/")[0], doc_id, text, last=doc_id)]
