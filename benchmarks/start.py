"""Compare the start of a training job with the imports of the bare libraries and Llama."""

import sys

from benchmarks.harness import OURS, Row

TRAIN = (
    "from pollination.core.job import Job; from pollination.evolution import children; "
    "from transformers import LlamaForCausalLM"
)
BARE = "import torch, transformers; from transformers import LlamaForCausalLM"

ROWS = [
    Row(
        "start",
        "start of a training job, up to the model's class",
        "starts",
        1 / 1.3,
        lambda: {
            OURS: [sys.executable, "-c", TRAIN],
            "bare torch and transformers": [sys.executable, "-c", BARE],
        },
    )
]
