"""Read the text of a training: human text and earlier generations' synthetic text."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pollination.core import artifacts
from pollination.core.job import Job
from pollination.core.seeds import derive_seed
from pollination.data.encoding import encode
from pollination.data.mixture import Blocks, Subset, join, mix, replacements, sample
from pollination.data.special import SpecialTokens, special_tokens
from pollination.data.tokens import Batch, TokenBlocks, pack_batches, vocabulary_id
from pollination.plan.operators import TEXTS

READ_ROWS = 4096  # rows of a shard in memory

Row = tuple[list[int], int]
"""Token ids of prompt and completion, and the index of the first trained token."""


@dataclass(frozen=True)
class Rows:
    """Rows of shards: their token ids, end to end, and the length and the first of each."""

    ids: np.ndarray
    lengths: np.ndarray
    firsts: np.ndarray

    def trained(self) -> Batch:
        """Return the tokens that are trained on, and their number in each row."""
        trained = self.lengths - self.firsts
        if not self.firsts.any():
            return self.ids, trained
        counts = np.column_stack([self.firsts, trained]).ravel()
        return self.ids[np.repeat(np.arange(len(counts)) % 2 == 1, counts)], trained

    def listed(self) -> Iterator[Row]:
        ids, end = self.ids.tolist(), 0
        for length, first in zip(self.lengths.tolist(), self.firsts.tolist(), strict=True):
            yield ids[end : end + length], first
            end += length


@dataclass(frozen=True)
class Training:
    """The text and the seeds of one training. A founder is generation 0 and reads human text."""

    generation: int
    member: int
    seed: int
    """Seed of new weights and of the order of blocks."""
    human_seed: int
    """Seed of the drawn human blocks and of a fixed budget's sample."""
    settings: dict
    """The config's `train`."""
    text: str
    """The operator that chooses a child's text. A founder's operator is human."""
    human: dict
    """The config's `human`: fraction and accumulate."""
    separator: str
    segment: Path | None
    """The human segment of its slot, packed."""
    packed: Path | None
    """The corpus from which `human.fraction` draws blocks, packed."""
    shards: list[Path]
    """Its synthetic text, the oldest round first."""
    opens: Callable[[Path], TokenBlocks] = TokenBlocks
    """Opens its human segment."""

    @property
    def accumulates(self) -> bool:
        return self.human["accumulate"] != "none"

    @property
    def rounds(self) -> list[list[Path]]:
        """Its synthetic text by the round that wrote it."""
        if not self.accumulates:
            return [self.shards]
        # .../gen{g}/synthetic0/shard0.parquet, .../gen{g}/deal0/text.parquet
        return [list(part) for _, part in groupby(self.shards, lambda path: path.parents[1])]

    def own_segment(self) -> TokenBlocks:
        assert self.segment is not None, "this training reads no human segment"
        return self.opens(self.segment)

    def synthetic_rows(self, shards: list[Path], tokenizer) -> Iterator[Rows]:
        settings = self.settings
        return synthetic_rows(shards, settings["include_prompt"], settings["tokens"], tokenizer)


def training_of(job: Job) -> Training:
    """Return the training of a job that trains a model or measures a trained model."""
    names, about = dict(job.wildcards.items()), job.params.training
    if names.get("place"):
        place = names["place"]
    elif "pool" in names:
        place = f"founders/{names['pool']}"
    else:
        place = f"{names['experiment']}/gen{names['gen']}"
    first, second = place.split("/")
    member, is_founder = int(names["member"]), first == "founders"
    generation = 0 if is_founder else int(second.removeprefix("gen"))
    if is_founder:
        about = about | {"text": "human", "human": {"fraction": 0.0, "accumulate": "none"}}
        seed = derive_seed("founder", second, member)
    else:
        seed = derive_seed(about["seed"], "train", generation, member)
    return Training(
        generation=generation,
        member=member,
        seed=seed,
        human_seed=derive_seed(job.params.data_seed, "human", generation, member),
        settings=about["train"],
        text=about["text"],
        human=about["human"],
        separator=job.params.separator,
        segment=job.optional_file("segment"),
        packed=job.optional_file("human"),
        shards=job.files("text"),
    )


def training_blocks(
    training: Training, tokenizer, vocab_size: int, context_tokens: int, work: Path
) -> Blocks:
    """Return the text of a training in blocks. Synthetic text is packed into the folder `work`."""
    if TEXTS[training.text].is_human:
        return training.own_segment()
    packed: list[Blocks] = []
    special = special_tokens(tokenizer)
    for number, shards in enumerate(training.rounds):
        path = work / f"text{number}.bin"
        rows = training.synthetic_rows(shards, tokenizer)
        pack_batches(
            (part.trained() for part in rows),
            vocab_size,
            context_tokens,
            special.eos_id,
            path,
            training.separator,
            special.bos_id,
        )
        packed.append(TokenBlocks(path))
    if training.accumulates:
        every = join([training.own_segment(), *packed])
        keeps_all = training.human["accumulate"] == "all"
        return every if keeps_all else sample(every, len(packed[-1]), training.human_seed)
    if training.packed is None:
        return packed[0]
    human = TokenBlocks(training.packed)
    return mix(packed[0], human, training.human["fraction"], training.human_seed)


