"""Decode with models that a padded batch or a cache would change.

Both decoders have the methods of `Decoder`. Shapes: B rows of the batch, V vocabulary.
"""

import torch
from transformers import PreTrainedModel

from pollination.models.decoder import Decoder, Rows


class UncachedDecoder(Decoder):
    """A Decoder that reads each row from its beginning at every step."""

    def new_cache(self) -> None:
        return None

    def _forward(self, tokens_BT: torch.Tensor, start: int) -> torch.Tensor:
        logits = self.model(input_ids=self.tokens_BT, use_cache=False, **self.last_only).logits
        return logits[:, -1].float()

    def select_cache(self, rows: torch.Tensor) -> None:
        pass

    def swap(self, rows: torch.Tensor) -> None:
        Rows.swap(self, rows)


class ByLength(Rows):
    """One decoder for the rows of each prompt length, so that no row is padded."""

    kind: type[Decoder] = Decoder

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], new_tokens: int) -> None:
        super().__init__(model, prompts, new_tokens)
        lengths = [len(prompt) for prompt in prompts]
        self.parts: list[tuple[torch.Tensor, Decoder]] = []  # rows of the batch, their decoder
        for length in sorted(set(lengths)):
            rows = [row for row, tokens in enumerate(lengths) if tokens == length]
            decoder = self.kind(model, [prompts[row] for row in rows], new_tokens)
            self.parts.append((torch.tensor(rows, device=model.device), decoder))

    def _join(self, logits_of_parts: list[torch.Tensor]) -> torch.Tensor:
        rows_B = torch.cat([rows for rows, _ in self.parts])
        return torch.cat(logits_of_parts)[rows_B.argsort()]

    def read(self) -> torch.Tensor:
        """Read the prompts. Return the logits (B, V) of the first new token."""
        return self._join([decoder.read() for _, decoder in self.parts])

    def step(self, tokens_B: torch.Tensor) -> torch.Tensor:
        """Append tokens (B,), one to each row. Return the logits (B, V) of the next token."""
        self.tokens_BT = torch.cat([self.tokens_BT, tokens_B[:, None]], 1)
        return self._join([decoder.step(tokens_B[rows]) for rows, decoder in self.parts])

    def select(self, rows: torch.Tensor) -> None:
        kept = []
        for own, decoder in self.parts:
            places_B = torch.full((len(self.tokens_BT),), -1, device=rows.device)
            places_B[own] = torch.arange(len(own), device=rows.device)
            local = places_B[rows]
            mine = (local >= 0).nonzero().squeeze(1)
            if len(mine):
                decoder.select(local[mine])
                kept.append((mine, decoder))
        self.parts = kept
        super().select(rows)

    def swap(self, rows: torch.Tensor) -> None:
        super().swap(rows)
        for own, decoder in self.parts:
            places_B = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
            places_B[own] = torch.arange(len(own), device=rows.device)
            decoder.swap(places_B[rows[own]])


class UncachedByLength(ByLength):
    """A ByLength without caches."""

    kind = UncachedDecoder
