"""Synthetic text: a parent continues held-out prompts until a shard's token budget is met (study A, appendix D.2).

Row n of a shard is one prompt with one seed. Both follow from (seed, shard, n) alone, rows are accepted in the order of n,
and the sampler keeps rows apart, so a shard's content does not depend on how rows were batched.
"""

import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pollination import artifacts
from pollination.beam import beam_search
from pollination.decoder import STATIC_DEVICES
from pollination.job import Stopped
from pollination.models import PLAIN_FAMILIES
from pollination.sampling import Decoding, sample
from pollination.seeds import derive_seed
from pollination.tokens import vocabulary_id

SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("prompt_tokens", pa.int32()),
        ("seed", pa.int64()),
        ("vocabulary", pa.string()),
    ]
)
WINDOW_BATCHES = 4  # batches drawn at once: their prompts are sorted by length, and work in progress is kept after them
PROGRESS_S = 30
SAVE_S = 120
# A model that keeps under 5 % of its rows is given up after 400: were it to keep 10 %, that would happen 1 time in 5,000.
GIVE_UP_ROWS = 400
GIVE_UP_SHARE = 0.05


def prompt_limit(model: PreTrainedModel, settings: dict) -> int | None:
    """Tokens of a prompt at most: `max_prompt_tokens`, by default half the context, less if completions need the room.

    None where the model knows no bound. Raises ValueError where prompt and completion cannot both fit.
    """
    context, new = getattr(model.config, "max_position_embeddings", None), settings["max_new_tokens"]
    limit = settings.get("max_prompt_tokens")
    if context is None:
        return limit
    if new >= context:
        raise ValueError(
            f"generate.max_new_tokens: {new} leaves no room for a prompt in a context of {context} tokens; allowed: 1 to {context - 1}"
        )
    if limit is None:
        return max(1, min(context // 2, context - new))
    if limit + new > context:
        raise ValueError(
            f"generate.max_prompt_tokens: {limit} and max_new_tokens {new} exceed the model's context of {context} tokens;"
            f" allowed: at most {context - new}, or null"
        )
    return limit


def shard_budget(tokens: int, shards: int, shard: int) -> int:
    """Tokens of one shard's equal share; what does not divide goes to the first shards, one each."""
    return tokens // shards + (shard < tokens % shards)


class Rows:
    """Which prompt and seed row n has. Repeatable decoding (greedy, beam) and one-pass settings give each prompt one row."""

    def __init__(self, prompts: int, settings: dict, seed: int, shard: int) -> None:
        self.seed, self.shard = seed, shard
        self.shuffled = settings["tokens"] is not None
        self.once = not self.shuffled or settings["decoding"] in ("greedy", "beam")
        self.pool = np.arange(shard, prompts, settings["shards"]) if self.once else np.arange(prompts)
        self.count = len(self.pool) if self.once else None
        self._orders: tuple[int, np.ndarray] = (-1, self.pool)

    def prompt(self, n: int) -> int:
        """Index of row n's prompt: prompts come in a seeded order of each pass, or as they stand in a one-pass shard."""
        turn, place = divmod(n, len(self.pool))
        if self.shuffled and self._orders[0] != turn:
            generator = np.random.Generator(np.random.Philox(key=derive_seed(self.seed, "order", self.shard, turn)))
            self._orders = turn, generator.permutation(self.pool)
        return int(self._orders[1][place])

    def row_seed(self, n: int) -> int:
        return derive_seed(self.seed, "row", self.shard, n)


def complete(model, prompts_ids: list[list[int]], seeds: list[int], settings: dict, eos_id: int, stop=None) -> Iterator[list[int]]:
    """One completion (token ids) a prompt, in order; an empty prompt is continued from the end-of-sequence token."""
    prompts_ids = [ids or [eos_id] for ids in prompts_ids]
    decoding, batch_size = Decoding.from_settings(settings), settings["batch_size"]
    if decoding.decoding != "beam":
        yield from sample(model, prompts_ids, seeds, decoding, eos_id, batch_size, stop)
        return
    beams = decoding.beams
    step = max(1, batch_size // beams)
    for start in range(0, len(prompts_ids), step):
        some = prompts_ids[start : start + step]
        yield from beam_search(
            model, some, beams, decoding.max_new_tokens, decoding.min_new_tokens, decoding.repetition_penalty, eos_id, stop=stop
        )


def _encode(tokenizer: PreTrainedTokenizerBase, prompts: list[str] | list[list[int]], limit: int | None) -> list[list[int]]:
    if prompts and isinstance(prompts[0], str):
        prompts = tokenizer(prompts, add_special_tokens=False, verbose=False)["input_ids"]
    return [list(ids[:limit]) for ids in prompts]


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int], eos_id: int) -> str:
    """The text of token ids, without a final end of sequence."""
    ids = ids[:-1] if ids and ids[-1] == eos_id else ids
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _texts(tokenizer: PreTrainedTokenizerBase, prompt: list[int], new: list[int], eos_id: int) -> dict[str, str]:
    """Prompt and completion as text: end to end they are what all the ids say, for a reader with another tokenizer."""
    opening, whole = tokenizer.decode(prompt, clean_up_tokenization_spaces=False), _decode(tokenizer, prompt + new, eos_id)
    rest = whole[len(opening) :] if whole.startswith(opening) else _decode(tokenizer, new, eos_id)
    return {"prompt": opening, "completion": rest}


def continue_prompts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[tuple[str, str]],
    settings: dict,
    seed: int,
    by_name: bool = False,
) -> pd.DataFrame:
    """One completion a prompt, however short: columns prompt_id, prompt, completion, seed.

    `prompts` are (prompt_id, text); a row's seed follows from its place, or with `by_name` from its prompt_id; `settings` are keys of a `generate` block; raises what `write_shard` raises.
    """
    settings = {"batch_size": 128} | settings
    eos_id = tokenizer.eos_token_id
    ids = _encode(tokenizer, [text for _, text in prompts], prompt_limit(model, settings))
    seeds = [derive_seed(seed, "sample", name if by_name else n) for n, (name, _) in enumerate(prompts)]
    texts = complete(model, ids, seeds, settings, eos_id)
    return pd.DataFrame(
        {
            "prompt_id": [name for name, _ in prompts],
            "prompt": [_decode(tokenizer, row, eos_id) for row in ids],
            "completion": [_decode(tokenizer, row, eos_id) for row in texts],
            "seed": seeds,
        }
    )


