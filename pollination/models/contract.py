"""Find out how a model can be decoded, scored and trained. No architecture is known by name.

The reference is a row alone: its whole text in one forward pass, without cache, padding or other
rows. On a small random copy (`small_copy`), each faster path is compared with it: rows of different
lengths, rows that leave, beams that change places. A path whose logits differ is not used. A model
without a sound reference is refused.

A model's configuration carries the result (`contract`), so that each job finds it in the model's
folder. It holds for one version of transformers.
"""

import functools
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from pollination.models.attention import CAUSAL, attention
from pollination.models.decoder import Decoder, InPlaceDecoder
from pollination.models.head import Head
from pollination.models.limits import embedding_rows
from pollination.models.loss import Loss, chunked_loss, unmasked, whole_loss
from pollination.models.precision import cast
from pollination.models.prefix_tree import continuation_logprobs
from pollination.models.shared_prompt import SharedPromptDecoder
from pollination.models.slow_decoder import ByLength, UncachedByLength
from pollination.models.small_copy import WINDOW, small_copy
from pollination.models.static_beams import StaticBeams
from pollination.models.static_decoder import StaticDecoder

log = logging.getLogger("pollination")

CHECKS = 2  # the version of this module's checks; a contract of another version is not believed
# fastest first; the last is exact for every model that is not refused
DECODERS: dict[str, type[Decoder] | type[ByLength]] = {
    "keys and values in place": InPlaceDecoder,
    "transformers' cache": Decoder,
    "no padding": ByLength,
    "no cache": UncachedByLength,
}
SHARED, STATIC = "beams that share a prompt", "steps of fixed shapes"
STATIC_BEAMS = "beams of fixed shapes"
TREE, CHUNKED = "shared prefixes", "loss in chunks"
RAGGED, GENERATE = "rows of different lengths", "transformers' generation"
# largest difference of logits, in standard deviations over the vocabulary
TOLERANCE = 2e-3
# root mean square of the differences in bf16, in the same unit; architectures have 0.007 to 0.1
BF16_TOLERANCE = 0.15
LENGTHS = (2, WINDOW - 1, 2 * WINDOW + 1, WINDOW + 2)
Check = Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]]
ABOUT_LOGITS = ("logit", "lm_head_multiplier")  # parts of the names of constants behind the head


class Unsupported(ValueError):
    """No path of this package gives the logits of a model."""


@dataclass(frozen=True)
class Contract:
    """The paths that give a model's logits.

    `slower` has the reason of each path that does not. `head` is None if logits are no function of
    the last hidden states that this package knows.
    """

    transformers: str
    slower: dict[str, str] = field(default_factory=dict)
    head: Head | None = None
    checks: int = CHECKS

    def allows(self, path: str) -> bool:
        return path not in self.slower

    def why(self, *paths: str) -> str | None:
        """Return the reason of the first of these paths that is not used, or None."""
        return next((f"{path}: {self.slower[path]}" for path in paths if path in self.slower), None)


# of this process, by configuration
_examined: dict[str, Contract] = {}
_masked: dict[str, str | None] = {}
_rounded: dict[str, str | None] = {}


def contract_of(model: PreTrainedModel) -> Contract:
    """Return a model's contract, from its configuration or by examination.

    Unsupported as in `examine`.
    """
    return _stored(getattr(model.config, "contract", None)) or examine(model.config)


def _stored(value: object) -> Contract | None:
    """Return the contract that a configuration holds, or None if it is of another version."""
    try:
        found = Contract(**value)  # type: ignore[arg-type]
        head = found.head and Head(**found.head)  # type: ignore[arg-type]
        sound = (
            (found.transformers, found.checks) == (transformers.__version__, CHECKS)
            and isinstance(found.slower, dict)
            and list(DECODERS)[-1] not in found.slower
            and (not head or (head.scale > 0 and (head.cap is None or head.cap > 0)))
        )
    except TypeError:  # it is none
        return None
    return replace(found, head=head) if sound else None


def settle(config: AutoConfig, name: str) -> Contract:
    """Examine a configuration, write the contract into it and log what is slower. Return it.

    Unsupported as in `examine`; its message begins with `name`.
    """
    try:
        contract = examine(config)
    except Unsupported as error:
        raise Unsupported(f"{name}: {error}") from None
    config.contract = asdict(contract)
    for path, reason in contract.slower.items():
        log.info("%s: architecture %r without %s: %s", name, config.model_type, path, reason)
    return contract


def examine(config: AutoConfig) -> Contract:
    """Compare all paths on a small random copy.

    Unsupported: the architecture has no sound reference.
    """
    key = _key(config)
    if key not in _examined:
        with _examining():
            _examined[key] = _examine(config)
    return _examined[key]


