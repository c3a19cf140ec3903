"""Decide the special tokens of texts, once for packing, prompts, scoring and shards.

- Text is text: `encoding.encode` reads "<s>" or "<eos>" in a text as characters, never as a token.
- Beginning of text (bos): `models.*.bos`. `decide_bos` resolves it when a model is prepared, and
  tokenizer_config.json keeps the result, which goes into the folder of each member. A file without
  it means that texts have no such token.
- End of text (eos): the tokenizer's eos token. The model must know it as an end (`end_ids`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

BOS_KEY = "pollination_bos"  # in tokenizer_config.json
PROBES = ("The cat sat on the mat.", "a b c", "0 1 2", "")


@dataclass(frozen=True)
class SpecialTokens:
    """The ids of the tokens that begin (None: no token) and end a text."""

    bos_id: int | None
    eos_id: int

    @property
    def first_id(self) -> int:
        """The token that a model reads before a text that it scores: bos, or else eos."""
        return self.eos_id if self.bos_id is None else self.bos_id

    def begun(self, ids: Sequence[int]) -> list[int]:
        """Return token ids that begin with bos, if texts begin with one."""
        if self.bos_id is None or (len(ids) and ids[0] == self.bos_id):
            return list(ids)
        return [self.bos_id, *ids]

    def cut(self, ids: Sequence[int], most: int) -> Sequence[int]:
        """Cut a prompt on the left to `most` tokens. A bos at its beginning stays."""
        if len(ids) <= most:
            return ids
        if self.bos_id is None or ids[0] != self.bos_id:
            return ids[len(ids) - most :]
        return [self.bos_id, *ids[len(ids) - most + 1 :]]

    def document(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return a text as a model reads it to score it: (first, text, eos), int64."""
        return np.concatenate([[self.first_id], np.asarray(ids, dtype=np.int64), [self.eos_id]])

    def blocks(self, ids_BT: np.ndarray) -> np.ndarray:
        """Return blocks of packed text as a model reads them to score them.

        A block may begin inside a text. Its first token is never scored, so bos takes its place.
        """
        if self.bos_id is not None:
            ids_BT = ids_BT.copy()
            ids_BT[:, 0] = self.bos_id
        return ids_BT

    def scored(self, ids: np.ndarray) -> np.ndarray:
        """Return for each token but the first whether it is scored: all tokens except bos.

        If bos and eos are one token, it counts as bos after eos.
        """
        if self.bos_id is None:
            return np.ones(len(ids) - 1, dtype=bool)
        is_bos = ids[1:] == self.bos_id
        return ~(is_bos & (ids[:-1] == self.eos_id) if self.bos_id == self.eos_id else is_bos)

    def text(self, ids: Sequence[int]) -> list[int]:
        """Return token ids without those of bos. If it is also eos, only the first goes."""
        if self.bos_id is None:
            return list(ids)
        if self.bos_id == self.eos_id:
            return list(ids[1:] if len(ids) and ids[0] == self.bos_id else ids)
        return [token for token in ids if token != self.bos_id]


def special_tokens(tokenizer) -> SpecialTokens:
    """Return the special tokens of a prepared model's or member's tokenizer."""
    bos = tokenizer.init_kwargs.get(BOS_KEY)
    bos_id = None if bos is None else tokenizer.convert_tokens_to_ids(bos)
    return SpecialTokens(bos_id, tokenizer.eos_token_id)


def decide_bos(choice: str, tokenizer, key: str) -> None:
    """Store in a tokenizer which token begins a text. `choice` is the value of `key`.

    `auto` takes the token of an earlier decision, else the one that the tokenizer adds by itself.
    ValueError: the vocabulary has no such token, or the tokenizer adds more than one token before
    a text, or after it another token than eos.
    """
    if choice == "auto":
        choice = tokenizer.init_kwargs.get(BOS_KEY) or _added_before(tokenizer, key)
    if choice != "none" and choice not in tokenizer.get_vocab():
        raise ValueError(
            f"{key}: {choice!r} is not a token of the vocabulary; allowed: auto, none, or a token, "
            f"e.g. {tokenizer.bos_token or tokenizer.eos_token!r}. Correct it"
        )
    if choice == "none":
        tokenizer.init_kwargs.pop(BOS_KEY, None)
    else:
        tokenizer.init_kwargs[BOS_KEY] = choice


def _added_before(tokenizer, key: str) -> str:
    """Return the token that a tokenizer puts before a text by itself, or "none"."""
    found: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    for text in PROBES:
        bare = tokenizer(text, add_special_tokens=False)["input_ids"]
        whole = tokenizer(text, add_special_tokens=True)["input_ids"]
        extra = len(whole) - len(bare)
        places = [n for n in range(extra + 1) if whole[n : n + len(bare)] == bare]
        if bare and places:
            found.add((tuple(whole[: places[0]]), tuple(whole[places[0] + len(bare) :])))
        elif bare:
            found.add((tuple(whole), ()))  # it changes the text itself
    before, after = found.pop() if len(found) == 1 else ((-1, -1), ())
    if len(before) > 1 or after not in ((), (tokenizer.eos_token_id,)):
        names = [
            tokenizer.convert_ids_to_tokens([n for n in ids if n >= 0]) for ids in (before, after)
        ]
        raise ValueError(
            f"{key}: the tokenizer adds {' '.join(names[0]) or 'varying tokens'} before and "
            f"{' '.join(names[1]) or 'nothing'} after a text by itself; allowed: one token before "
            "it, and eos after it (`separator`). Set the key to none or to one token"
        )
    return tokenizer.convert_ids_to_tokens(before[0]) if before else "none"


def end_ids(model: PreTrainedModel, eos_id: int) -> list[int]:
    """Return the ids at which a model's text ends: `eos_id`, then the others of its config.

    Instruction-tuned models have several. A completion ends at the first of any of them.
    """
    listed = listed_ids(model.config.eos_token_id)
    return [eos_id, *(token for token in listed if token != eos_id and eos_id in listed)]


def listed_ids(value: int | Iterable[int] | None) -> list[int]:
    """Return the ids of an `eos_token_id`: none, one or several."""
    if value is None:
        return []
    return [value] if isinstance(value, int) else list(value)
