"""Define the lm-eval model class of this project: HFLM, but each shared prefix is read once.

`evaluator.evaluate(lm=HarnessModel(model, tokenizer, batch_size), ...)` works for any lm-eval task.
Results, tokens and truncation are those of HFLM. `prefix_tree` computes the log-likelihoods of
models whose contract allows it. For all others HFLM does, and one log message says so. HFLM also
generates answers.
"""

import copy
import json
import logging
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import Collator, normalize_gen_kwargs

from pollination.core import resume
from pollination.data.encoding import encode
from pollination.data.special import special_tokens
from pollination.models.contract import GENERATE, RAGGED, TREE, contract_of
from pollination.models.limits import context_limit, embedding_rows, ids_without_token
from pollination.models.prefix_tree import continuation_logprobs

log = logging.getLogger("pollination")

LOGITS_BYTES = 2**30  # upper bound for the logits of a batch in HFLM

Encoded = tuple[list[int] | np.ndarray, list[int] | np.ndarray]


class HarnessModel(HFLM):
    """HFLM with this project's special tokens, without progress bars; softmax is in float32.

    A context begins with bos if texts of the model do, also if it is cut on the left. Otherwise eos
    replaces an empty context. Text that looks like a special token is text (data/special.py).
    The model reads at most `batch_size` times context_tokens tokens at once. `truncated` holds the
    (context, continuation) pairs that were cut on the left. `encoded` holds the tokens of pairs
    that are tokenised already (module `requests`); other pairs are tokenised when scored.
    """

    batch_size_per_gpu: int

    def __init__(self, model, tokenizer, batch_size: int) -> None:
        self.special, self.reads = special_tokens(tokenizer), tokenizer
        super().__init__(
            pretrained=model,
            tokenizer=copy.deepcopy(tokenizer),  # HFLM sets a padding token
            batch_size=batch_size,
            max_length=context_limit(model.config),
            add_bos_token=False,
            prefix_token_id=self.special.first_id,
            softmax_dtype=torch.float32,
        )
        self.truncated: set[tuple[str, str]] = set()
        self.encoded: dict[tuple[str, str], Encoded] = {}
        self.contract = contract_of(model)
        self.each_by_itself = self.contract.why(TREE)
        if self.each_by_itself:
            log.warning(
                "Scoring every request without shared prefixes, which is slower: %s",
                self.each_by_itself,
            )

    def loglikelihood(self, requests, disable_tqdm: bool = True):
        pairs = [request.args for request in requests]
        new = list(dict.fromkeys(pair for pair in pairs if pair not in self.encoded))
        new_encoded = encode_pairs(new, self.reads, self.prefix_token_id)
        encoded = self.encoded | dict(zip(new, new_encoded, strict=True))
        return self._loglikelihood_tokens([(pair, *encoded[pair]) for pair in pairs])

    def _loglikelihood_tokens(
        self, requests, disable_tqdm: bool = True, override_bs: int | None = None
    ):
        for pair, context, continuation in requests:
            name = f"{pair[1][:60]!r}" if pair else "a piece of a text"
            if len(continuation) > self.max_length:
                raise ValueError(
                    f"a choice of {len(continuation)} tokens does not fit the model's "
                    f"context_tokens {self.max_length}: {name}; use a model with a longer context, "
                    "or another task"
                )
            if not len(context) or not len(continuation):
                raise ValueError(
                    f"{name} cannot be scored: it and the text before it need at least one token "
                    "each; correct the data of the task"
                )
            if len(context) + len(continuation) > self.max_length + 1:
                self.truncated.add(pair)
        if self.special.bos_id is not None:
            room = self.max_length + 1
            requests = [
                (pair, self.special.cut(context, room - len(continuation)), continuation)
                for pair, context, continuation in requests
            ]
        if self.each_by_itself:
            return self._bounded(requests)
        sequences = [
            np.concatenate(request[1:])[-(self.max_length + 1) : -1] for request in requests
        ]
        sums, likeliest = continuation_logprobs(
            self.model,
            sequences,
            [request[2] for request in requests],
            self.batch_size * self.max_length,
            self.contract.head,
        )
        answers = [
            (float(total), bool(greedy)) for total, greedy in zip(sums, likeliest, strict=True)
        ]
        for (pair, *_), answer in zip(requests, answers, strict=True):
            if pair is not None:
                self.cache_hook.add_partial("loglikelihood", pair, answer)
        return answers

    def tok_encode(
        self, string: str, add_special_tokens=None, left_truncate_len=None, **_
    ) -> list[int]:
        """Return the token ids of a text, without special tokens."""
        return next(encode([string], self.reads)).tolist()[-(left_truncate_len or 0) :]

    def tok_batch_encode(
        self, strings, padding_side="left", left_truncate_len=None, truncation=False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids (B, T) of prompts, each as the model reads it, and their mask."""
        rows = []
        for ids in encode(strings, self.reads):
            whole = self.special.begun(ids.tolist()) or [self.prefix_token_id]
            rows.append(self.special.cut(whole, left_truncate_len or len(whole)))
        width = max(map(len, rows))
        ids_BT = torch.full((len(rows), width), self.prefix_token_id)
        mask_BT = torch.zeros_like(ids_BT)
        for row, kept in enumerate(rows):
            where = slice(width - len(kept), None) if padding_side == "left" else slice(len(kept))
            ids_BT[row, where], mask_BT[row, where] = torch.tensor(kept), 1
        return ids_BT, mask_BT

    def _bounded(self, requests):
        """Score with HFLM, in batches whose logits fit LOGITS_BYTES; each batch is saved."""
        requests = [
            (pair, list(context), list(continuation)) for pair, context, continuation in requests
        ]
        lengths = (len(context) + len(continuation) - 1 for _, context, continuation in requests)
        longest = min(self.max_length, max(lengths, default=1))
        vocabulary = embedding_rows(self.model)
        asked = self.batch_size_per_gpu
        fits = min(asked, LOGITS_BYTES // (4 * longest * vocabulary))
        self.batch_size_per_gpu = max(1, fits if self.contract.allows(RAGGED) else 1)
        try:
            return self._in_batches(requests, _contexts(requests), self._scores_of_batch)
        finally:
            self.batch_size_per_gpu = asked

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = True):
        return super().loglikelihood_rolling(requests, disable_tqdm=True)

    def generate_until(self, requests, disable_tqdm: bool = True):
        for request in requests:
            context, options = request.args
            new = normalize_gen_kwargs(options, self.max_gen_toks)["max_gen_toks"]
            if new >= self.max_length:
                raise ValueError(
                    f"an answer of up to {new} tokens leaves no room for a question in the model's "
                    f"context_tokens {self.max_length}; use a model with a longer context, or a "
                    "task of your own (include_path) with a smaller max_gen_toks in "
                    "generation_kwargs"
                )
            if len(self.special.begun(self.tok_encode(context))) > self.max_length - new:
                self.truncated.add((context, ""))
        asked = self.batch_size_per_gpu
        self.batch_size_per_gpu = asked if self.contract.allows(GENERATE) else 1
        try:
            numbered = [(index, *request.args) for index, request in enumerate(requests)]
            batches = Collator(
                numbered,
                sort_fn=lambda row: (-len(self.tok_encode(row[1])), row[1]),
                group_by="gen_kwargs",
                group_fn=lambda row: row[2],
            )
            return self._in_batches(
                requests,
                lambda size: ([row[0] for row in batch] for batch in batches.get_batched(n=size)),
                self._texts_of_batch,
            )
        finally:
            self.batch_size_per_gpu = asked

    def _in_batches(self, requests: list, batches: Callable, compute: Callable) -> list:
        """Return `compute` of all requests, batch by batch as HFLM forms them.

        `batches(size)` yields the indices of a batch. Finished batches are not computed again after
        an interruption.
        """
        if not resume.active():
            return compute(requests)
        answers: list = [None] * len(requests)
        for indices in batches(self.batch_size):
            chosen = [requests[index] for index in sorted(indices)]
            for index, answer in zip(sorted(indices), compute(chosen), strict=True):
                answers[index] = answer
        return answers

    def _scores_of_batch(self, requests: list) -> list[tuple[float, bool]]:
        def scores() -> dict[str, np.ndarray]:
            found = HFLM._loglikelihood_tokens(self, requests, disable_tqdm=True)
            totals, greedy = zip(*found, strict=True) if found else ((), ())
            return {"totals": np.array(totals, float), "greedy": np.array(greedy, bool)}

        inputs = [np.asarray(ids) for _, *pair in requests for ids in pair]
        found = resume.once(self.model, "scores", inputs, scores)
        return list(zip(found["totals"].tolist(), found["greedy"].tolist(), strict=True))

    def _texts_of_batch(self, requests: list) -> list[str]:
        def texts() -> dict[str, np.ndarray]:
            found = HFLM.generate_until(self, requests, disable_tqdm=True)
            text = np.frombuffer(json.dumps(found).encode(), dtype=np.uint8)
            return {"json": text} | _random_state()

        inputs = [[request.args for request in requests], *_random_state().values()]
        found = resume.once(self.model, "texts", inputs, texts)
        _set_random_state(found)
        return json.loads(found["json"].tobytes())

    @cached_property
    def never(self) -> list[int] | None:
        """The ids that no generated answer may hold (`limits.ids_without_token`)."""
        ids = ids_without_token(self.model, self.tokenizer)
        return None if ids is None else ids.tolist()

    def _model_generate(self, *inputs, **settings):
        return super()._model_generate(*inputs, **settings, suppress_tokens=self.never)


def _contexts(requests: list) -> Callable[[int], Iterator[list[int]]]:
    """Return a function that yields the indices of HFLM's batches of `size` contexts.

    HFLM reads a context once for all continuations that differ in their last token alone.
    """
    alike: dict[tuple, list[int]] = {}
    for index, (_, context, continuation) in enumerate(requests):
        alike.setdefault((*context, *continuation[:-1]), []).append(index)
    numbered = [(index, *request[1:]) for index, request in enumerate(requests)]
    contexts = Collator(
        numbered,
        sort_fn=lambda row: (-len(row[1] + row[2]), tuple(row[1] + row[2])),
        group_by="contexts",
        group_fn=lambda row: row[1] + row[2][:-1],
    )

    def batches(size: int) -> Iterator[list[int]]:
        for batch in contexts.get_batched(n=size):
            yield [index for _, c, ending in batch for index in alike[(*c, *ending[:-1])]]

    return batches


def _random_state() -> dict[str, np.ndarray]:
    """Return the state of torch's generators, from which a task may sample its answers."""
    states = {"random": torch.get_rng_state().numpy()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["random_cuda"] = torch.cuda.get_rng_state().numpy()
    return states


def _set_random_state(states: dict[str, np.ndarray]) -> None:
    torch.set_rng_state(torch.from_numpy(states["random"]))
    if "random_cuda" in states:
        torch.cuda.set_rng_state(torch.from_numpy(states["random_cuda"]))


def encode_pairs(pairs: list[tuple[str, str]], tokenizer, prefix_id: int) -> list[Encoded]:
    """Return the token ids of (context, continuation) pairs, split as HFLM splits them.

    Trailing spaces of a context move to the continuation. Both are tokenised together and split
    after the length of the context alone. A context begins with bos, if texts of the model do. An
    empty context becomes `prefix_id`. Each text is tokenised once.
    """
    special = special_tokens(tokenizer)
    moved = []
    for context, continuation in pairs:
        kept = context.rstrip() if context else context
        moved.append((kept, context[len(kept) :] + continuation))
    both = (text for context, ending in moved for text in (context, context + ending))
    texts = list(dict.fromkeys(both))
    tokens = {text: ids.tolist() for text, ids in zip(texts, encode(texts, tokenizer), strict=True)}
    encoded = []
    for (original, _), (context, ending) in zip(pairs, moved, strict=True):
        whole, before = tokens[context + ending], tokens[context]
        if original == "":
            before = whole[:1] if whole[:1] == [prefix_id] else [prefix_id]
            encoded.append((before, whole[whole[:1] == [prefix_id] :]))
        else:
            encoded.append((special.begun(before), whole[len(before) :]))
    return encoded
