"""Write synthetic text: a parent continues held-out prompts up to a shard's token budget.

See study A, appendix D.2. Row n of a shard is one prompt with one seed. Both follow from (seed,
shard, n) alone, rows are accepted in the order of n, and the sampler treats each row separately. So
a shard's content does not depend on the batches.
"""

import math
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pollination.core import artifacts, resume
from pollination.core.job import Stopped
from pollination.core.seeds import derive_seed
from pollination.data.special import SpecialTokens, special_tokens
from pollination.data.tokens import vocabulary_id
from pollination.models.completion import _decode, _encode, complete, prompt_limit
from pollination.models.limits import ids_without_token
from pollination.models.paths import slower_decoding
from pollination.models.refill import rows_of_a_batch
from pollination.models.vllm_engine import ROWS, VllmModel
from pollination.plan.decoding import DECODINGS

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
WINDOW_BATCHES = 4  # per window of rows, sorted by prompt length; progress is kept after each
PROGRESS_S = 30
SAVE_S = 120
# a model that keeps 10 % of its rows on average is rejected by chance once in 5,000 times
GIVE_UP_ROWS = 400
GIVE_UP_SHARE = 0.05


def shard_budget(tokens: int, shards: int, shard: int) -> int:
    """Return one shard's equal share of the tokens. The first shards get the remainder."""
    return tokens // shards + (shard < tokens % shards)


class Rows:
    """The prompt and the seed of row n.

    Each prompt has one row if decoding is repeatable or the settings ask for one pass.
    """

    def __init__(self, prompts: int, settings: dict, seed: int, shard: int) -> None:
        self.seed, self.shard = seed, shard
        self.shuffled = settings["tokens"] is not None
        self.once = not self.shuffled or DECODINGS[settings["decoding"]].repeats
        self.pool = (
            np.arange(shard, prompts, settings["shards"]) if self.once else np.arange(prompts)
        )
        self.count = len(self.pool) if self.once else None
        self._orders: tuple[int, np.ndarray] = (-1, self.pool)

    def prompt(self, n: int) -> int:
        """Return the index of row n's prompt. With a token budget, each pass shuffles them."""
        turn, place = divmod(n, len(self.pool))
        if self.shuffled and self._orders[0] != turn:
            key = derive_seed(self.seed, "order", self.shard, turn)
            generator = np.random.Generator(np.random.Philox(key=key))
            self._orders = turn, generator.permutation(self.pool)
        return int(self._orders[1][place])

    def row_seed(self, n: int) -> int:
        return derive_seed(self.seed, "row", self.shard, n)


def _texts(
    tokenizer: PreTrainedTokenizerBase, prompt: list[int], new: list[int], special: SpecialTokens
) -> dict[str, str]:
    """Return prompt and completion as text. If possible, together they are the text of all ids.

    A reader with another tokenizer uses the text instead of the ids.
    """
    opening = tokenizer.decode(special.text(prompt), clean_up_tokenization_spaces=False)
    whole = _decode(tokenizer, prompt + new, special)
    if whole.startswith(opening):
        return {"prompt": opening, "completion": whole[len(opening) :]}
    return {"prompt": opening, "completion": _decode(tokenizer, new, special)}


def window(settings: dict, batch: int, budget: int | None, count: int | None, counts: dict) -> int:
    """Return the number of rows to draw next: a few batches, or fewer if the budget needs fewer.

    The need is estimated from the tokens per row so far, plus 5 % and one row. It follows from the
    counts alone, so an interrupted shard resumes with the same batches.
    """
    rows = WINDOW_BATCHES * batch
    if count is not None:
        rows = min(rows, count - counts["rows_drawn"])
    if budget is not None:
        tokens_per_row = settings["max_new_tokens"]
        if counts["tokens"]:
            tokens_per_row = counts["tokens"] / counts["rows_drawn"]
        rows = min(rows, 1 + math.ceil(1.05 * (budget - counts["tokens"]) / tokens_per_row))
    return rows


