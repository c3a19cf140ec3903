"""A stand-in for vLLM 0.33: its interface, as strict as the real one, and native draws behind it.

`test_vllm.py` compares the names with those of the real package where that is installed.
"""

import math
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace

import torch

from pollination.models.checkpoint import load_model
from pollination.models.sampling import Decoding, sample

__version__ = "0.33.0"

# Keyword parameters of LLM, and some of EngineArgs, to which LLM passes the others on.
CONSTRUCTOR = (
    "runner",
    "convert",
    "tokenizer",
    "tokenizer_mode",
    "skip_tokenizer_init",
    "trust_remote_code",
    "allowed_local_media_path",
    "allowed_media_domains",
    "tensor_parallel_size",
    "dtype",
    "quantization",
    "revision",
    "tokenizer_revision",
    "chat_template",
    "seed",
    "gpu_memory_utilization",
    "cpu_offload_gb",
    "enforce_eager",
    "disable_custom_all_reduce",
    "hf_token",
    "hf_overrides",
    "mm_processor_kwargs",
    "pooler_config",
    "kv_cache_memory_bytes",
    "compilation_config",
    "logits_processors",
)
ENGINE = (
    "max_model_len",
    "max_num_seqs",
    "enable_prefix_caching",
    "generation_config",
    "use_tqdm_on_load",
)


@dataclass(kw_only=True)
class SamplingParams:
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None

    def __post_init__(self) -> None:
        if self.min_tokens > self.max_tokens or not 0 < self.top_p <= 1 or self.top_k < -1:
            raise ValueError("as vLLM's _verify_args")
        assert not 0 < self.temperature < 0.01  # vLLM would raise it
        assert -(2**63) <= self.seed < 2**63 and self.seed != -1
        if self.temperature < 1e-5:
            self.top_p, self.top_k = 1.0, 0


@dataclass
class CompletionOutput:
    token_ids: list[int]
    cumulative_logprob: float | None
    finish_reason: str = "stop"


@dataclass
class RequestOutput:
    request_id: str
    outputs: list[CompletionOutput] = field(default_factory=list)
    finished: bool = True


class LLM:
    def __init__(self, model: str, **given) -> None:
        unknown = set(given) - {*CONSTRUCTOR, *ENGINE}
        if unknown:
            raise TypeError(f"EngineArgs got an unexpected keyword argument {sorted(unknown)}")
        self.given, self.model = given, load_model(model)
        if self.model.config.model_type == "opt":
            raise ValueError("Model architectures ['OPTForCausalLM']\n are not supported for now.")
        assert given["dtype"] in ("auto", "float16", "bfloat16", "float32")
        self.numbers, self.waiting, self.params = count(), [], []
        self.llm_engine = SimpleNamespace(
            step=self._step, has_unfinished_requests=lambda: bool(self.waiting)
        )

    def enqueue(
        self,
        prompts,
        sampling_params=None,
        lora_request=None,
        priority=None,
        use_tqdm=True,
        tokenization_kwargs=None,
        mm_processor_kwargs=None,
    ) -> list[str]:
        if len(prompts) != len(sampling_params):
            raise ValueError("The lengths of prompts and params must be the same.")
        for prompt, params in zip(prompts, sampling_params, strict=True):
            ids, longest = prompt["prompt_token_ids"], self.given["max_model_len"]
            assert ids and len(ids) + params.max_tokens <= longest
            self.waiting.append((str(next(self.numbers)), ids, params))
            self.params.append(params)
        return [f"{number}-internal" for number, _, _ in self.waiting]

    def _step(self) -> list[RequestOutput]:
        """Finish the newest request, and report another one that has not finished."""
        number, ids, params = self.waiting.pop()
        greedy = params.temperature == 0
        decoding = Decoding(
            decoding="greedy" if greedy else "nucleus",
            repetition_penalty=params.repetition_penalty,
            min_new_tokens=params.min_tokens,
            max_new_tokens=params.max_tokens,
            temperature=params.temperature or 1.0,
            top_k=params.top_k,
            top_p=params.top_p,
        )
        assert params.ignore_eos and set((params.logit_bias or {}).values()) <= {-math.inf}
        never = torch.tensor(list(params.logit_bias)) if params.logit_bias else None
        end, *others = params.stop_token_ids
        try:
            new = next(sample(self.model, [ids], [params.seed], decoding, end, 1, never=never))
            logprob = -1.0
        except ValueError:  # vLLM draws any token from logits that are not finite
            new, logprob = [3], math.nan
        ends = [place for place, token in enumerate(new) if token in others]
        new = new[: ends[0] + 1] if ends else new
        logprob = logprob if params.logprobs is not None else None
        done = RequestOutput(number, [CompletionOutput(new, logprob)])
        going = [
            RequestOutput(one[0], [CompletionOutput([5], -1.0)], False) for one in self.waiting
        ]
        return [*going[:1], done]
