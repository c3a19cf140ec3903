"""A job that was killed has a line that says by what, why, and what to type."""

import subprocess
import sys
from pathlib import Path

import pytest
from snakemake_logger_plugin_pollination import deaths, errors, homes

CODE = Path(deaths.__file__)
KILLED = "Command 'python a.py' died with <Signals.SIGKILL: 9>."
RUN = """\
import importlib.util, subprocess, sys
spec = importlib.util.spec_from_file_location("deaths", {code!r})
deaths = importlib.util.module_from_spec(spec)
spec.loader.exec_module(deaths)
kernel = deaths.Kernel()
subprocess.run([sys.executable, "-c", {child!r}])
print(deaths.how_it_ended({killed!r}, kernel))
print(deaths.how_it_ended({killed!r}, kernel))
"""
LIMITS = ("memory.max", "memory.limit_in_bytes")


@pytest.fixture
def small_memory():
    """A control group with 64 MiB below that of this process; the file that takes processes."""
    made = None
    for place in deaths._cgroup():
        group = place / "pollination-test"
        try:
            group.mkdir()
            made = group
            limit = next(group / name for name in LIMITS if (group / name).exists())
            limit.write_text(str(64 << 20))
            break
        except (OSError, StopIteration):
            if made:
                made.rmdir()
                made = None
    if made is None:
        pytest.skip("a limit of memory needs root and control groups")
    yield made / "cgroup.procs"
    made.rmdir()


def text(child: str) -> str:
    return RUN.format(code=str(CODE), child=child, killed=KILLED)


def test_a_job_that_the_kernel_killed_for_memory(small_memory):
    command = f'echo $$ > {small_memory} && exec {sys.executable} -c "$0"'
    child = "x = bytearray(100 << 20)"
    done = subprocess.run(["bash", "-c", command, text(child)], capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert first.startswith(
        "killed by SIGKILL, because memory ran out (the limit here is 0.1 GiB); start fewer jobs"
    )
    assert "not because memory ran out" in second  # the kernel counted one kill


def test_a_job_that_somebody_killed():
    done = subprocess.run(
        [sys.executable, "-c", text("import os; os.kill(os.getpid(), 9)")],
        capture_output=True,
        text=True,
    )
    if not Path("/proc/vmstat").exists():
        pytest.skip("only Linux counts these kills")
    assert "but not because memory ran out; a user or a service" in done.stdout


@pytest.mark.parametrize(
    ("exception", "said"),
    [
        ("Command 'a' returned non-zero exit status 1.", "exit status 1"),
        ("Command 'a' returned non-zero exit status 143.", "killed by SIGTERM"),
        (
            "Command 'a' returned non-zero exit status 135.",
            "killed by SIGBUS, often because a disk",
        ),
        ("Command 'a' died with <Signals.SIGXCPU: 24>.", "killed by SIGXCPU, because it reached"),
        ("Command 'a' returned non-zero exit status 255.", "exit status 255"),
        ("no command", ""),
    ],
)
def test_exit_statuses(exception, said):
    assert deaths.how_it_ended(exception).startswith(said)


TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"{TRACEBACK}PermissionError: [Errno 13] Permission denied: '.snakemake/locks'",
            "error: Permission denied: '.snakemake/locks'",
        ),
        (f"{TRACEBACK}OSError: [Errno 28] No space left on device", "error: No space left"),
        (f"{TRACEBACK}ZeroDivisionError: division by zero", ""),
        ("WorkflowError: no such rule", ""),
    ],
)
def test_an_error_of_the_system_in_the_driver_has_one_line(monkeypatch, text, said):
    monkeypatch.delitem(sys.modules, "pollination.core.causes", raising=False)
    line = errors.of_system(text)
    assert line.startswith(said) and "\n" not in line and bool(line) == bool(said)


def test_the_driver_uses_the_projects_lines():
    from pollination.core import causes

    sys.modules["pollination.core.causes"] = causes
    line = errors.of_system(f"{TRACEBACK}OSError: [Errno 122] Disk quota exceeded: 'results/a'")
    assert line.startswith("error: the disk quota is used up on the disk that holds results/a")


def test_no_temporary_folder_is_one_line():
    error = FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")
    line = homes.no_temporary(error)
    assert "no folder for temporary files is writable" in line and "export TMPDIR=" in line


def test_a_home_that_cannot_be_written_gives_temporary_caches(tmp_path, monkeypatch):
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("XDG_CACHE_HOME", "")
        monkeypatch.setenv("HF_TOKEN_PATH", "kept")
        assert "export XDG_CACHE_HOME=FOLDER" in homes.move_caches()
        assert homes.move_caches() == ""  # the new folder can be written
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
