"""Compare the start of training jobs with bare imports and with new interpreters."""

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness import OURS, Row, call
from pollination.core.warm import SCRIPTS, Subprocess

TRAIN = (
    "from pollination.core.job import Job; from pollination.evolution import children; "
    "from transformers import LlamaForCausalLM"
)
BARE = "import torch, transformers; from transformers import LlamaForCausalLM"
JOBS, FORKS = 8, "forks"


def start_jobs(kind: str) -> dict:
    """Time JOBS training jobs, one after the other, up to the model's class."""
    script = Path.cwd() / SCRIPTS / "start.py"
    script.parent.mkdir(parents=True)
    script.write_text(TRAIN)
    command = f"set -euo pipefail;  {sys.executable} {script}"
    module = Subprocess(sys.stdout) if kind == FORKS else subprocess
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    begun_s = time.perf_counter()
    for _ in range(JOBS):
        env = os.environ | threads
        options = {"shell": True, "executable": "bash", "stdout": sys.stdout, "env": env}
        if module.Popen(command, **options).wait():
            raise RuntimeError(f"{TRAIN!r} failed")
    return {"seconds": time.perf_counter() - begun_s, "amount": JOBS}


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
    ),
    Row(
        "start-forks",
        f"starts of {JOBS} training jobs of a run, up to the model's class",
        "starts",
        3,
        lambda: {
            OURS: call(start_jobs, FORKS),
            "new interpreters": call(start_jobs, "new interpreters"),
        },
    ),
]