def window(settings: dict, budget: int | None, count: int | None, counts: dict) -> int:
    """How many rows to draw next: a few batches, but hardly more than the budget still needs (by the yield so far).

    It follows from the counts alone, so an interrupted shard goes on with the very same batches.
    """
    rows = WINDOW_BATCHES * settings["batch_size"]
    if count is not None:
        rows = min(rows, count - counts["rows_drawn"])
    if budget is not None:
        tokens_a_row = counts["tokens"] / counts["rows_drawn"] if counts["tokens"] else settings["max_new_tokens"]
        rows = min(rows, 1 + math.ceil(1.05 * (budget - counts["tokens"]) / tokens_a_row))
    return rows


class Meter:
    """Progress lines at a fixed interval."""

    def __init__(self, shard: int, budget: int | None, count: int | None, counts: dict, log) -> None:
        self.shard, self.budget, self.count, self.log = shard, budget, count, log
        self.start = counts
        self.begun_s = self.shown_s = time.monotonic()

    def show(self, counts: dict, last: bool = False) -> None:
        now_s = time.monotonic()
        if not last and now_s - self.shown_s < PROGRESS_S:
            return
        self.shown_s = now_s
        measure, whole, unit = ("tokens", self.budget, "tokens") if self.budget is not None else ("rows_drawn", self.count, "prompts")
        seconds = max(now_s - self.begun_s, 1e-9)
        rate = (counts[measure] - self.start[measure]) / seconds
        left_s = max(0, whole - counts[measure]) / rate if rate else math.inf
        tokens_per_s = (counts["completion_tokens"] - self.start["completion_tokens"]) / seconds
        kept = counts["rows_kept"] / max(1, counts["rows_drawn"])
        self.log.info(
            "shard %d: %d of %d %s, %.0f new tokens/s, %.0f %% of completions kept, about %.0f s left",
            *(self.shard, counts[measure], whole, unit, tokens_per_s, 100 * kept, left_s),
        )