class Meter:
    """Log messages about progress at a fixed interval."""

    def __init__(
        self, shard: int, budget: int | None, count: int | None, counts: dict, log
    ) -> None:
        self.shard, self.budget, self.count, self.log = shard, budget, count, log
        self.start = counts
        self.begun_s = self.shown_s = time.monotonic()

    def show(self, counts: dict, last: bool = False) -> None:
        now_s = time.monotonic()
        if not last and now_s - self.shown_s < PROGRESS_S:
            return
        self.shown_s = now_s
        measure, whole, unit = "tokens", self.budget, "tokens"
        if self.budget is None:
            measure, whole, unit = "rows_drawn", self.count, "prompts"
        seconds = max(now_s - self.begun_s, 1e-9)
        rate = (counts[measure] - self.start[measure]) / seconds
        left_s = max(0, whole - counts[measure]) / rate if rate else math.inf
        tokens_per_s = (counts["completion_tokens"] - self.start["completion_tokens"]) / seconds
        kept = counts["rows_kept"] / max(1, counts["rows_drawn"])
        self.log.info(
            "shard %d: %d of %d %s, %.0f new tokens/s, %.0f %% of completions kept, about %.0f s "
            "left",
            *(self.shard, counts[measure], whole, unit, tokens_per_s, 100 * kept, left_s),
        )


class Progress:
    """Accepted rows of a shard, saved in `work` so that a later start resumes.

    `work` is a folder for this shard alone. None saves nothing. Each save adds a part. Its metadata
    holds `key` and the counts after it. Parts with another key are deleted.
    """

    def __init__(self, work: Path | None, key: str) -> None:
        self.work, self.key = work, key
        self.tables: list[pa.Table] = []
        self.counts = dict.fromkeys(
            (
                "rows_drawn",
                "rows_kept",
                "rows_ended",
                "tokens",
                "prompt_tokens",
                "completion_tokens",
            ),
            0,
        )
        for path in sorted(work.glob("part*.parquet")) if work is not None else []:
            table = artifacts.read_table(path)
            metadata = table.schema.metadata or {}
            state = {name.decode(): value.decode() for name, value in metadata.items()}
            if state.pop("key", None) != key:
                shutil.rmtree(path.parent)
                break
            self.counts = {name: int(value) for name, value in state.items()}
            self.tables.append(table.replace_schema_metadata(None))
        self.saved, self.saved_s = len(self.tables), time.monotonic()

    def add(self, rows: list[dict], counts: dict) -> None:
        self.tables.append(pa.Table.from_pylist(rows, schema=SCHEMA))
        self.counts = counts

    def save(self, every_s: float = 0.0) -> None:
        """Save the new rows if the last save was at least `every_s` seconds ago."""
        if (
            self.work
            and self.saved < len(self.tables)
            and time.monotonic() - self.saved_s >= every_s
        ):
            metadata = {"key": self.key} | {name: str(value) for name, value in self.counts.items()}
            part = pa.concat_tables(self.tables[self.saved :]).replace_schema_metadata(metadata)
            artifacts.write_table(self.work / f"part{self.counts['rows_drawn']:012d}.parquet", part)
            self.saved, self.saved_s = len(self.tables), time.monotonic()

    def finish(self, out: Path) -> None:
        """Write the shard and remove the work folder.

        Each column is one chunk, so the file does not depend on interruptions.
        """
        table = pa.concat_tables([SCHEMA.empty_table(), *self.tables])
        artifacts.write_table(out, table.combine_chunks())
        if self.work:
            shutil.rmtree(self.work, ignore_errors=True)


