"""Embed the samples of members with a mean-pooled encoder, or with TF-IDF (no download).

Shapes: N texts, B texts in a batch, T tokens, D dimensions.
"""

import shutil
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from pollination.core import artifacts, causes, resume
from pollination.core.job import Job
from pollination.data.tokens import FILES
from pollination.data.words import tokenize
from pollination.models import checkpoint
from pollination.models.device import prepare
from pollination.models.limits import context_limit
from pollination.models.weights import (
    check_source,
    differences,
    index_of,
    open_tensors,
    weight_files,
)

FEATURES = 4096  # number of most frequent words, for TF-IDF
KEY = "evaluate.semantics.encoder"


def stage_encoder(source: str, revision: str | None, folder: Path) -> None:
    """Write an encoder's model.safetensors, config.json and tokenizer into `folder`.

    `source` is a folder or a name on the hub. ValueError, in one line: the encoder does not exist,
    lacks safetensors, a fast tokenizer or weights, needs its own code, or is not encoder-only.
    """
    path = Path(source).expanduser()
    if not path.is_dir() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise ValueError(
            f"{KEY}: {source!r}: there is no such folder; allowed: a folder, a model on the hub "
            "(owner/name), or tfidf"
        )
    known = {"revision": revision, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(str(path) if path.is_dir() else source, **known)
        _check_kind(source, config)
        try:
            check_source(source, config, KEY, revision)
        except ValueError as error:
            raise _WrongKind(str(error)) from None
        tokenizer = AutoTokenizer.from_pretrained(
            str(path) if path.is_dir() else source, use_fast=True, **known
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, about = AutoModel.from_pretrained(
                str(path) if path.is_dir() else source,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **known,
            )
        with ExitStack() as stack:
            index = index_of(source, KEY, revision)
            tensors = open_tensors(weight_files(source, index, revision), stack)
            wrong = next(differences(model, tensors, set()), None)
    except _WrongKind:
        raise
    except Exception as error:  # the loaders raise exceptions of many libraries
        reason = " ".join(str(error).split())
        remedy = causes.remedy(error, "Allowed: an encoder with safetensors, or tfidf")
        raise ValueError(f"{KEY}: {source!r} cannot be loaded ({reason}). {remedy}") from error
    if wrong:
        raise ValueError(f"{KEY}: {source!r}: {wrong}; choose another encoder, or tfidf")
    # The embeddings do not use a pooler.
    missing = [name for name in about["missing_keys"] if "pooler" not in name]
    if missing:
        raise ValueError(
            f"{KEY}: {source!r} lacks weights of its encoder, e.g. {sorted(missing)[0]!r}; choose "
            "another encoder, or tfidf"
        )
    if not getattr(tokenizer, "is_fast", False) or tokenizer.pad_token_id is None:
        raise ValueError(
            f"{KEY}: {source!r} has no fast tokenizer with a padding token; choose another "
            "encoder, or tfidf"
        )
    checkpoint.save_model(model, folder)
    with tempfile.TemporaryDirectory(prefix=".tokenizer.", dir=folder) as temporary:
        tokenizer.save_pretrained(temporary)
        for name in FILES:
            with artifacts.atomic(folder / name) as target:
                shutil.move(Path(temporary) / name, target)


class _WrongKind(ValueError):
    """The model is not an encoder-only text model, or not whole."""


def _check_kind(source: str, config) -> None:
    kind = getattr(config, "model_type", None)
    if (
        kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
        or config.is_encoder_decoder
        or getattr(config, "is_decoder", False)
    ):
        raise _WrongKind(
            f"{KEY}: {source!r} ({kind}) is not an encoder-only model; allowed: roberta, bert, "
            "mpnet, ..., or tfidf"
        )


def longest(model, tokenizer, wanted: int) -> int:
    """Return the maximum number of tokens per text: `wanted`, or fewer if the model allows fewer.

    RoBERTa's positions begin after the padding id.
    """
    positions = context_limit(model.config) or wanted
    padding_id = getattr(getattr(model, "embeddings", None), "padding_idx", None)
    usable = positions if padding_id is None else positions - (padding_id + 1)
    return max(1, min(wanted, usable, tokenizer.model_max_length))


@torch.inference_mode()
def encode(
    folder: Path, texts: list[str], max_tokens: int, batch_size: int, device: torch.device
) -> np.ndarray:
    """Return (N, D) float32: the mean of the last hidden states over the tokens of each text.

    Special tokens count, padding does not. Texts of similar length share a batch, which saves
    padding. Texts longer than `longest` are cut. ValueError: a value is not finite.
    """
    tokenizer = AutoTokenizer.from_pretrained(str(folder), use_fast=True, trust_remote_code=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # transformers draws missing weights (an unused pooler)
        model = AutoModel.from_pretrained(
            str(folder), use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
    model = resume.name(model.to(device).eval(), "encoder")
    most = longest(model, tokenizer, max_tokens)
    ids = tokenizer(
        texts, truncation=True, max_length=most, return_attention_mask=False, verbose=False
    )["input_ids"]
    # An empty text has no tokens if the tokenizer adds no special tokens.
    ids = [row or [tokenizer.pad_token_id] for row in ids]
    order = sorted(range(len(texts)), key=lambda i: (len(ids[i]), i))
    pooled = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        rows = [ids[i] for i in indices]
        batch = partial(_pooled, model, rows, tokenizer.pad_token_id)
        pooled[indices] = resume.once(model, "embeddings", rows, batch)["means"]
    if not np.isfinite(pooled).all():
        raise ValueError(
            f"{folder}: the encoder returns values that are not finite: its weights are damaged; "
            f"set {KEY} to another encoder, or to tfidf"
        )
    return pooled


def _pooled(model, rows: list[list[int]], pad_id: int) -> dict[str, np.ndarray]:
    """Return the means (B, D), float64, of a batch whose last row is the longest."""
    width, device = len(rows[-1]), model.device
    ids_BT = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows])
    mask_BT = torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]
    hidden_BTD = model(
        input_ids=ids_BT.to(device), attention_mask=mask_BT.long().to(device)
    ).last_hidden_state.double()
    mask_BT1 = mask_BT.to(device)[..., None].double()
    return {"means": ((hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)).cpu().numpy()}


def tfidf(texts: list[str], fitted_on: list[str]) -> np.ndarray:
    """Return (N, D) float32 rows of length 1: term frequency times inverse document frequency.

    The definition is scikit-learn's. The features are the FEATURES most frequent words of
    `fitted_on`, and a last one that marks texts without any of these words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        tokenizer=tokenize, lowercase=False, token_pattern=None, max_features=FEATURES
    )
    if not any(map(tokenize, fitted_on)):
        return np.ones((len(texts), 1), dtype=np.float32)
    vectors = vectorizer.fit(fitted_on).transform(texts).toarray()
    return np.hstack([vectors, ~vectors.any(axis=1, keepdims=True)]).astype(np.float32)


def embed(job: Job) -> None:
    """Write embeddings.parquet, with one row per text and place.

    Columns: experiment, generation, member, model, prompt_id, completion, embedding. A model that
    several experiments share (a founder) has rows for each of them. The user's own prompts
    (`texts`) are left out.
    """
    read = {}
    for model, path in zip(job.params.models, job.files("samples"), strict=True):
        table = artifacts.read_table(path, ["prompt_id", "completion"]).to_pandas()
        read[model] = table[~table.prompt_id.isin(job.params.texts)].assign(model=model)
    columns = ["experiment", "generation", "member", "model"]
    places = pd.DataFrame(job.params.places, columns=columns)
    said = pd.concat(read.values(), ignore_index=True)
    texts = list(dict.fromkeys(said.completion))
    if job.files("encoder"):
        work = job.claim("embed", job.key(0), at_once=True)
        if work is None:
            return
        device = prepare(job.device, job.params.cpu_threads)
        with resume.saving(work, job.stop, job.log):
            job.note_hardware(resume.resumes())
            vectors_ND = encode(
                job.file("encoder").parent,
                texts,
                job.params.max_tokens,
                job.params.batch_size,
                device,
            )
    else:
        vectors_ND = tfidf(texts, list(said.completion))
    job.log.info(
        "embedded %d texts of %d models (%d distinct texts) in %d dimensions",
        len(said),
        len(read),
        *vectors_ND.shape,
    )
    table = places.merge(said, on="model")
    rows = table.completion.map({text: n for n, text in enumerate(texts)}).to_numpy()
    table = pa.Table.from_pandas(table, preserve_index=False)
    flat = pa.array(vectors_ND[rows].ravel())
    offsets = np.arange(len(rows) + 1, dtype=np.int64) * vectors_ND.shape[1]
    artifacts.write_table(
        job.output.embeddings,
        table.append_column("embedding", pa.LargeListArray.from_arrays(offsets, flat)),
    )
