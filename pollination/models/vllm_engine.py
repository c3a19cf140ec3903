"""Let vLLM choose the tokens of completions (`generate.engine: vllm`).

vLLM runs in this process, so that the job can stop between two steps. A process of its own would
import the job's script, and run it again. The calls are those of vLLM 0.33, which envs/vllm.yaml
pins.
"""

import math
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from pollination.core import resume
from pollination.core.job import Stopped
from pollination.data.special import end_ids
from pollination.models.checkpoint import check_vocabulary, load_config, load_tokenizer, outline
from pollination.models.completion import prompt_limit
from pollination.models.drawing import Decoding
from pollination.models.limits import logit_rows
from pollination.models.precision import has_fast_units

ROWS = 1024  # texts that are written, and saved for a resume, together
MOST_BARRED = 1024  # ids that vLLM can bar in one text
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
BATCH_INVARIANT = "VLLM_BATCH_INVARIANT"
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # this also fixes the order of the rows
    "VLLM_NO_USAGE_STATS": "1",  # it would be sent to vLLM's authors
}


def load_vllm() -> Any:
    """Import vLLM. ValueError: it is not installed, or cannot be imported."""
    os.environ |= ENVIRONMENT
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # it warns of settings that are meant
    try:
        return import_module("vllm")
    except ImportError as error:
        raise ValueError(
            f"generate.engine: 'vllm' needs the package vllm ({_reason(error)}); allowed without "
            "it: native. Add --sdm conda to the command, which installs envs/vllm.yaml, or set "
            "generate.engine: native"
        ) from error


def about() -> dict[str, str]:
    """Return what the record says about the engine. ValueError as in `load_vllm`."""
    engine = {"engine": f"vllm {load_vllm().__version__}"}
    is_invariant = os.environ.get(BATCH_INVARIANT, "0") not in ("", "0")
    return engine | ({"batch_invariant": "yes"} if is_invariant else {})


def check_precision(precision: str, device: torch.device) -> None:
    """ValueError: vLLM would compute in TF32 where `auto` chose fp32 for the architecture."""
    if precision == "fp32" and device.type == "cuda" and has_fast_units(device):
        raise ValueError(
            "generate.engine: bf16 changes this architecture, so generate.precision: auto is fp32, "
            "which 'vllm' may round to TF32; allowed for it: native. Set generate.engine: native"
        )


