"""Jobs that are forks of one process: each is what a new interpreter would be."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from snakemake import benchmark

from pollination.core import resume, warm
from pollination.core.warm import Fork, Subprocess
from tests.conftest import ROOT
from tests.slurm import ended, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no worker")

ABOUT = """
import json, os, resource, signal, sys, tempfile, threading
ignored = [n for n in (1, 2, 10, 12, 13, 15, 17) if signal.getsignal(n) == signal.SIG_IGN]
about = {
    "env": dict(os.environ), "folder": os.getcwd(), "umask": os.umask(0), "argv": sys.argv,
    "path": sys.path[:1] + sys.path[2:], "name": __name__, "file": __file__, "ignored": ignored,
    "files": resource.getrlimit(resource.RLIMIT_NOFILE), "threads": threading.active_count(),
    "temporary": tempfile.gettempdir(), "main": sys.modules["__main__"].__dict__ is globals(),
    "command": open("/proc/self/cmdline").read().rstrip("\\0").split("\\0"),
    "streams": [sys.stdout.line_buffering, sys.stderr.line_buffering, sys.stdin.closed],
}
for number in range(64):
    try:
        if os.get_inheritable(number):
            about.setdefault("inherited", []).append(number)
    except OSError:
        pass  # it is not open
json.dump(about, open("NAME", "w"))
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start a script as Snakemake does: (text of the script, folder of its stderr) -> process."""
    scripts = tmp_path / ".snakemake/scripts"
    scripts.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    module = Subprocess(sys.__stdout__)
    count = 0

    def begin(text: str, errors: Path | None = None, kind: str = "py", **env: str):
        nonlocal count
        count += 1
        script = scripts / f"job{count}.{kind}"
        script.write_text(text)
        path = f'"{errors}/${{BASH_EXECUTION_STRING##*/}}"'
        redirect = f"{{ : 2>>{path}; }} 2>/dev/null && exec 2>>{path}; " if errors else ""
        return module.Popen(
            f"trap '' INT; {redirect}set -euo pipefail;  {sys.executable} {script}",
            shell=True,
            executable="/bin/bash",
            stdout=sys.__stdout__,
            env=dict(os.environ) | env,
        )

    begin.worker = module.worker
    yield begin
    if process := module.worker.process:
        process.kill()
        process.wait()


def test_a_fork_is_as_a_new_interpreter_would_be(start, tmp_path):
    """Also one that stayed after a job that has changed what a process can change."""
    about, spoils = {}, "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.chdir('/')\n"
    spoils += "from pollination.core import warm\nwarm.stays = True\nos.environ['X'] = '1'\n"
    spoils += "tempfile.tempdir = '/'\nsys.path.insert(0, 'x')\nsys.argv.append('x')\n"
    spoils += "sys.stderr.flush(), os.dup2(os.open(os.devnull, os.O_RDWR), 2), os.umask(0o777)\n"
    processes = {}
    for name, after, fork in (("warm", spoils, 1), ("again", "", 1), ("fresh", "", 0)):
        start.worker.serves = bool(fork)
        job = start(ABOUT.replace("NAME", name) + f"\n{after}", TMPDIR=str(tmp_path))
        assert isinstance(job, Fork) == bool(fork) and job.wait() == 0
        processes[name] = job.pid
        about[name] = json.loads(Path(name).read_text())
        for key in ("argv", "file", "command"):
            about[name][key] = re.sub(r"job\d", "job", str(about[name][key]))
        for key in ("_", "SHLVL"):  # bash's own
            about[name]["env"].pop(key, None)
    assert processes["warm"] == processes["again"] != processes["fresh"]
    assert about["warm"] == about["fresh"] and about["again"] == about["fresh"]


STAYS = "import os\nfrom pollination.core import warm\nwarm.stays = True\n"
# A file of this name is what a worker takes for a device of an NVIDIA driver.
HOLDS_GPU = "os.makedirs('dev')\nos.held = open('dev/nvidia0', 'w')\n"


def test_a_process_that_stays_runs_the_next_job_of_its_script(start):
    say = "import sys\nopen('said', 'w').write(str(getattr(os, 'kept', 0)))\nos.kept = {}\n"
    first = start(STAYS + say.format(1))
    assert first.wait() == 0 and Path("said").read_text() == "0"
    second = start(STAYS + say.format(2))
    assert second.wait() == 0 and second.pid == first.pid and Path("said").read_text() == "1"
    first.kill()  # of a job that has ended: nothing, although the process lives
    third = start(STAYS + "import sys; sys.exit(3)")
    assert third.wait() == 3 and third.pid == first.pid
    fourth = start("import os\n" + say.format(4))  # no process stays after a failure
    assert fourth.wait() == 0 and fourth.pid != first.pid and Path("said").read_text() == "0"


@pytest.mark.parametrize("end", ["another script", "killed", "time", "driver"])
def test_a_process_that_waits_ends(start, end):
    """A job of another script needs its GPU. A killed one takes no job along."""
    limit = {"POLLINATION_STAY_S": "0.2"} if end == "time" else {}
    job = start(STAYS + (HOLDS_GPU if end == "another script" else ""), **limit)
    waiting = psutil.Process(job.pid)
    assert job.wait() == 0
    worker = start.worker
    if end == "another script":
        other = start(
            "import os, sys\nsys.exit(os.path.exists('/proc/PID'))".replace("PID", str(job.pid)),
            kind="other.py",
        )
        assert other.wait() == 0 and other.pid != job.pid
    elif end == "killed":
        waiting.kill()
        ended(waiting, 60)
        again = start(STAYS)
        assert again.wait() == 0 and again.pid != job.pid
    elif end == "driver":
        worker.socket.close()
        assert worker.process.wait(60) == 0
    assert ended(waiting, 60)


def test_a_process_without_gpu_waits_through_jobs_of_other_scripts(start):
    first = start(STAYS)
    assert first.wait() == 0
    other = start("", kind="other.py")
    assert other.wait() == 0 and other.pid != first.pid
    again = start(STAYS)
    assert again.wait() == 0 and again.pid == first.pid


def test_a_process_killed_in_a_later_job_ends_this_job_alone(start):
    first = start(STAYS)
    assert first.wait() == 0
    second = start(STAYS + "import signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert second.wait() == -signal.SIGKILL and first.wait() == 0 and second.pid == first.pid
    third = start(STAYS)
    assert third.wait() == 0 and third.pid != first.pid


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('no text')", 1, "no text\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("a b", 1, "SyntaxError: invalid syntax\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("import os; os._exit(7)", 7, ""),
        ("import threading, time; threading.Timer(0.2, print, ['x']).start()", 0, ""),
    ],
)
def test_how_a_job_ends(start, tmp_path, text, status, said):
    job = start(text, tmp_path)
    assert job.wait() == status and job.returncode == status
    assert isinstance(job, Fork)
    assert (tmp_path / "job1.py").read_text().endswith(said)


def test_a_signal_reaches_the_job_alone(start):
    wait = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n"
    wait += "open('READY', 'w')\ntime.sleep(60)"
    jobs = [start(wait.replace("READY", name)) for name in ("first", "second")]
    until(lambda: Path("first").exists() and Path("second").exists(), 60, "both jobs work")
    assert len({psutil.Process(job.pid).ppid() for job in jobs} | {os.getpid()}) == 2
    jobs[0].terminate()
    assert jobs[0].wait() == 9
    assert jobs[1].returncode is None and psutil.pid_exists(jobs[1].pid)
    jobs[1].kill()
    assert jobs[1].wait() == -signal.SIGKILL
    jobs[1].kill()  # of a job that has ended: nothing


def test_a_worker_that_dies_takes_its_jobs_along_and_new_interpreters_run_them(start, tmp_path):
    text = "import os, time\nopen('runs', 'a').write(f'{os.getppid()} ')\n"
    text += "time.sleep(60 * (len(open('runs').read().split()) == 1))"
    job = start(text)
    until(lambda: Path("runs").exists() and Path("runs").read_text(), 60, "the job works")
    first = psutil.Process(job.pid)
    worker = start.worker
    worker.process.kill()
    assert job.wait() == 0 and ended(first, 10)
    fork, again = map(int, Path("runs").read_text().split())
    assert fork == worker.process.pid and again == os.getpid()
    last = start("")
    assert not isinstance(last, Fork) and last.wait() == 0


def test_a_worker_that_does_not_answer_is_not_waited_for(start, monkeypatch):
    start("").wait()
    worker = start.worker
    worker.process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(warm, "START_S", 0.2)
    job = start("open('runs', 'a').write('x')")
    assert not isinstance(job, Fork) and job.wait() == 0
    assert worker.process.wait(60) == -signal.SIGKILL  # it would run the job again
    assert Path("runs").read_text() == "x"


def test_another_environment_needs_a_new_interpreter(start):
    """Libraries read variables when they are imported."""
    assert isinstance(start("", A="1"), Fork)
    assert not isinstance(start("", A="2"), Fork)
    assert isinstance(start("", A="1", TMPDIR="/"), Fork)


def test_libraries_use_the_threads_of_the_job(start):
    """As in a new interpreter, also after another job in the same process."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    text = STAYS + "from threadpoolctl import threadpool_info\nimport numpy, pyarrow, torch\n"
    text += "found = sorted(str([x['user_api'], x['num_threads']]) for x in threadpool_info())\n"
    text += "found += [torch.get_num_threads(), torch.__config__.parallel_info()]\n"
    text += "found += [pyarrow.cpu_count()]\n"
    text += "open('said', 'w').write('\\n'.join(map(str, found)))\n"
    for counts in (("1", "1"), ("2", "2"), ("1", "2"), ("1", "1")):
        said = []
        for fork in (True, False):
            start.worker.serves = fork
            job = start(text, **dict(zip(names, counts, strict=True)))
            assert isinstance(job, Fork) == fork and job.wait() == 0
            said.append(Path("said").read_text())
        assert said[0] == said[1]


