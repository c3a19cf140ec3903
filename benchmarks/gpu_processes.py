"""What `benchmarks.gpu` measures in processes of their own. Each function times itself."""

import time
from importlib import import_module
from pathlib import Path

SHARED, OF_A_GROUP = 0.75, 8  # eight sequences share three quarters, as few-shot examples do
BATCH = 32


def words_of(ids) -> str:
    return " ".join(f"w{number}" for number in ids)


def save_member(model, folder: Path) -> None:
    """Save a model with a tokenizer whose token i is the word `wi`; w0 ends a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{number}": number for number in range(model.config.vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w0").save_pretrained(folder)


def sequences(count: int, context: int, vocabulary: int) -> list:
    """Return `count` seeded sequences of `context` ids, in groups that share their beginnings."""
    import numpy as np

    generator = np.random.default_rng(2)
    long = int(context * SHARED)
    shared = generator.integers(1, vocabulary, (-(-count // OF_A_GROUP), long))
    own = generator.integers(1, vocabulary, (count, context - long))
    return [np.concatenate([shared[index // OF_A_GROUP], row]) for index, row in enumerate(own)]


def scored(folder: str, side: str, device: str, count: str, context: str, targets: str) -> dict:
    """Load a member and score the last `targets` words of each text, by us or by HFLM."""
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from benchmarks.harness import OURS
    from pollination.evaluation.harness import HarnessModel
    from pollination.models.device import prepare
    from pollination.models.inference import Inference
    from pollination.models.precision import choose, set_products

    begun_s = time.perf_counter()
    placed = prepare(device, torch.get_num_threads())
    precision = choose("auto", placed, "precision")
    set_products(precision, placed)
    model, tokenizer = Inference(placed, precision).member(folder)
    texts = sequences(int(count), int(context), model.config.vocab_size)
    requests = []
    for number, ids in enumerate(texts):
        pair = words_of(ids[: -int(targets)]), " " + words_of(ids[-int(targets) :])
        requests.append(Instance("loglikelihood", {}, pair, number))
    if side == OURS:
        lm = HarnessModel(model, tokenizer, BATCH)
    else:
        lm = HFLM(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=BATCH,
            max_length=int(context),
            add_bos_token=False,
            softmax_dtype=torch.float32,
        )
    found = [float(total) for total, _ in lm.loglikelihood(requests, disable_tqdm=True)]
    return {"seconds": time.perf_counter() - begun_s, "amount": len(texts), "result": found}


def sampled_by_vllm(folder: str, rows: str, prompt: str, new: str) -> dict:
    """Time vLLM's nucleus sampling of `rows` prompts, without the start of its engine."""
    import os

    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # it ends with this process
    import numpy as np

    vllm = import_module("vllm")  # of the user, if at all

    engine = vllm.LLM(
        model=folder,
        dtype="bfloat16",
        skip_tokenizer_init=True,
        max_model_len=int(prompt) + int(new),
        max_num_seqs=int(rows),
        gpu_memory_utilization=0.4,
    )
    choices = vllm.SamplingParams(
        temperature=0.7, top_p=0.9, max_tokens=int(new), ignore_eos=True, detokenize=False
    )
    ids = np.random.default_rng(0).integers(1, 200, (int(rows), int(prompt))).tolist()
    prompts = [{"prompt_token_ids": row} for row in ids]
    engine.generate(prompts[:2], choices, use_tqdm=False)
    begun_s = time.perf_counter()
    written = engine.generate(prompts, choices, use_tqdm=False)
    seconds = time.perf_counter() - begun_s
    return {"seconds": seconds, "amount": sum(len(one.outputs[0].token_ids) for one in written)}