class Progress:
    """Accepted rows of a shard, kept in `work` (a folder of this shard alone, or None) so that a later start goes on.

    Each save adds a part that holds, as metadata, `key` and the counts after it; parts under another key are thrown away.
    """

    def __init__(self, work: Path | None, key: str) -> None:
        self.work, self.key = work, key
        self.tables: list[pa.Table] = []
        self.counts = dict.fromkeys(("rows_drawn", "rows_kept", "rows_ended", "tokens", "prompt_tokens", "completion_tokens"), 0)
        for path in sorted(work.glob("part*.parquet")) if work else []:
            table = artifacts.read_table(path)
            found = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
            if found.pop("key", None) != key:
                shutil.rmtree(work)
                break
            self.counts = {name: int(value) for name, value in found.items()}
            self.tables.append(table.replace_schema_metadata(None))
        self.saved, self.saved_s = len(self.tables), time.monotonic()

    def add(self, rows: list[dict], counts: dict) -> None:
        self.tables.append(pa.Table.from_pylist(rows, schema=SCHEMA))
        self.counts = counts

    def save(self, every_s: float = 0.0) -> None:
        """Save what was added since the last save, if that is `every_s` ago."""
        if self.work and self.saved < len(self.tables) and time.monotonic() - self.saved_s >= every_s:
            metadata = {"key": self.key} | {name: str(value) for name, value in self.counts.items()}
            part = pa.concat_tables(self.tables[self.saved :]).replace_schema_metadata(metadata)
            artifacts.write_table(self.work / f"part{self.counts['rows_drawn']:012d}.parquet", part)
            self.saved, self.saved_s = len(self.tables), time.monotonic()

    def finish(self, out: Path) -> None:
        """Write the shard and remove the work folder. One chunk a column: the file does not depend on interruptions."""
        artifacts.write_table(out, pa.concat_tables([SCHEMA.empty_table(), *self.tables]).combine_chunks())
        if self.work:
            shutil.rmtree(self.work, ignore_errors=True)


