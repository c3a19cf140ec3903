"""What each job pays before it works: the imports of a training script against the bare libraries, each with Llama loaded."""

import sys

from benchmarks.harness import OURS, Row

TRAIN = "from pollination.job import Job; from pollination import members; from transformers import LlamaForCausalLM"
BARE = "import torch, transformers; from transformers import LlamaForCausalLM"

ROWS = [
    Row(
        "start",
        "start of a training job, up to the model's class",
        "starts",
        1 / 1.3,
        lambda: {OURS: [sys.executable, "-c", TRAIN], "bare torch and transformers": [sys.executable, "-c", BARE]},
    )
]
