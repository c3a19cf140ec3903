"""The two profiles agree where they must, and every key of the Slurm profile is explained."""

import yaml

from tests.conftest import ROOT

LOCAL, SLURM = (
    yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text())
    for name in ("local", "slurm")
)
GPU_RULES = {
    "train_founder",
    "train_child",
    "generate_shard",
    "evaluate_member",
    "measure_disagreement",
    "measure_quality",
    "embed_samples",
}


def test_what_runs_again_is_the_same_on_both():
    for key in ("rerun-triggers", "max-checksum-file-size", "rerun-incomplete", "keep-going"):
        assert LOCAL[key] == SLURM[key]


def test_the_rules_that_ask_for_a_gpu_name_its_type_and_no_other_does():
    rules = "".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk"))).split(
        "\nrule "
    )
    assert {rule.split(":")[0] for rule in rules if "gpu=1" in rule} == GPU_RULES
    assert {
        rule for rule, sizes in SLURM["set-resources"].items() if sizes["gpu_model"] == "a100"
    } == GPU_RULES
    assert (ROOT / "profiles/slurm/config.yaml").read_text().count("a100\n") == 1  # named once
    assert not {"gpu", "gpu_model", "gres"} & set(SLURM["default-resources"])


def test_every_key_stands_under_a_comment():
    lines = (ROOT / "profiles/slurm/config.yaml").read_text().splitlines()
    keys = [n for n, line in enumerate(lines) if line and not line.startswith((" ", "#"))]
    bare = [
        lines[n]
        for n in keys
        if not lines[n - 1].startswith("#")
        and n + 1 < len(lines)
        and not lines[n + 1].lstrip().startswith("#")
    ]
    same_as_local = [f"{key}:" for key in LOCAL]
    assert not [line for line in bare if not line.startswith(tuple(same_as_local))]