def write_shard(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[tuple[str, str]] | list[tuple[str, list[int]]],
    settings: dict,
    seed: int,
    shard: int,
    out: Path,
    log,
    stop=None,
    work: Path | None = None,
    key: str = "",
) -> dict:
    """Write shard number `shard` of a parent's text to `out`; return its counts of rows and tokens.

    `prompts` are (prompt_id, text or token ids), `settings` a whole `generate` block. The budget counts ends of sequence that the model
    wrote, and prompts if `budget_counts` is "text". Without a budget (`tokens` null) each of the shard's prompts (number
    shard, shard + shards, ...) is continued once. `stop` (truthy: asked to stop) ends the work with Stopped; with a folder
    `work`, what is done stays there and a later call with the same `key` (of settings, seed and model) goes on from it.

    Raises ValueError where the model has degenerated (under 5 % of its completions reach `min_tokens`), where decoding that
    always repeats itself cannot meet the budget, on non-finite logits, and where lengths do not fit the context.
    """
    rows = Rows(len(prompts), settings, seed, shard)
    least, limit, eos_id = settings["min_tokens"], prompt_limit(model, settings), tokenizer.eos_token_id
    budget = None if settings["tokens"] is None else shard_budget(settings["tokens"], settings["shards"], shard)
    if len(rows.pool) == 0:
        raise ValueError(
            f"generate.shards: shard {shard} of {settings['shards']} gets none of the {len(prompts)} prompts; allowed: at most one shard a prompt"
        )
    if least > settings["max_new_tokens"]:
        raise ValueError(
            f"generate.min_tokens: {least} can never be reached with max_new_tokens {settings['max_new_tokens']}; allowed: at most that"
        )

    faster = settings["decoding"] == "beam" or model.device.type in STATIC_DEVICES
    if faster and model.config.model_type not in PLAIN_FAMILIES:
        known = ", ".join(PLAIN_FAMILIES)
        log.info("shard %d: architecture %r is none of %s and goes the general way, which is slower", shard, model.config.model_type, known)
    vocabulary, progress = vocabulary_id(tokenizer), Progress(work, key)
    counts = progress.counts
    if counts["rows_drawn"]:
        log.info("shard %d: going on after %d rows, %d tokens", shard, counts["rows_drawn"], counts["tokens"])
    meter = Meter(shard, budget, rows.count, counts, log)
    while (budget is None or counts["tokens"] < budget) and (rows.count is None or counts["rows_drawn"] < rows.count):
        first = counts["rows_drawn"]
        numbers = range(first, first + window(settings, budget, rows.count, counts))
        chosen = [prompts[rows.prompt(n)] for n in numbers]
        prompts_ids = _encode(tokenizer, [text for _, text in chosen], limit)
        seeds = [rows.row_seed(n) for n in numbers]
        accepted, counts = [], dict(counts)
        try:
            completions = complete(model, prompts_ids, seeds, settings, eos_id, stop)
            for (prompt_id, _), ids, row_seed, new in zip(chosen, prompts_ids, seeds, completions, strict=True):
                if budget is not None and counts["tokens"] >= budget:
                    break
                ended = new[-1] == eos_id
                counts["rows_drawn"] += 1
                if len(new) - ended >= least:
                    counts["rows_kept"] += 1
                    counts["rows_ended"] += ended
                    counts["prompt_tokens"] += len(ids)
                    counts["completion_tokens"] += len(new)
                    counts["tokens"] += len(new) + (len(ids) if settings["budget_counts"] == "text" else 0)
                    accepted.append(
                        {
                            "prompt_id": prompt_id,
                            **_texts(tokenizer, ids, new, eos_id),
                            "token_ids": ids + new,
                            "prompt_tokens": len(ids),
                            "seed": row_seed,
                            "vocabulary": vocabulary,
                        }
                    )
                drawn, kept = counts["rows_drawn"], counts["rows_kept"]
                if (drawn >= GIVE_UP_ROWS or drawn == rows.count) and kept < GIVE_UP_SHARE * drawn:
                    raise ValueError(
                        f"shard {shard}: the model has degenerated: only {kept} of {drawn} completions have min_tokens {least} tokens or more"
                        f" (allowed: {GIVE_UP_SHARE:.0%}); train it longer or on better text, set min_new_tokens, or lower min_tokens"
                    )
                meter.show(counts)
        except Stopped:
            if stop.may_save:
                progress.save()
            done = progress.counts["tokens"]
            raise Stopped(
                f"shard {shard}: stopped on request, {done} tokens of whole windows {'kept' if work else 'lost'}; run again to go on"
            ) from None
        progress.add(accepted, counts)
        progress.save(SAVE_S)
    if budget is not None and counts["tokens"] < budget:
        raise ValueError(
            f"generate.tokens: the {rows.count} prompts of shard {shard} gave {counts['tokens']} of {budget} tokens, and {settings['decoding']} decoding"
            " would only repeat them; lower tokens, set it to null (one pass), give more prompts, or sample (decoding: nucleus)"
        )
    meter.show(counts, last=True)
    progress.finish(out)
    return counts | {"budget_tokens": budget}