def test_a_job_that_changes_what_libraries_read_at_their_import_is_started_again(start):
    """As a job that may use the network."""
    text = (
        "import logging, os\nfrom pollination.core import caches, warm\nbefore = dict(os.environ)\n"
    )
    text += "caches.offline()\ncaches.prepare(logging.getLogger())\nos.environ |= CHANGE\n"
    text += "warm.restart_if_other(before)\n"
    text += "open('said', 'w').write(str(warm.imported_with is None))\n"
    for change, again in (
        ({}, False),
        ({"TMPDIR": "/tmp", "RAYON_NUM_THREADS": "2"}, False),
        ({"HF_HUB_OFFLINE": "0"}, True),
        ({"OMP_NUM_THREADS": "3"}, False),
    ):
        job = start(
            text.replace("CHANGE", repr(change)), OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="2"
        )
        assert isinstance(job, Fork) and job.wait() == 0
        assert Path("said").read_text() == str(again)


def test_what_a_job_imports_later_jobs_have(start, tmp_path):
    (tmp_path / "own.py").write_text("")
    say = "import sys\nopen('said', 'w').write(str([n in sys.modules for n in NAMES]))\n"
    say = say.replace("NAMES", "('pollination.core.slurm', 'pollination.core.seeds', 'own')")
    path = f"sys.path.extend([{str(tmp_path)!r}])\n"
    late = "__import__('importlib').import_module('pollination.core.seeds')\n"
    late += "__import__('importlib').import_module('own')\n"
    start(say + path + late).wait()
    assert Path("said").read_text() == "[False, False, False]"

    def learnt() -> bool:
        start(say + path).wait()
        return Path("said").read_text() == "[False, True, False]"

    until(learnt, 60, "the worker imports what the job imported")  # `own` is the user's
    start(say + path + "if 0: import pollination.core.slurm, own").wait()
    assert Path("said").read_text() == "[True, True, True]"


