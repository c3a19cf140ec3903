"""Caches of libraries lie in folders that work, and that other users cannot prepare."""

import logging
import os
import stat
import subprocess
from pathlib import Path

import pytest

from pollination.core import caches


@pytest.fixture
def prepare(tmp_path):
    """Prepare the caches of a user whose home is `tmp_path`; return compiled code's folder."""
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", caches.COMPILED):
        os.environ.pop(name, None)
    os.environ["HOME"] = str(tmp_path)

    def start() -> Path:
        os.environ.pop(caches.COMPILED, None)
        caches.prepare(logging.getLogger("caches"))
        return Path(os.environ[caches.COMPILED])

    return start


def test_compiled_code_lies_in_the_users_own_cache_folder(prepare, tmp_path, caplog):
    assert prepare() == tmp_path / ".cache/pollination/compiled"
    assert stat.S_IMODE((tmp_path / ".cache/pollination").stat().st_mode) == 0o700
    assert not caplog.records


def test_a_folder_that_others_can_write_is_refused(prepare, tmp_path, caplog):
    folder = tmp_path / ".cache/pollination"
    folder.mkdir(parents=True)
    folder.chmod(0o770)
    used = prepare()
    assert tmp_path not in used.parents
    assert stat.S_IMODE(used.parent.stat().st_mode) == 0o700
    assert f"{folder}: others can write it" in caplog.text and "chmod 700" in caplog.text


def test_a_folder_of_another_user_is_refused(prepare, tmp_path, caplog):
    if os.geteuid():
        pytest.skip("giving a folder away needs root")
    folder = tmp_path / ".cache/pollination"
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    os.chown(folder, 65534, 65534)
    assert tmp_path not in prepare().parents
    assert "it belongs to another user" in caplog.text


def test_a_read_only_home_gives_temporary_caches_and_one_line(prepare, tmp_path, caplog):
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        used = prepare()
        assert used.is_relative_to(os.environ["XDG_CACHE_HOME"]) and tmp_path not in used.parents
        assert os.environ["MPLCONFIGDIR"].startswith(os.environ["XDG_CACHE_HOME"])
        (record,) = caplog.records
        assert "read-only" in record.getMessage() and "XDG_CACHE_HOME=" in record.getMessage()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_folder_that_the_user_chose_stays(prepare, tmp_path):
    os.environ[caches.COMPILED] = "/chosen"
    caches.prepare(logging.getLogger("caches"))
    assert os.environ[caches.COMPILED] == "/chosen"
