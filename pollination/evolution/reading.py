"""Read the text of a training: human text and earlier generations' synthetic text."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pollination.core import artifacts
from pollination.core.job import Job
from pollination.core.seeds import derive_seed
from pollination.data.encoding import encode
from pollination.data.mixture import Blocks, Subset, join, mix, replacements, sample
from pollination.data.special import SpecialTokens, special_tokens
from pollination.data.tokens import TokenBlocks, pack_ids, vocabulary_id
from pollination.plan.operators import TEXTS

Row = tuple[list[int], int]
"""Token ids of prompt and completion, and the index of the first trained token."""


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

    @property
    def accumulates(self) -> bool:
        return self.human["accumulate"] != "none"

    @property
    def rounds(self) -> list[list[Path]]:
        """Its synthetic text by the round that wrote it."""
        count = self.generation if self.accumulates else 1
        return [list(part) for part in np.array_split(np.array(self.shards, dtype=object), count)]

    def own_segment(self) -> TokenBlocks:
        assert self.segment is not None, "this training reads no human segment"
        return TokenBlocks(self.segment)

    def synthetic_rows(self, shards: list[Path], tokenizer) -> Iterator[Row]:
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
        ids = (ids[first:] for ids, first in rows)
        pack_ids(
            ids,
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
    rounds = [list(training.synthetic_rows(shards, tokenizer)) for shards in training.rounds]
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
) -> Iterator[Row]:
    """Yield rows of shards, up to the row that reaches `tokens` trained tokens (None: all rows).

    Ids stay unchanged if `tokenizer` has the vocabulary that wrote them. Otherwise the text is
    tokenised again.
    """
    left, mine = float("inf") if tokens is None else tokens, vocabulary_id(tokenizer)
    for path in shards:
        vocabularies = pc.unique(artifacts.read_table(path, ["vocabulary"])["vocabulary"])
        columns = ["token_ids", "prompt_tokens"]
        if set(vocabularies.to_pylist()) != {mine}:
            columns += ["vocabulary", "prompt", "completion"]
        # in batches, because a shard may exceed the memory
        for batch in pq.ParquetFile(path).iter_batches(4096, columns=columns):
            rows = batch.to_pylist()
            foreign = [row for row in rows if row.get("vocabulary", mine) != mine]
            encoded = {
                key: encode([row[key] for row in foreign], tokenizer)
                for key in ("prompt", "completion")
            }
            for row in rows:
                if left <= 0:
                    return
                ids, first = row["token_ids"], row["prompt_tokens"]
                if row.get("vocabulary", mine) != mine:
                    opening = next(encoded["prompt"]).tolist()
                    ids, first = opening + next(encoded["completion"]).tolist(), len(opening)
                first = 0 if include_prompt else first
                left -= len(ids) - first
                yield ids, first