def test_a_worker_with_a_second_thread_serves_no_more(start, tmp_path):
    """A fork would hold the locks of a thread that it lacks."""
    (tmp_path / "threaded.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    assert isinstance(start(""), Fork)
    text = f"import sys\nsys.path.extend([{str(tmp_path)!r}])\nif 0: import threaded"
    for _ in range(2):
        job = start(text)
        assert not isinstance(job, Fork) and job.wait() == 0


def test_the_end_of_a_job_is_not_the_end_of_what_the_worker_imported(start, tmp_path):
    (tmp_path / "held.py").write_text(
        "import atexit, tempfile, weakref\n"
        "folder = tempfile.TemporaryDirectory()\n"
        "atexit.register(lambda: open('ended', 'a').write('x'))\n"
    )
    text = f"import sys\nsys.path.extend([{str(tmp_path)!r}])\nimport held, os\n"
    text += "assert os.path.isdir(held.folder.name)"
    for _ in range(2):
        job = start(text)
        assert isinstance(job, Fork) and job.wait() == 0
    assert not Path("ended").exists()


def test_jobs_of_a_killed_driver_go_on_and_the_worker_ends_after_them(tmp_path):
    script = tmp_path / ".snakemake/scripts/job.py"
    script.parent.mkdir(parents=True)
    script.write_text(
        "import os, time\nopen('worker', 'w').write(str(os.getppid()))\n"
        "while not os.path.exists('go'): time.sleep(0.05)\nopen('done', 'w')\n"
    )
    program = (
        "import os, sys\n"
        "from pollination.core.warm import Subprocess\n"
        f"command = 'set -euo pipefail;  {sys.executable} {script}'\n"
        "module = Subprocess(sys.stdout)\n"
        "module.Popen(command, shell=True, stdout=sys.stdout, env=dict(os.environ)).wait()"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=env)
    worker = tmp_path / "worker"
    until(lambda: worker.exists() and worker.read_text(), 60, "the job works")
    process = psutil.Process(int(worker.read_text()))
    driver.kill()
    driver.wait()
    time.sleep(0.5)
    assert process.is_running() and not (tmp_path / "done").exists()
    (tmp_path / "go").touch()
    until((tmp_path / "done").exists, 60, "the job ends")
    assert ended(process, 60)


def test_the_prefixes_of_this_project_leave_jobs_forks(tmp_path):
    """The logger and the handling of Ctrl-C change the command of each job."""
    script = tmp_path / ".snakemake/scripts/tmp0.job.py"
    script.parent.mkdir(parents=True)
    script.write_text(
        "import os, sys\nopen('parent', 'w').write(open(f'/proc/{os.getppid()}/cmdline').read())\n"
        "print('said', file=sys.stderr)"
    )
    (tmp_path / "driver.py").write_text(
        "import sys\nfrom snakemake.shell import shell\n"
        "from snakemake_logger_plugin_pollination import errors\n"
        "from pollination.core import interrupts, warm\n"
        "shell.executable('bash')\nstderr = errors.Stderr()\n"
        "interrupts.install(shell)\nwarm.install(shell)\n"
        f"shell('{{py_exec}} {{fname:q}}', py_exec=sys.executable, fname='{script}')\n"
        "print((stderr.folder / 'tmp0.job.py').read_text())\n"
    )
    words = [sys.executable, "driver.py"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout == "said\n\n" and not done.stderr
    assert "pollination worker" in (tmp_path / "parent").read_text()
    subprocess.run(words, cwd=tmp_path, env=env | {warm.SWITCH: "0"}, check=True)
    assert "pollination worker" not in (tmp_path / "parent").read_text()


def test_a_command_with_more_than_a_script_goes_to_the_shell():
    module = Subprocess(sys.__stdout__)
    module.worker = SimpleNamespace(fork=lambda *_: pytest.fail("it forks"))
    script = f"{sys.executable} x/{warm.SCRIPTS}a.py"
    for command in (
        f"set -euo pipefail;  module load a; {script}",
        f"set -euo pipefail;  {script} | tee b",
        f"source activate a && set -euo pipefail;  {script}",
        f"set -euo pipefail;  conda run {script}",
        "set -euo pipefail;  echo a",
    ):
        quiet = {"stderr": subprocess.DEVNULL}
        job = module.Popen(f"false; {command}", shell=True, stdout=sys.__stdout__, env={}, **quiet)
        assert isinstance(job, subprocess.Popen)
        job.wait()


@pytest.mark.parametrize("value", ["inf", "1e12", "nan", "-1", "soon"])
def test_the_driver_refuses_a_time_that_nobody_can_wait(monkeypatch, value):
    """An infinite wait would end the worker, with all jobs that it runs."""
    monkeypatch.setenv(warm.STAY, value)
    with pytest.raises(SystemExit, match=f"POLLINATION_STAY_S is '{value}'; .* 0 to 86400; "):
        warm.install(subprocess)


def test_the_intervals_of_saves_are_checked(monkeypatch):
    for value in ("nan", "-1", "often", ""):
        monkeypatch.setenv("POLLINATION_SAVE_EVERY_S", value)
        with pytest.raises(ValueError, match="POLLINATION_SAVE_EVERY_S is .* at least 0; unset it"):
            resume.save_every_s()
    monkeypatch.delenv("POLLINATION_SAVE_EVERY_S")
    assert resume.save_every_s(7) == 7


def test_a_job_is_measured_without_a_walk_through_its_pages(monkeypatch):
    monkeypatch.setattr(psutil.Process, "memory_full_info", psutil.Process.memory_full_info)
    record = benchmark.BenchmarkRecord()
    process = subprocess.Popen(["sleep", "60"])
    try:
        with warm._of_one_job(benchmark.benchmarked)(process.pid, record):
            pass
    finally:
        process.kill()
        process.wait()
    said = dict(zip(record.get_header(), record.to_tsv(False).split("\t"), strict=True))
    assert float(said["max_rss"]) > 0 and said["max_uss"] == said["max_pss"] == "-"


def test_a_job_that_has_ended_before_it_is_measured_is_no_failure(monkeypatch):
    monkeypatch.setattr(psutil.Process, "memory_full_info", psutil.Process.memory_full_info)
    process = subprocess.Popen(["true"])
    process.wait()  # as a fork, of which its worker takes the end
    record = benchmark.BenchmarkRecord()
    with warm._of_one_job(benchmark.benchmarked)(process.pid, record):
        pass
    assert record.to_tsv(False).split("\t")[1:3] == ["0:00:00", "NA"]
