"""A record names the commit, also where git refuses to read it."""

import os
import subprocess
from pathlib import Path

import pytest

from pollination.core import commit


@pytest.fixture
def checkout(tmp_path) -> Path:
    folder = tmp_path / "code"
    inner = folder / "pollination/core"
    inner.mkdir(parents=True)
    (inner / "a.py").write_text("a = 1\n")
    for words in (
        ("init", "--quiet"),
        ("add", "."),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "one"),
    ):
        subprocess.run(("git", *words), cwd=folder, check=True)
    return folder


def test_a_commit_that_git_reads(checkout, monkeypatch):
    known, trouble = commit.read(checkout / "pollination/core")
    assert len(known) == 40 and trouble is None
    (checkout / "pollination/core/a.py").write_text("a = 2\n")
    assert commit.read(checkout / "pollination/core") == (f"{known}+", None)
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert commit.git_commit(checkout / "pollination/core") == f"{known}+"


def test_a_checkout_of_another_user_has_its_commit_and_a_warning(checkout, capsys, monkeypatch):
    if os.geteuid():
        pytest.skip("giving a folder away needs root")
    known = commit.git_commit(checkout)
    for path in (checkout, checkout / ".git"):
        os.chown(path, 65534, 65534)
    monkeypatch.setenv("HOME", str(checkout))  # without the user's own exceptions
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in ("SUDO_UID", "GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS"):
        monkeypatch.delenv(name, raising=False)
    assert commit.git_commit(checkout / "pollination/core") == f"{known}?"
    commit.warn(checkout)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: git does not read the commit: ")
    assert f"git config --global --add safe.directory {checkout}" in line


@pytest.mark.parametrize("packed", [False, True])
def test_a_machine_without_git_reads_the_files_of_the_repository(checkout, monkeypatch, packed):
    known = commit.git_commit(checkout)
    if packed:
        subprocess.run(("git", "pack-refs", "--all"), cwd=checkout, check=True)
    tree = checkout.with_name("tree")
    subprocess.run(("git", "worktree", "add", "--quiet", str(tree)), cwd=checkout, check=True)
    monkeypatch.setenv("PATH", "/nowhere")
    for place in (checkout, tree / "pollination/core"):
        found, trouble = commit.read(place)
        assert found == f"{known}?" and "git cannot be started" in (trouble or "")


def test_a_folder_without_a_repository_is_unknown_and_no_news(tmp_path, capsys):
    commit.warn(tmp_path)
    assert commit.git_commit(tmp_path) == "unknown" and capsys.readouterr().err == ""
