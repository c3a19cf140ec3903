"""One process of a training on several GPUs. Torchrun's agent starts it (launch.py)."""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    """Train as one rank, write its outcome, and end the process."""
    # The launcher passes a stop on to rank 0, which agrees with the others on the step.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    from pollination.core.artifacts import atomic
    from pollination.models.launch import outcome_file

    outcome = _run(folder, rank)
    with atomic(
        outcome_file(folder, rank)
    ) as temporary:  # the order of keys is that of train.jsonl
        temporary.write_text(json.dumps(outcome | {"time": time.time()}))
    sys.stderr.flush()
    os._exit(0 if outcome["kind"] in ("done", "stopped") else 1)


def _die_with_parent() -> None:
    """End this process with the job that started it, which holds the lease."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _run(folder: Path, rank: int) -> dict:
    import logging
    import pickle
    import traceback

    import torch
    import torch.distributed as dist

    from pollination.core import causes, sanitize
    from pollination.core.job import Plain, Stopped
    from pollination.models import launch
    from pollination.models.checkpoint import start_model
    from pollination.models.device import prepare
    from pollination.models.parallel import (
        ParallelTrainer,
        Retry,
        Told,
        from_first,
        is_loss,
        join_ranks,
    )

    log = logging.getLogger("pollination")
    log.setLevel(logging.INFO)
    log.propagate, log.handlers = False, [logging.NullHandler()]
    work: list[Path] = []
    try:
        with open(folder / launch.SPEC, "rb") as file:
            spec: launch.Spec = pickle.load(file)
        work.append(spec.work)
        if rank == 0 and spec.log:
            log.handlers = [logging.FileHandler(spec.log, mode="a", encoding="utf-8")]
            log.handlers[0].setFormatter(Plain("%(asctime)s %(levelname)s %(message)s"))
        if spec.device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        device = prepare(spec.device, spec.cpu_threads, spec.settings["determinism"])
        if device.type == "cuda":
            device = torch.device("cuda", torch.cuda.current_device())
        join_ranks(device, spec.timeout_s)
        model = from_first(lambda: start_model(spec.blueprint, spec.weights, spec.weights_seed))
        trainer = ParallelTrainer(
            model,
            spec.blocks,
            spec.settings,
            spec.seed,
            device,
            spec.work,
            spec.key,
            log,
            Told(folder / launch.STOP),
            spec.validation,
            micro=spec.micro,
        )
        metrics = trainer.run()
        trainer.write(spec.target)
        dist.barrier()
        return {"kind": "done", "metrics": metrics, "used": trainer.used}
    except Stopped as stopped:
        return {"kind": "stopped", "text": str(stopped)}
    except Retry as retry:
        return {"kind": "retry", "micro": retry.micro, "text": str(retry)}
    except Exception as error:
        if line := causes.explain(error, work):
            return {"kind": "refused", "text": line}
        if isinstance(error, (ValueError, OSError)):
            return {"kind": "refused", "text": sanitize.reason(error)}
        if is_loss(error):
            return {"kind": "lost", "text": " ".join(str(error).split())[:300]}
        return {"kind": "bug", "text": f"rank {rank}: {traceback.format_exc()}"}