def training_rows(training: Training, tokenizer) -> list[tuple[list[Row], bool, float]]:
    """Return the text of `training_blocks` in rows.

    Each part is (rows, whether they begin where a text begins, the share of them that is read).
    """
    if TEXTS[training.text].is_human:
        return [(_as_rows(training.own_segment()), False, 1.0)]
    rounds = [
        [row for part in training.synthetic_rows(shards, tokenizer) for row in part.listed()]
        for shards in training.rounds
    ]
    rows = [row for part in rounds for row in part]

    def blocks(part: list[Row], context_tokens: int) -> int:
        return _tokens(part, special_tokens(tokenizer), training.separator) // context_tokens

    if training.accumulates:
        own = training.own_segment()
        sizes = [blocks(part, own.context_tokens) for part in rounds]
        keeps_all = training.human["accumulate"] == "all"
        share = 1.0 if keeps_all else sizes[-1] / (sum(sizes) + len(own))
        return [(rows, True, share), (_as_rows(own), False, share)]
    if training.packed is None:
        return [(rows, True, 1.0)]
    human, fraction = TokenBlocks(training.packed), training.human["fraction"]
    size = blocks(rows, human.context_tokens)
    drawn = replacements(size, len(human), fraction, training.human_seed)
    human_rows = _as_rows(Subset(human, drawn[drawn >= 0]))
    return [(rows, True, 1 - fraction), (human_rows, False, 1.0)]


def _as_rows(blocks: Blocks) -> list[Row]:
    return [(row, 0) for row in blocks.blocks(np.arange(len(blocks))).tolist()]


def _tokens(rows: list[Row], special: SpecialTokens, separator: str) -> int:
    """Count the tokens of packed rows, with the bos and eos that `pack_ids` adds."""
    texts = [special.begun(ids[first:]) for ids, first in rows]
    begins = special.bos_id is not None  # an eos that is also bos may begin a text, but not end it
    separators = sum(
        separator == "eos" and text[begins:][-1:] != [special.eos_id] for text in texts
    )
    return sum(map(len, texts)) + separators


def synthetic_rows(
    shards: list[Path], include_prompt: bool, tokens: int | None, tokenizer
) -> Iterator[Rows]:
    """Yield rows of shards, up to the row that reaches `tokens` trained tokens (None: all rows).

    Ids stay unchanged if `tokenizer` has the vocabulary that wrote them. Otherwise the text is
    tokenised again.
    """
    left, mine = float("inf") if tokens is None else tokens, vocabulary_id(tokenizer)
    for path in shards:
        vocabularies = pc.unique(artifacts.read_table(path, ["vocabulary"])["vocabulary"])
        columns = ["token_ids", "prompt_tokens"]
        has_foreign = set(vocabularies.to_pylist()) != {mine}
        if has_foreign:
            columns += ["vocabulary", "prompt", "completion"]
        # in batches, because a shard may exceed the memory
        for batch in pq.ParquetFile(path).iter_batches(READ_ROWS, columns=columns):
            if left <= 0:
                return
            if batch.num_rows == 0:
                continue
            rows = _own(batch)
            if has_foreign:
                rows = _translated(rows, batch, mine, tokenizer)
            if include_prompt:
                rows = replace(rows, firsts=0 * rows.firsts)
            trained = np.cumsum(rows.lengths - rows.firsts)
            # A row is read if tokens are left before it.
            count = int(np.searchsorted(np.append(0, trained[:-1]), left))
            left -= int(trained[count - 1])
            size = int(rows.lengths[:count].sum())
            yield Rows(rows.ids[:size], rows.lengths[:count], rows.firsts[:count])


def _own(batch: pa.RecordBatch) -> Rows:
    """Return the rows of a batch as their writer numbered the tokens."""
    ids = batch.column("token_ids")
    return Rows(
        ids.flatten().to_numpy(zero_copy_only=False),
        pc.list_value_length(ids).to_numpy(zero_copy_only=False),
        batch.column("prompt_tokens").to_numpy(zero_copy_only=False),
    )


def _translated(rows: Rows, batch: pa.RecordBatch, mine: str, tokenizer) -> Rows:
    """Return the rows with the text of other vocabularies tokenised again."""
    foreign = pc.fill_null(pc.not_equal(batch.column("vocabulary"), mine), True)
    encoded = [
        encode(batch.column(name).filter(foreign).to_pylist(), tokenizer)
        for name in ("prompt", "completion")
    ]
    parts = np.split(rows.ids, np.cumsum(rows.lengths)[:-1])
    firsts = rows.firsts.copy()
    for number in np.flatnonzero(foreign.to_numpy(zero_copy_only=False)):
        opening, completion = map(next, encoded)
        parts[number], firsts[number] = np.concatenate([opening, completion]), len(opening)
    return Rows(np.concatenate(parts), np.array([len(part) for part in parts]), firsts)
