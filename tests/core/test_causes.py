"""An error of the system is one line: what refused, and what to type."""

import errno
import os
import re
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import pytest

from pollination.core import artifacts, causes


class Foreign(Exception):
    """An exception of a library in another language."""


def os_error(code: int, path: str | None = None) -> OSError:
    return OSError(code, os.strerror(code), path)


GPU_IS_FULL = (
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "HIP out of memory. Tried to allocate 2.00 GiB",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    "cuFFT error: CUFFT_ALLOC_FAILED",
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (os_error(errno.ENOSPC, "/x/y"), r"no space left on the disk that holds /x/y; free some"),
        (os_error(errno.EDQUOT, "/x/y"), r"disk quota is used up .* /x/y; .*quota -s"),
        (os_error(errno.EROFS, "/x/y"), r"/x/y: the file system is read-only"),
        (os_error(errno.EMFILE, "/x/y"), r"too many open files; .*ulimit -n"),
        (os_error(errno.ESTALE, "/x/y"), r"/x/y: the network file system .*\(stale file handle\)"),
        (os_error(errno.EIO, "/x/y"), r"/x/y: the disk .* failed \(input/output error\)"),
        (os_error(errno.EFBIG, "/x/y"), r"/x/y: .* largest allowed size; .*ulimit -f"),
        (os_error(errno.EAGAIN), r"limit of processes and threads .*ulimit -u"),
        (MemoryError(), r"memory ran out; .*--cores"),
        (Foreign("I/O error: No space left on device (os error 28)"), r"no space left .* first"),
        (Foreign("I/O error: Disk quota exceeded (os error 122)"), r"disk quota .* first"),
        (Foreign("IoError(Os { code: 30, kind: ReadOnlyFilesystem })"), r"first: .* read-only"),
        (Foreign("cannot write '/x/y': Disk quota exceeded"), r"disk quota .* /x/y"),
        (RuntimeError("can't start new thread"), r"limit of processes and threads"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), r"memory ran out"),
        *((RuntimeError(text), r"memory of the GPU ran out") for text in GPU_IS_FULL),
        (OSError("[Errno 28] Error writing bytes. Detail: No space left on device"), r"no space"),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            r"no folder for temporary files is writable .*export TMPDIR=",
        ),
    ],
)
def test_each_error_of_the_system_has_its_line(error, said):
    line = causes.explain(error, ["first", "second"])
    assert line is not None and re.search(said, line) and "\n" not in line, line
    assert "run the same command again" in line


def test_an_error_that_led_to_another_is_found():
    try:
        try:
            raise os_error(errno.EDQUOT, "/x/y")
        except OSError as error:
            raise Foreign("the data set cannot be generated") from error
    except Foreign as error:
        assert "disk quota is used up on the disk that holds /x/y" in (causes.explain(error) or "")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("train.tokens: 3 is too small"),
        ValueError("no space left in the plan"),
        KeyError("text"),
        RuntimeError("shape mismatch"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm`"),
        Foreign("the server returned error code 5"),
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/x/y"),
    ],
)
def test_other_errors_have_none(error):
    assert causes.explain(error, ["first"]) is None


def test_an_errno_in_the_text_of_a_traceback_keeps_a_relative_path():
    error = OSError("PermissionError: [Errno 30] Read-only file system: '.snakemake/locks'")
    assert (causes.explain(error) or "").startswith(
        ".snakemake/locks: the file system is read-only"
    )


def test_the_full_disk_is_named_if_the_error_names_no_file(tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(full)], capture_output=True
    ).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        line = causes.explain(os_error(errno.ENOSPC), [tmp_path, full])
        assert f"the disk that holds {full};" in (line or "")
    finally:
        subprocess.run(["umount", str(full)], check=True)


def test_a_disk_without_inodes_is_told_from_a_full_one(tmp_path):
    place = tmp_path / "few"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=3", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        with pytest.raises(OSError) as caught:
            for number in range(5):
                (place / str(number)).touch()
        assert "no inodes left, df -i" in (causes.explain(caught.value) or "")
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_read_only_file_system_is_named_by_the_write(tmp_path):
    place = tmp_path / "results"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        with pytest.raises(OSError) as caught:
            artifacts.write_json(place / "a.json", {})
        assert "the file system is read-only" in (causes.explain(caught.value) or "")
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def as_nobody():
    """This process with the rights of user nobody."""
    if os.geteuid():
        pytest.skip("another user's rights need root")
    os.setegid(65534)
    os.seteuid(65534)
    yield
    os.seteuid(0)
    os.setegid(0)


def test_a_file_of_another_user_is_named_with_its_owner_and_what_the_owner_types(request):
    shared = Path(tempfile.mkdtemp(prefix="shared-"))
    request.addfinalizer(partial(shutil.rmtree, shared))
    shared.chmod(0o755)
    folder = shared / "results/study/tasks"
    folder.mkdir(parents=True)
    request.getfixturevalue("as_nobody")
    with pytest.raises(PermissionError) as caught:
        artifacts.write_json(folder / "a.json", {})
    line = causes.explain(caught.value) or ""
    assert f"permission denied; {folder} belongs to root" in line
    assert f"chmod -R g+rwX {shared}/results/study once, and umask 002" in line


def test_an_unreadable_disk_does_not_make_a_table_damaged(tmp_path, monkeypatch):
    """No disk fails on request here, so the reader raises the error that it would get."""
    import pyarrow.parquet as pq

    def fail(_path):
        raise os_error(errno.EIO, "/x/y")

    monkeypatch.setattr(pq, "ParquetFile", fail)
    with pytest.raises(OSError) as caught:
        artifacts.read_table(tmp_path / "a.parquet")
    assert not isinstance(caught.value, artifacts.DamagedArtifact)
