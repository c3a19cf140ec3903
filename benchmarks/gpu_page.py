"""Write the GPU tables of docs/performance.md: `python -m benchmarks.gpu_page [results/gpu.json]`.

The first holds a session on a GPU (benchmarks/gpu_session.sh). A dry run is refused. The second
holds what is known without a GPU; --known writes it alone.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from benchmarks.__main__ import PAGE, replaced, wrapped
from benchmarks.gpu import RESULTS
from benchmarks.gpu_checks import VERDICTS
from benchmarks.gpu_profile import Operations
from benchmarks.harness import OURS
from pollination.core import artifacts

SESSION = "<!-- session: benchmarks/gpu_session.sh -->", "<!-- end of session -->"
KNOWN = "<!-- known: python -m benchmarks.gpu_page --known -->", "<!-- end of known -->"
LLAMA = {"model_type": "llama", "tie_word_embeddings": True}
# transformers configurations; those with a name are from the models' own config.json
MODELS = {
    "study A's Llama": LLAMA
    | {
        "vocab_size": 32000,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "Llama-3.2-1B": LLAMA
    | {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "OLMo-2-1B": {
        "model_type": "olmo2",
        "tie_word_embeddings": False,
        "vocab_size": 100352,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
    },
    "Qwen3-1.7B": {
        "model_type": "qwen3",
        "tie_word_embeddings": True,
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}
ROWS, CONTEXT = 256, 1024  # of the cache in the table
DEPTHS = (2, 3)  # layers of two small models; their difference is a layer


def lines_of(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ("---",) * len(head), *rows])


# --- a session


def refused(found: dict) -> str | None:
    """Return why the page must not show this session, or None."""
    if found.get("dry_run") is not False:
        return "it is of a dry run, which measures nothing; run benchmarks/gpu_session.sh on a GPU"
    if missing := [key for key in ("checks", "rows") if not found.get(key)]:
        return f"it lacks {' and '.join(missing)}; run all of benchmarks/gpu_session.sh"
    return None


def session(found: dict) -> str:
    """Return the tables of a session: checks, goals, rows, profiles, and the rows left out."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    limits = found["published"] or found["measured"]
    kind = "published" if found["published"] else "measured"
    commit = found["commit"][:12] + ("+" if found["commit"].endswith("+") else "")
    measured = (
        f"Measured on {found['device']} with {versions} at commit {commit}, in "
        f"{found['precision']}. MFU and bandwidth are shares of the {kind} limits, "
        f"{limits['flops_per_s'] / 1e12:,.0f} TFLOP/s and {limits['bytes_per_s'] / 1e9:,.0f} GB/s. "
        f"A large product reaches {found['measured']['flops_per_s'] / 1e12:,.0f} TFLOP/s, and a "
        f"copy {found['measured']['bytes_per_s'] / 1e9:,.0f} GB/s."
    )
    if (apart := found["scores_apart_nats"]) is not None:
        measured += f" Log-likelihoods of the two scoring jobs differ by at most {apart:.2g} nats."
    checks = [
        f"- {check['name']}: **{VERDICTS[check['passed']].lower()}**: {check['said']}"
        for check in found["checks"]
    ]
    goals = [
        (goal["path"], goal["goal"], said(goal["found"]), met(goal["met"]))
        for goal in found["goals"]
    ]
    whole = [row for row in found["rows"] if "failed" not in row]
    speeds = [
        (
            f"**{row['path']}**" if row["side"] == OURS else row["path"],
            row["side"],
            f"{row['rate']:,.0f} {row['unit']}/s",
            share(row["mfu"]),
            share(row["bandwidth"]),
            "" if row["peak_mib"] is None else f"{row['peak_mib']:,.0f}",
            f"{row['ratio']:.2f}" if "ratio" in row else "",
        )
        for row in whole
        if row["unit"] != "steps"
    ]
    profiles = [
        (
            one["step"],
            f"{one['count']:,.1f}",
            f"{one['seconds'] * 1e3:,.2f}",
            share(one["idle"]),
            ", ".join(one["attention"]) or "not recognised",
        )
        for one in found["profiles"]
    ]
    absent = [
        f"- Failed: {row['path']}, {row['side']}: {row['failed']}"
        for row in found["rows"]
        if "failed" in row
    ]
    absent += [
        f"- Left out: {one['path']}, {one['side']}: {one['reason']}" for one in found["left_out"]
    ]
    speed_head = ("path", "side", "rate", "MFU", "bandwidth", "peak MiB", "ratio")
    profile_head = ("step", "kernels", "ms", "GPU idle", "attention")
    parts = [
        wrapped(measured),
        "\n".join(map(wrapped, checks)),
        lines_of(("path", "goal on one H200", "found", "met"), goals),
        lines_of(speed_head, speeds),
        lines_of(profile_head, profiles) if profiles else "",
        "\n".join(map(wrapped, absent)),
    ]
    return "\n\n".join(filter(None, parts))


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def said(value: float | None) -> str:
    return "not measured" if value is None else f"{value:,.4g}"