class VllmModel:
    """A member's model in vLLM. It takes the place of a model of transformers in `complete`.

    `config` is the configuration. The embeddings have shapes and no values.
    ValueError: vLLM is not installed, or cannot load the model. DamagedArtifact: the tokenizer is
    unreadable, or has ids without an embedding.
    """

    device = torch.device("cpu")  # of what this package computes itself

    def __init__(self, folder: Path, precision: str, settings: dict) -> None:
        self.config = load_config(folder)
        shape, self.tokenizer = outline(self.config, folder), load_tokenizer(folder)
        check_vocabulary(folder, shape, self.tokenizer)
        self.get_input_embeddings = shape.get_input_embeddings
        self.get_output_embeddings = shape.get_output_embeddings
        self.dtype = DTYPES[precision]
        limit = prompt_limit(self, settings)
        self.vllm = load_vllm()
        try:
            self.llm = self.vllm.LLM(
                model=str(folder),
                skip_tokenizer_init=True,
                use_tqdm_on_load=False,
                dtype=self.dtype,
                # a prompt computed in part by an earlier row would be rounded in another way
                enable_prefix_caching=False,
                generation_config="vllm",  # no defaults of the model's authors
                max_model_len=None if limit is None else limit + settings["max_new_tokens"],
            )
        except Exception as error:  # of many classes, by the architecture and the GPU
            raise ValueError(
                f"generate.engine: vllm cannot load the model of {folder} ({_reason(error)}); "
                "allowed: native, vllm. Correct this, or set generate.engine: native"
            ) from error

    def decode(
        self,
        prompts: list[list[int]],
        row_seeds: list[int],
        settings: dict,
        eos_id: int,
        stop=None,
        never: torch.Tensor | None = None,
    ) -> Iterator[list[int]]:
        """Yield completions as `sampling.sample` does, with other random numbers.

        A row's numbers follow from its seed alone, its logits up to rounding from its prompt.
        ValueError: logits are not finite, vLLM cannot bar as many ids as `never` holds, or it did
        not write one whole text for each prompt.
        """
        barred = [] if never is None else never.tolist()
        if len(barred) > MOST_BARRED:
            raise ValueError(
                f"generate.engine: 'vllm' can bar at most {MOST_BARRED:,} ids, but the model has "
                f"{len(barred):,} ids without a token; allowed for it: native. Set "
                "generate.engine: native"
            )
        ends = end_ids(self, eos_id)
        common = {
            **_chosen(Decoding.from_settings(settings)),
            "stop_token_ids": ends,
            "ignore_eos": True,  # the ends are those of this package
            "detokenize": False,
            "logprobs": 0,  # of the chosen tokens, to find logits that are not finite
        }
        if barred:
            common["logit_bias"] = dict.fromkeys(barred, -math.inf)
        for start in range(0, len(prompts), ROWS):
            rows = slice(start, start + ROWS)
            chosen, seeds = prompts[rows], row_seeds[rows]

            def batch(chosen=chosen, seeds=seeds) -> list[list[int]]:
                return self._write(chosen, seeds, common, stop)

            yield from resume.texts(self, "vllm", [chosen, seeds, repr(common)], batch)

    def _write(
        self, prompts: list[list[int]], seeds: list[int], common: dict, stop
    ) -> list[list[int]]:
        params = [self.vllm.SamplingParams(seed=seed, **common) for seed in seeds]
        self.llm.enqueue([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
        engine = self.llm.llm_engine
        done: dict[int, Any] = {}
        while engine.has_unfinished_requests():
            ended = [one for one in engine.step() if one.finished and one.outputs]
            done |= {int(one.request_id): one.outputs[0] for one in ended}
            if stop:
                raise Stopped("stopped while sampling")
        logprobs = [one.cumulative_logprob for one in done.values()]
        if any(one is not None and not math.isfinite(one) for one in logprobs):
            raise ValueError(
                "the model produced non-finite logits (NaN or infinity). Its weights are broken, "
                "or its training diverged. Lower train.learning_rate"
            )
        if reason := self._wrong(done, len(prompts), common):
            raise ValueError(
                f"generate.engine: vllm {self.vllm.__version__} {reason}; allowed: one whole text "
                "for each prompt. Run the same command to try again, or set generate.engine: native"
            )
        return [list(done[number].token_ids) for number in sorted(done)]

    def _wrong(self, done: dict[int, Any], prompts: int, common: dict) -> str | None:
        """Return how vLLM's replies to a batch break what it was asked, or None.

        A text that was broken off would pass for one that its author ended.
        """
        if len(done) != prompts:
            return f"answered {len(done)} of {prompts} prompts"
        barred, ends = set(common.get("logit_bias", ())), common["stop_token_ids"]
        rows, least, most = logit_rows(self), common["min_tokens"], common["max_tokens"]
        for one in done.values():
            ids = list(one.token_ids)
            if one.cumulative_logprob is None:
                return "gave no probability of a text"
            if foreign := [i for i in ids if not 0 <= i < rows or i in barred]:
                return f"wrote the id {foreign[0]}, which is no token of the model"
            end = next((n for n in range(least, len(ids)) if ids[n] in ends), most - 1)
            if len(ids) != end + 1:
                return f"broke off a text after {len(ids)} tokens ({one.finish_reason})"
        return None


def _chosen(decoding: Decoding) -> dict:
    """Return a decoding as parameters of vLLM. `check_engines` has refused all others."""
    if decoding.decoding == "greedy":
        drawn = {"temperature": 0.0}
    else:
        drawn = {
            "temperature": decoding.temperature,
            "top_k": decoding.top_k,
            "top_p": decoding.nucleus_mass,
        }
    return drawn | {
        "repetition_penalty": decoding.repetition_penalty,
        "min_tokens": min(decoding.min_new_tokens, decoding.max_new_tokens),
        "max_tokens": decoding.max_new_tokens,
    }


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