def why_masked(config: AutoConfig) -> str | None:
    """Return why causal attention without a mask gives other gradients; None if they are equal.

    Only a job that compiles its training asks. So models of finished jobs keep their contracts.
    """
    key = _key(config)
    if key not in _masked:
        with _examining():
            try:
                model = small_copy(config)
                with attention(model, CAUSAL):
                    if model.config._attn_implementation != CAUSAL:
                        raise ValueError("its attention cannot be replaced")
                check = functools.partial(
                    Reference(model).trained, unmasked(model, whole_loss(model))
                )
                _masked[key] = _unequal(check)
            except Exception as error:
                _masked[key] = _line(error)
    return _masked[key]


def why_not_bf16(config: AutoConfig) -> str | None:
    """Return why a path of the contract gives other logits in bf16; None if none does.

    The reference has the same rounded weights and computes in fp32. In a mixture of experts, bf16
    may send a token to another expert, which is such a difference. Only a job that writes or scores
    in bf16 asks. So models of finished jobs keep their contracts.
    Unsupported as in `examine`.
    """
    key = _key(config)
    if key not in _rounded:
        contract = _stored(getattr(config, "contract", None)) or examine(config)
        with _examining():
            try:
                rounded = cast(small_copy(config), torch.bfloat16)
                reference = Reference(cast(rounded, torch.float32), rounded)
                checks = _path_checks(reference, contract.head)
                reasons = (
                    reason and f"{path}: {reason}"
                    for path, check in checks.items()
                    if contract.allows(path)
                    for reason in [_unequal(check, _spread_difference, BF16_TOLERANCE)]
                )
                _rounded[key] = next(filter(None, reasons), None)
            except Exception as error:
                _rounded[key] = _line(error)
    return _rounded[key]


def _key(config: AutoConfig) -> str:
    values = {name: value for name, value in config.to_dict().items() if name != "contract"}
    return json.dumps(values, sort_keys=True, default=str)


@contextmanager
def _examining() -> Iterator[None]:
    before = logging.getLogger("transformers").level
    logging.getLogger("transformers").setLevel(logging.ERROR)  # a failing path is no news
    # a caller may be in inference mode, where nothing can be differentiated
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(0)
        try:
            yield
        finally:
            logging.getLogger("transformers").setLevel(before)


def _unequal(check: Check, difference=None, tolerance: float = TOLERANCE) -> str | None:
    """Return why a path does not give the pairs' second numbers, or None."""
    try:
        different = max(float((difference or _difference)(*pair)) for pair in check())
        return None if different <= tolerance else "its logits differ"
    except Exception as error:
        return _line(error)


def _examine(config: AutoConfig) -> Contract:
    try:
        model = small_copy(config)
        reference = Reference(model)
        reference.check()
    except Unsupported:
        raise
    except Exception as error:
        raise Unsupported(
            f"architecture {config.model_type!r} with these settings does not run "
            f"({_line(error)}). Correct models.*.settings, or name another architecture"
        ) from None
    head = _head(model)
    checks = _path_checks(reference, head)
    checks[CHUNKED] = functools.partial(reference.trained_in_chunks, head)
    reasons = {path: _unequal(check) for path, check in checks.items()}
    slower = {path: reason for path, reason in reasons.items() if reason}
    if (last := list(DECODERS)[-1]) in slower:
        raise Unsupported(_refusal(config, f"decoding row by row: {slower[last]}"))
    return Contract(transformers.__version__, slower, head)


def _path_checks(reference: "Reference", head: Head | None) -> dict[str, Check]:
    """Return the checks of the paths that write and score."""
    checks: dict[str, Check] = {
        name: functools.partial(reference.decoded, kind) for name, kind in DECODERS.items()
    }
    checks[SHARED] = functools.partial(reference.decoded, SharedPromptDecoder, rows=False)
    checks[STATIC] = functools.partial(reference.decoded, StaticDecoder, beams=False)
    checks[STATIC_BEAMS] = functools.partial(reference.decoded, StaticBeams, rows=False)
    checks[GENERATE] = functools.partial(reference.decoded, Decoder, beams=False)
    checks[RAGGED] = reference.padded
    checks[TREE] = functools.partial(reference.scored, head)
    return checks