def met(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "not measured"}[value]


# --- what is known without a GPU


def memory() -> str:
    """Return the table of memory estimates, by the models' own number of parameters."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from pollination.models.preflight import TRAINING_BYTES

    rows = []
    for name, settings in MODELS.items():
        options = dict(settings)
        config = AutoConfig.for_model(options.pop("model_type"), **options)
        with torch.device("meta"):  # no memory for the weights
            model = AutoModelForCausalLM.from_config(config)
        count = sum(p.numel() for p in model.parameters())
        width = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        # keys and values in bf16, two bytes each
        token = 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * width
        rows.append(
            (
                name,
                f"{count / 1e6:,.0f}M",
                f"{count * TRAINING_BYTES / 2**30:,.1f}",
                f"{count * 2 / 2**30:,.2f}",
                f"{token:,}",
                f"{token * ROWS * CONTEXT / 2**30:,.1f}",
            )
        )
    head = ("model", "parameters", "training, GiB", "bf16, GiB", "cache, bytes per token")
    return lines_of((*head, f"{ROWS} rows, GiB"), rows)


def operations() -> str:
    """Return the table of operations of a decoding step, counted on a CPU.

    The choice of a token takes the way of a GPU: its tensors are on torch's meta device, which
    computes shapes alone.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from pollination.models.drawing import Decoding, draw
    from pollination.models.static_decoder import StaticDecoder

    totals = []
    for layers in DEPTHS:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=layers,
            num_attention_heads=2,
            max_position_embeddings=32,
        )
        with torch.inference_mode():
            decoder = StaticDecoder(LlamaForCausalLM(config).eval(), [[1, 2, 3]] * 4, 8)
            decoder.read()  # the first step also tests that no number is read on the host
            with Operations() as found:
                decoder.forward()
        totals.append(found.names.total())
    layer = (totals[1] - totals[0]) // (DEPTHS[1] - DEPTHS[0])
    rest = totals[0] - DEPTHS[0] * layer
    choice: Counter[str] = Counter()
    with torch.inference_mode():
        logits_BV = torch.empty(4, 32000, device="meta")
        keys_B = torch.empty(4, dtype=torch.long, device="meta")
        with Operations() as counted:
            draw(logits_BV, keys_B, Decoding("nucleus"))
        choice = counted.names
    depth = MODELS["study A's Llama"]["num_hidden_layers"]
    rows = [
        ("one layer", str(layer)),
        ("embedding, mask, positions, head", str(rest)),
        (f"the model of {depth} layers", str(depth * layer + rest)),
        ("choice of a token by nucleus sampling", str(choice.total())),
    ]
    return lines_of(("part of a decoding step", "operations"), rows)


def known() -> str:
    return f"{operations()}\n\n{memory()}"


def main(words: list[str] | None = None, page: Path = PAGE) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_page", description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=RESULTS)
    parser.add_argument("--known", action="store_true", help="write what needs no GPU alone")
    arguments = parser.parse_args(words)
    if arguments.known:
        replaced(page, KNOWN, known())
        return 0
    if not arguments.results.is_file():
        parser.error(f"{arguments.results} does not exist; run benchmarks/gpu_session.sh on a GPU")
    found = artifacts.read_json(arguments.results)
    if reason := refused(found):
        parser.error(f"{arguments.results}: {reason}")
    replaced(page, SESSION, session(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