def write_shard(
    model: PreTrainedModel | VllmModel,
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
    """Write shard number `shard` of a parent's text to `out`. Return counts of rows and tokens.

    `prompts` are (prompt_id, text or token ids), `settings` is a complete `generate` block. The
    budget counts eos tokens that the model wrote, and prompts if `budget_counts` is "text". Without
    a budget (`tokens` null) the model continues each of the shard's prompts (number shard, shard +
    shards, ...) once. If `stop` becomes truthy, Stopped is raised. The folder `work` keeps finished
    windows. A later call with the same `key` (of settings, seed and model) resumes from them.
    ValueError: the model has degenerated (fewer than 5 % of its completions reach
    `min_completion_tokens`), repeatable decoding cannot meet the budget, logits are not finite, or
    lengths do not fit the context.
    """
    rows = Rows(len(prompts), settings, seed, shard)
    least, special = settings["min_completion_tokens"], special_tokens(tokenizer)
    limit, budget = prompt_limit(model, settings), None
    if settings["tokens"] is not None:
        budget = shard_budget(settings["tokens"], settings["shards"], shard)
    if len(rows.pool) == 0:
        raise ValueError(
            f"generate.shards: shard {shard} of {settings['shards']} gets none of the "
            f"{len(prompts)} prompts; allowed: at most one shard per prompt. Lower generate.shards "
            "or add prompts"
        )
    if least > settings["max_new_tokens"]:
        raise ValueError(
            f"generate.min_completion_tokens: {least} exceeds max_new_tokens, so all completions "
            f"would be dropped; allowed: at most {settings['max_new_tokens']}. Lower it or raise "
            "max_new_tokens"
        )

    batch = settings["batch_size"]
    if isinstance(model, VllmModel):
        batch = max(batch, ROWS)
    else:
        beams = bool(DECODINGS[settings["decoding"]].width)
        batch = batch if beams else rows_of_a_batch(model, batch)
        if reason := slower_decoding(model, beams):
            log.info("shard %d: decoding is slower: %s", shard, reason)
    never = ids_without_token(model, tokenizer)
    vocabulary, progress = vocabulary_id(tokenizer), Progress(work, key)
    counts = progress.counts
    if counts["rows_drawn"]:
        log.info(
            "shard %d: resumed after %d rows, %d tokens",
            shard,
            counts["rows_drawn"],
            counts["tokens"],
        )
    meter = Meter(shard, budget, rows.count, counts, log)
    while (budget is None or counts["tokens"] < budget) and (
        rows.count is None or counts["rows_drawn"] < rows.count
    ):
        first = counts["rows_drawn"]
        numbers = range(first, first + window(settings, batch, budget, rows.count, counts))
        chosen = [prompts[rows.prompt(n)] for n in numbers]
        prompts_ids = _encode(tokenizer, [text for _, text in chosen], limit)
        seeds = [rows.row_seed(n) for n in numbers]
        accepted, counts = [], dict(counts)
        try:
            completions = complete(model, prompts_ids, seeds, settings, special.eos_id, stop, never)
            for (prompt_id, _), ids, row_seed, new in zip(
                chosen, prompts_ids, seeds, completions, strict=True
            ):
                if budget is not None and counts["tokens"] >= budget:
                    break
                ended = new[-1] == special.eos_id
                counts["rows_drawn"] += 1
                if len(new) - ended >= least:
                    counts["rows_kept"] += 1
                    counts["rows_ended"] += ended
                    counts["prompt_tokens"] += len(ids)
                    counts["completion_tokens"] += len(new)
                    counts["tokens"] += len(new) + (
                        len(ids) if settings["budget_counts"] == "text" else 0
                    )
                    accepted.append(
                        {
                            "prompt_id": prompt_id,
                            **_texts(tokenizer, ids, new, special),
                            "token_ids": ids + new,
                            "prompt_tokens": len(ids),
                            "seed": row_seed,
                            "vocabulary": vocabulary,
                        }
                    )
                drawn, kept = counts["rows_drawn"], counts["rows_kept"]
                if (drawn >= GIVE_UP_ROWS or drawn == rows.count) and kept < GIVE_UP_SHARE * drawn:
                    raise ValueError(
                        f"generate.min_completion_tokens: {least}: the model has degenerated: only "
                        f"{kept} of {drawn} completions of shard {shard} are that long; allowed: "
                        f"at least {GIVE_UP_SHARE:.0%}. Train it longer or on better text, set "
                        "min_new_tokens, or lower min_completion_tokens"
                    )
                meter.show(counts)
        except Stopped:
            outcome = "no progress saved"
            if work and stop.may_save:
                progress.save()
                more = " and the batches after them" if resume.unsaved() else ""
                outcome = (
                    f"{progress.counts['tokens']} tokens{more} saved; run the same command to "
                    "resume"
                )
            raise Stopped(f"shard {shard}: stopped by {stop.reason}; {outcome}") from None
        progress.add(accepted, counts)
        progress.save(SAVE_S)
        if progress.saved == len(progress.tables):
            resume.clear()  # the batches of these rows
    if budget is not None and counts["tokens"] < budget:
        raise ValueError(
            f"generate.tokens: the {rows.count} prompts of shard {shard} gave {counts['tokens']} "
            f"of {budget} tokens, and {settings['decoding']} decoding would only repeat them. "
            "Lower generate.tokens, set it to null (one pass), add prompts, or sample (decoding: "
            "nucleus)"
        )
    meter.show(counts, last=True)
    progress.finish(out)
    return counts | {"budget_tokens": budget}
