"""The image for `--sdm apptainer`. Here, Apptainer is a script that prints a file beside it."""

import os
import re

import pytest

from pollination.core import container
from tests.conftest import ROOT, snakemake

APPTAINER = """#!/bin/sh
test "$1" = exec && test -s "$2" || { echo "FATAL: no image" >&2; exit 255; }
shift
cat "$(dirname "$1")/held"
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "envs").mkdir()
    (tmp_path / container.LOCK).write_text("torch==2.13.0\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/apptainer").write_text(APPTAINER)
    (tmp_path / "bin/apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setenv("APPTAINER_NV", "0")
    monkeypatch.delenv("SINGULARITY_NV", raising=False)
    return tmp_path


def test_an_image_of_the_locked_packages_is_taken_and_sees_the_gpus(root, monkeypatch):
    (root / container.IMAGE).write_text("image")
    (root / "envs/held").write_text("torch==2.13.0\n")
    monkeypatch.chdir(root)
    assert container.image(root, compare=True) == container.IMAGE
    assert os.environ["SINGULARITY_NV"] == "1"
    assert os.environ["APPTAINER_NV"] == "0"  # the user's own word stands


@pytest.mark.parametrize(
    ("image", "held", "reason"),
    [
        (None, None, "there is no image .*pollination.sif; type: apptainer build"),
        ("image", "torch==2.12.0\n", "was not built from envs/requirements.txt; type: apptainer"),
        ("", "torch==2.13.0\n", "cannot read /opt/pollination/requirements.txt .* FATAL: no image"),
    ],
)
def test_another_image_is_refused(root, image, held, reason):
    if image is not None:
        (root / container.IMAGE).write_text(image)
        (root / "envs/held").write_text(held)
    with pytest.raises(ValueError, match=reason):
        container.image(root, compare=True)


@pytest.mark.parametrize("image", [True, False])
def test_apptainer_must_be_there(root, image):
    if image:
        (root / container.IMAGE).write_text("image")
    (root / "bin/apptainer").unlink()
    with pytest.raises(ValueError, match="neither apptainer nor singularity is on the PATH"):
        container.image(root, compare=True)


def test_snakemake_refuses_a_missing_image_in_one_line(root):
    if (ROOT / container.IMAGE).exists():
        pytest.skip(f"this checkout has the image {container.IMAGE}")
    output = snakemake(root, "-n", "--sdm", "apptainer", ok=False)
    assert f"error: --sdm apptainer: there is no image {ROOT / container.IMAGE}" in output
    assert "Traceback" not in output


def test_both_definitions_install_the_lock_file_for_its_python():
    lock = re.search(r'PYTHON = "(.*)"', (ROOT / "envs/lock.py").read_text())[1]
    words = [
        f"python:{lock}-slim",
        f"{container.LOCK} {container.HELD}",
        f"pip install --no-cache-dir -r {container.HELD}",
        "apt-get install --yes --no-install-recommends git g++",
    ]
    for name in ("Dockerfile", "pollination.def"):
        text = (ROOT / "envs" / name).read_text()
        assert not [word for word in words if word not in text], name
