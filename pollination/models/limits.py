"""What a model can read and write: its positions, the rows of its embedding, ids without a token.

A vocabulary has three sizes. The tokenizer's number of tokens can be below its largest id plus one,
if ids have gaps. That can be below the rows of the embedding, if these are padded to a round number
(Qwen 2.5: 151,665 tokens, 151,936 rows).
"""

import torch
from transformers import PreTrainedConfig, PreTrainedModel

# in the order of search; MPT and Whisper have names of their own
POSITIONS = ("max_position_embeddings", "max_seq_len", "max_target_positions")


def context_limit(config: PreTrainedConfig) -> int | None:
    """Return the number of tokens that a model can read, or None if it has no limit.

    Models of text and images state it in a configuration of their text model.
    """
    for part in (config, config.get_text_config(decoder=True)):
        for name in POSITIONS:
            limit = getattr(part, name, None)
            if isinstance(limit, int) and limit > 0:  # XLNet has -1
                return limit
    return None


def embedding_rows(model: PreTrainedModel) -> int:
    """Return the number of rows of a model's embedding: it reads the ids below this number."""
    return model.get_input_embeddings().num_embeddings


def logit_rows(model: PreTrainedModel) -> int:
    """Return the number of a model's logits: it writes the ids below this number."""
    head = model.get_output_embeddings()
    return embedding_rows(model) if head is None else head.weight.shape[0]


def fits(tokenizer, rows: int) -> bool:
    """Return whether a model with `rows` embeddings can read what a tokenizer writes.

    Special tokens may lie beyond the rows, as Gemma 3's token for images, because text has none.
    """
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    special -= {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id}
    return all(index < rows or index in special for index in tokenizer.get_vocab().values())


def ids_without_token(model: PreTrainedModel, tokenizer) -> torch.Tensor | None:
    """Return the ids (int64, on the model's device) that a model can write but that are no token.

    None if there are none. Text must never hold them: they have no text, and no tokenizer reads
    them.
    """
    rows = logit_rows(model)
    without = torch.ones(rows, dtype=torch.bool)
    ids = torch.tensor(list(tokenizer.get_vocab().values()), dtype=torch.long)
    without[ids[ids < rows]] = False
    return without.nonzero().squeeze(1).to(model.device) if without.any() else None
