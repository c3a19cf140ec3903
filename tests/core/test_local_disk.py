"""A large input is read from a copy on the node's own disk, and from nowhere else if it cannot."""

import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from snakemake.iocontainers import InputFiles, OutputFiles, Params, Wildcards

from pollination.core import artifacts, local_disk
from pollination.core.job import Job
from pollination.data.tokens import TokenBlocks, pack_ids
from tests.conftest import ROOT

LOG = logging.getLogger("test")


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """A packed text whose size is worth a copy, and the node's disk."""
    monkeypatch.setattr(local_disk, "LEAST_BYTES", 1000)
    monkeypatch.setattr(local_disk, "SPARE_BYTES", 0)
    (tmp_path / "disk").mkdir()
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    pack_ids([list(range(1, 3000))], 3000, 8, 0, tmp_path / "text.bin")
    return tmp_path / "text.bin"


def copied(packed, setting, digest=None):
    return local_disk.copy(packed, digest or artifacts.digest(packed), setting, LOG)


def test_the_copy_holds_the_text_and_leaves_nothing_behind(packed, tmp_path):
    copy = copied(packed, "$NODE_DISK")
    blocks, original = TokenBlocks(packed, copy), TokenBlocks(packed)
    packed.write_bytes(bytes(packed.stat().st_size))  # the job does not read it any more
    assert not list((tmp_path / "disk").iterdir())  # even while it is in use
    assert blocks.blocks(np.array([3]))[0].tolist() == list(range(25, 33))
    assert not original.blocks(np.array([3])).any()


@pytest.mark.parametrize("setting", [None, "$SLURM_TMPDIR", "${NO_SUCH}/x", "/no/such/folder"])
def test_without_a_disk_of_its_own_the_job_reads_the_file(packed, caplog, setting):
    assert copied(packed, setting) is None
    assert ("/no/such/folder: no copy" in caplog.text) == (setting == "/no/such/folder")


def test_a_small_file_or_a_full_disk_gives_no_copy(packed, monkeypatch, caplog):
    monkeypatch.setattr(local_disk, "SPARE_BYTES", 2**62)
    assert copied(packed, "$NODE_DISK") is None and "has no room" in caplog.text
    monkeypatch.setattr(local_disk, "LEAST_BYTES", 2**26)
    assert copied(packed, "$NODE_DISK") is None


def test_a_disk_that_fails_while_it_is_written_gives_no_copy(packed):
    code = (
        "import logging, resource, signal, sys\nfrom pathlib import Path\n"
        "from pollination.core import artifacts, local_disk\n"
        "local_disk.LEAST_BYTES = local_disk.SPARE_BYTES = 0\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "path = Path(sys.argv[1])\n"
        "print(local_disk.copy(path, artifacts.digest(path), '$NODE_DISK', logging.getLogger()))\n"
    )
    words = [sys.executable, "-c", code, str(packed)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "None\n" and "no copy of" in done.stderr


def test_a_file_that_changed_before_the_copy_is_refused(packed):
    with pytest.raises(artifacts.DamagedArtifact, match="text.bin: changed while this job read it"):
        copied(packed, "$NODE_DISK", digest="0" * 64)


@pytest.mark.parametrize("decays", [False, True])
def test_a_job_checks_at_its_end_what_it_read(packed, tmp_path, monkeypatch, decays):
    monkeypatch.setattr(os, "environ", os.environ.copy() | {"XDG_CACHE_HOME": str(tmp_path / "c")})
    record = tmp_path / "run.json"
    snakemake = SimpleNamespace(
        rule="train",
        threads=1,
        config={"local_disk": "$NODE_DISK"},
        input=InputFiles(fromdict={"segment": str(packed)}),
        output=OutputFiles(fromdict={"run": str(record)}),
        params=Params(fromdict={}),
        wildcards=Wildcards(fromdict={}),
        log=[],
    )

    def work() -> None:
        with Job(snakemake) as job:
            copy = job.copy_of(packed)
            if decays:
                os.pwrite(copy.fileno(), b"\0\1", 50)

    if decays:
        with pytest.raises(SystemExit):
            work()
        assert not record.exists()
    else:
        work()
        inputs = artifacts.read_record(record)["inputs"]
        assert inputs == {str(packed): artifacts.digest(packed)}