def _refusal(config: AutoConfig, reason: str) -> str:
    return (
        f"architecture {config.model_type!r} cannot be used as a causal language model ({reason}). "
        "Name a model of another architecture"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Return the largest difference of rows (..., V), in standard deviations of `theirs`."""
    spread = theirs.flatten(0, -2).std(-1).mean()
    return (ours - theirs).abs().max() / spread


def _spread_difference(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Return the root mean square of the differences, in the unit of `_difference`."""
    spread = theirs.flatten(0, -2).std(-1).mean()
    return (ours - theirs).square().mean().sqrt() / spread


class Reference:
    """The logits of rows alone, and what the paths of this package make of the same rows.

    `tried` is the model that takes these paths, if it is not `model` itself.
    """

    def __init__(self, model: PreTrainedModel, tried: PreTrainedModel | None = None) -> None:
        self.model, self.tried = model, tried or model
        self.rows = embedding_rows(model)
        self.numbers = np.random.default_rng(0)
        self.known: dict[tuple[int, ...], torch.Tensor] = {}  # next-token logits (V,) after a text
        self.by_prefix = True  # the logits of a text's beginning are those of the beginning alone

    def text(self, tokens: int) -> list[int]:
        return self.numbers.integers(0, self.rows, tokens).tolist()

    @torch.no_grad()
    def logits(self, *texts: list[int], of: PreTrainedModel | None = None) -> torch.Tensor:
        """Return the logits (B, T, V) of texts of equal length."""
        model = of or self.model
        return model(input_ids=torch.tensor(texts), use_cache=False).logits.float()

    def next(self, text: tuple[int, ...]) -> torch.Tensor:
        """Return the logits (V,) of the token after a text."""
        if text not in self.known:
            logits_TV = self.logits(list(text))[0]
            first = 1 if self.by_prefix else len(text)
            for length in range(first, len(text) + 1):
                self.known[text[:length]] = logits_TV[length - 1]
        return self.known[text]

    def check(self) -> None:
        """Unsupported: rows depend on chance, on later tokens or on other rows."""
        texts = [self.text(LENGTHS[2] + 5) for _ in range(3)]
        whole = [self.logits(text)[0] for text in texts]
        shape = (len(texts[0]), self.rows)
        problem = None
        if any(logits.ndim != 2 or len(logits) != shape[0] for logits in whole):
            problem = f"its logits have the shape {tuple(whole[0].shape)} instead of {shape}"
        elif not all(logits.isfinite().all() for logits in whole):
            problem = "its logits are not finite"
        elif min(float(logits.std(0).mean()) for logits in whole) < 1e-6:
            problem = "its logits do not depend on the text"
        elif _difference(self.logits(texts[0])[0], whole[0]) > TOLERANCE:
            problem = "two equal passes differ"
        elif any(
            _difference(self.logits(texts[0][:n] + texts[1][n:])[0, :n], whole[0][:n]) > TOLERANCE
            for n in LENGTHS
        ):
            problem = "logits depend on later tokens"
        elif _difference(self.logits(*texts), torch.stack(whole)) > TOLERANCE:
            problem = "the rows of a batch change each other"
        if problem:
            raise Unsupported(_refusal(self.model.config, problem))
        self.by_prefix = all(
            _difference(self.logits(texts[0][:n])[0], whole[0][:n]) <= TOLERANCE for n in LENGTHS
        )
        loss = whole_loss(self.model)(torch.tensor(texts))
        loss.backward()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.model.zero_grad(set_to_none=True)
        if not gradients or not all(gradient.isfinite().all() for gradient in gradients):
            raise Unsupported(_refusal(self.model.config, "its gradients are not finite"))

    @torch.no_grad()
    def decoded(self, kind: type[Decoder] | type[ByLength], rows: bool = True, beams: bool = True):
        """Return (logits, reference) of decoding: rows of different and of equal lengths.

        Rows leave and change their order, or beams change places and prompts leave.
        """
        self.numbers = np.random.default_rng(1)  # equal texts for each kind
        found: list[tuple[torch.Tensor, list[tuple[int, ...]]]] = []
        for lengths in (LENGTHS, (LENGTHS[1],) * 3):
            texts = [self.text(length) for length in lengths]
            if rows:
                found += self._rows(kind(self.tried, texts, 12), texts)
            if beams:
                found += self._beams(kind(self.tried, texts, 8), texts)
        for text in sorted({text for _, texts in found for text in texts}, key=len, reverse=True):
            self.next(text)
        return [(logits, torch.stack([self.next(t) for t in texts])) for logits, texts in found]

    def _rows(self, decoder, texts: list[list[int]]):
        yield decoder.read(), [tuple(text) for text in texts]
        for step in range(10):
            if step == 4:
                texts = [texts[2], texts[0]]
                decoder.select(torch.tensor([2, 0]))
            texts, new = self._longer(texts)
            yield decoder.step(new), [tuple(text) for text in texts]

    def _beams(self, decoder, texts: list[list[int]], beams: int = 3):
        yield decoder.read(), [tuple(text) for text in texts]
        decoder.spread(beams)
        texts = [text for text in texts for _ in range(beams)]
        for step in range(6):
            if places := {2: (2, 0, 0), 4: (1, 2, 1)}.get(step):
                prompts = range(len(texts) // beams)
                rows = [prompt * beams + place for prompt in prompts for place in places]
                decoder.swap(torch.tensor(rows))
                texts = [texts[row] for row in rows]
            if step == 3:
                decoder.select_prompts(torch.tensor([0, 2]))
                texts = texts[:beams] + texts[2 * beams : 3 * beams]
            texts, new = self._longer(texts)
            yield decoder.step(new), [tuple(text) for text in texts]

    def _longer(self, texts: list[list[int]]) -> tuple[list[list[int]], torch.Tensor]:
        new = self.text(len(texts))
        longer = [[*text, token] for text, token in zip(texts, new, strict=True)]
        return longer, torch.tensor(new)

    @torch.no_grad()
    def padded(self):
        """Yield (logits, reference) of rows padded on the right."""
        texts = [self.text(length) for length in LENGTHS]
        longest = max(map(len, texts))
        padded = (text + [0] * (longest - len(text)) for text in texts)
        logits_BTV = self.logits(*padded, of=self.tried)
        for text, logits_TV in zip(texts, logits_BTV, strict=True):
            yield logits_TV[: len(text)], self.logits(text)[0]

    @torch.no_grad()
    def scored(self, head: Head | None):
        """Yield (log-probabilities, reference) of continuations that share prefixes."""
        if head is None:
            raise ValueError("its logits are no known function of its last hidden states")
        trunk = self.text(LENGTHS[2])
        texts = [trunk[:n] + self.text(m) for n in (0, 3, WINDOW + 3, len(trunk)) for m in (2, 5)]
        targets = [self.text(2) for _ in texts]
        whole = [(text + target)[:-1] for text, target in zip(texts, targets, strict=True)]
        theirs = [
            float(
                self.logits(ids)[0, -2:]
                .log_softmax(-1)
                .gather(1, torch.tensor(target)[:, None])
                .sum()
            )
            for ids, target in zip(whole, targets, strict=True)
        ]
        for batch_tokens in (7, 1000):
            ours, _ = continuation_logprobs(
                self.tried,
                [np.array(ids) for ids in whole],
                [np.array(t) for t in targets],
                batch_tokens,
                head,
            )
            yield torch.tensor(ours)[None], torch.tensor(theirs, dtype=torch.float64)[None]

    def trained_in_chunks(self, head: Head | None):
        """Return (loss and gradients, reference) of the loss in chunks."""
        if head is None:
            raise ValueError("its logits are no known function of its last hidden states")
        return self.trained(chunked_loss(self.model, head))

    def trained(self, ours: Loss):
        """Yield (loss and gradients, reference) of another way to compute the loss."""
        tokens_BT = torch.tensor([self.text(LENGTHS[2]) for _ in range(2)])
        found = []
        for loss in (ours, whole_loss(self.model)):
            value = loss(tokens_BT)
            value.backward()
            found.append(
                [value.detach()[None, None]]
                + [
                    p.grad.clone() if p.grad is not None else torch.zeros_like(p)
                    for p in self.model.parameters()
                ]
            )
            self.model.zero_grad(set_to_none=True)
        scale = max(float(gradient.abs().max()) for gradient in found[1][1:])
        yield found[0][0] + torch.tensor([[0.0, 1.0]]), found[1][0] + torch.tensor([[0.0, 1.0]])
        for ours, theirs in zip(found[0][1:], found[1][1:], strict=True):
            difference = (ours - theirs).abs().max() / scale
            yield difference + torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]])


@torch.no_grad()
def _head(model: PreTrainedModel) -> Head | None:
    """Return the function from last hidden states to logits, or None if there is none of its kind.

    Its constants are those of the configuration that make it right.
    """
    text = model.config.get_text_config()
    named = [
        float(value)
        for name, value in vars(text).items()
        if any(part in name for part in ABOUT_LOGITS) and type(value) in (int, float) and value > 0
    ]
    tokens_BT = torch.randint(0, embedding_rows(model), (2, WINDOW))
    try:
        hidden_BTC = model.base_model(input_ids=tokens_BT, use_cache=False).last_hidden_state
        logits_BTV = model(input_ids=tokens_BT, use_cache=False).logits
        scales = [1.0, *(scale for value in named for scale in (value, 1 / value))]
        for cap in (None, *named):
            for scale in scales:
                head = Head(scale, cap)
                if _difference(head.logits(model, hidden_BTC), logits_BTV) <= 1e-4:
                    return head
    except Exception:
        return None
    return None
