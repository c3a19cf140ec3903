"""The terminal shows one line per job, one block per failure and one line after Ctrl-C."""

import logging
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from snakemake.settings.types import OutputSettings
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_logger_plugin_pollination import LogHandler, errors, names

from tests.conftest import ROOT, planned

SNAKEFILE = """\
rule all:
    input:
        expand("done/{experiment}.{gen}", experiment=config["experiments"], gen=[0, 1]),

rule train_child:
    output:
        "done/{experiment}.{gen}",
    log:
        "logs/{experiment}.{gen}.log",
    params:
        rate=config.get("rate", 1),
    script:
        "train.py"
"""
SCRIPT = """\
import logging, os, signal, sys, time
kind = snakemake.wildcards.experiment
open(f"started.{kind}.{snakemake.wildcards.gen}", "w").close()
if kind == "early":
    import a_module_that_is_not_there
if kind == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if kind == "starting":
    time.sleep(60)
logging.basicConfig(
    filename=snakemake.log[0], format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO
)
logging.info("step 1/40")
if kind == "fails":
    logging.error("error: train_child: train.tokens: too few")
    print("error: train_child: train.tokens: too few", file=sys.stderr)
    sys.exit(1)
def save(number, frame):
    name = signal.Signals(number).name
    logging.error("error: train_child: stopped by %s at step 3; checkpoint saved", name)
    sys.exit(1)
if kind == "slow":
    signal.signal(signal.SIGINT, save)
    time.sleep(60)
if kind == "waits":
    time.sleep(4)
print("a warning of a library", file=sys.stderr)
open(snakemake.output[0], "w").close()
"""
JOB = r"\d\d:\d\d:\d\d  \[{}/{}\]  {}  \(\d+ s\)"


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path


def words(folder: Path, *more: str, experiments: str = "quick") -> list[str]:
    base = [sys.executable, "-m", "snakemake", "-d", str(folder), "-s", str(folder / "Snakefile")]
    config = ["--config", f"experiments=[{experiments}]"]
    return [*base, "--logger", "pollination", "-k", "-c", "4", *more, *config]


def run(folder: Path, *more: str, status: int = 0, **given: str) -> list[str]:
    """The lines of a run; exit status `status`."""
    result = subprocess.run(
        words(folder, *more, **given), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert result.returncode == status and not set("\r\033") & set(result.stdout), result.stdout
    return result.stdout.splitlines()


def stop(folder: Path, sign: signal.Signals, group: bool, *started: str, experiments: str) -> list:
    """The lines after a signal to the driver, or to its process group; it ends with failure."""
    process = subprocess.Popen(
        words(folder, experiments=experiments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 60
    while not all((folder / f"started.{name}").exists() for name in started):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.1)
    time.sleep(1)
    (os.killpg if group else os.kill)(process.pid, sign)
    out, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "Traceback" not in out, out
    return out.splitlines()


@pytest.mark.slow
def test_a_dry_run_is_a_table_and_one_line_of_reasons(folder):
    lines = run(folder, "-n", experiments="quick, second")
    assert planned("\n".join(lines)) == {"train_child": 4, "all": 1, "total": 5}
    assert lines[-2] == "Reasons: 4 missing output; 1 input from a job above." and len(lines) < 10
    run(folder)
    assert run(folder, "-n")[-1].startswith("Nothing to be done")
    (folder / "done/quick.1").unlink()
    config = folder / "rate.yaml"
    config.write_text("rate: 2\n")
    lines = run(folder, "-n", "--configfile", str(config))
    assert lines[-2] == (
        "Reasons: 1 changed params (train_child); 1 input from a job above; 1 missing output."
    )


def test_a_run_is_one_line_a_job(folder):
    lines = run(folder)
    assert lines[0] == "3 jobs to run on 4 cores" and len(lines) == 5
    assert all(
        re.fullmatch(JOB.format(n, 3, r"train_child quick gen[01]"), lines[n]) for n in (1, 2)
    )
    assert re.fullmatch(JOB.format(3, 3, "all"), lines[3])
    assert re.fullmatch(r"Finished: 3 jobs in \d+ s\.", lines[4])
    (stderr,) = (folder / ".snakemake/log").glob("*.stderr.log")
    assert stderr.read_text().count("a warning of a library") == 2


def test_a_terminal_has_one_progress_line_that_is_rewritten(folder):
    ours, theirs = pty.openpty()
    with subprocess.Popen(words(folder, experiments="waits"), stderr=theirs, stdout=theirs):
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 4096):
                text += part
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    assert b"\r\033[K[0/3]  " in text and b"2 running: train_child waits gen" in text
    shown = [line.rpartition(b"\033[K")[2].decode() for line in text.split(b"\r\n")]
    assert len(shown) == 6 and shown[4].startswith("Finished: 3 jobs") and shown[5] == ""


def test_a_failure_is_one_block_with_its_last_error_and_its_log(folder):
    lines = run(folder, experiments="quick, fails, early, killed", status=1)
    text = "\n".join(lines)
    for kind, error in (
        ("fails", "train.tokens: too few"),
        ("early", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("killed", "killed by SIGKILL, "),
    ):
        for gen in (0, 1):
            block = rf"failed: train_child {kind} gen{gen}  \(\d+ s\)\n  error: ([^\n]*)\n"
            (found,) = re.findall(rf"{block}  log: logs/{kind}\.{gen}\.log\n", text)
            assert error in found
    (summary,) = [n for n, line in enumerate(lines) if line.startswith("6 of 9 jobs failed")]
    assert lines[summary].endswith("2 finished, 1 not started.")
    assert sorted(lines[summary + 1 : summary + 7])[0] == (
        "  train_child early gen0  (log logs/early.0.log)"
    )
    assert lines[summary + 8].startswith("Complete log: ") and len(lines) == summary + 9
    assert len(lines) == 1 + 2 + 6 * 3 + 9 and "Traceback" not in text
    assert "Traceback" in (folder / "logs/early.0.log").read_text()


def test_ctrl_c_prints_one_line_and_the_same_command_resumes(folder):
    started = [f"{kind}.{gen}" for kind in ("slow", "starting") for gen in (0, 1)]
    lines = stop(folder, signal.SIGINT, True, *started, experiments="slow, starting")
    assert lines == [
        "5 jobs to run on 4 cores",
        "Stopped: 4 jobs were running; 2 saved a checkpoint. Type the same command to resume.",
    ]
    script = (folder / "train.py").read_text().replace("sleep(60)", "sleep(0)")
    (folder / "train.py").write_text(script)
    more = ("--rerun-incomplete", "--rerun-triggers", "mtime")
    assert run(folder, *more, experiments="slow, starting")[-1].startswith("Finished: 5 jobs")


def test_sigterm_waits_for_the_running_jobs_and_says_so(folder):
    lines = stop(folder, signal.SIGTERM, False, "waits.0", "waits.1", experiments="waits")
    assert lines[1].startswith("Stopping: 2 jobs still running;") and lines[-1] == (
        "Stopped. Type the same command to resume."
    )
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rule a:\n    output 'a'\n", "SyntaxError"),
        ("import sys\nsys.exit('error: a.yaml: population: 6 is no square')\n", "6 is no square"),
        ("rule a:\n    input: 'b'\n    output: 'a'\n", "MissingInputException"),
        ("rule a:\n    input: lambda w: 1 / 0\n    output: 'a'\n", "ZeroDivisionError"),
        ("rule a:\n    output: 'a'\n    shell: 'true'\n", "Job 0 completed successfully, but"),
    ],
)
def test_an_error_of_the_workflow_is_shown_in_full(folder, text, said):
    (folder / "Snakefile").write_text(text)
    assert said in "\n".join(run(folder, "--latency-wait", "1", status=1))


def test_a_config_file_that_is_absent_or_no_yaml_is_one_line(folder):
    """Snakemake reads it before it reads the Snakefile, and says neither file nor line."""
    (folder / "tab.yaml").write_text("run: x\n\tdevice: cpu\n")
    for name, said in (
        ("absent.yaml", "error: absent.yaml: no such file or directory; name a config file"),
        (str(folder / "tab.yaml"), f"error: {folder}/tab.yaml:2: not readable as YAML: "),
    ):
        lines = run(folder, "--configfile", name, status=1)
        told = [line for line in lines if not line.startswith("Using profile")]
        assert len(told) == 1 and told[0].startswith(said), lines


def test_a_locked_folder_says_what_to_type(folder):
    run(folder)
    (folder / "done/quick.0").unlink()
    locks = folder / ".snakemake/locks"
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text("done/quick.0\n")
    lines = run(folder, status=1)
    assert "Directory cannot be locked" in "".join(lines)
    assert "type: snakemake --unlock" in lines[-2]
    assert run(folder, "--unlock")[-1].startswith("Unlocked working directory")
    run(folder)


def test_quiet_verbose_and_dag_work(folder):
    assert run(folder, "--quiet") == []
    (folder / "done/quick.0").unlink()
    text = "\n".join(run(folder, "--verbose"))
    assert "rule train_child:" in text and "of 2 steps (100%) done" in text
    assert run(folder, "--dag", "dot")[-1].strip() == "}"


def test_a_profile_falls_back_to_snakemakes_output_where_the_logger_is_not_installed(folder):
    hidden = (
        "import sys; own = sys.argv[1].split(); "
        "sys.path = [path for path in sys.path if path and path not in own]; "
        "from snakemake.cli import main; main(sys.argv[2:])"
    )
    for name in ("local", "slurm"):
        profile = ROOT / f"profiles/{name}/config.yaml"
        assert yaml.safe_load(profile.read_text())["__use_yte__"]
    typed = words(folder, "--profile", str(ROOT / "profiles/local"), "-n")[3:]
    typed = [word for word in typed if word not in ("--logger", "pollination")]
    own = " ".join(str(ROOT / "workflow" / name) for name in ("logger", "executor"))
    result = subprocess.run(
        [sys.executable, "-c", hidden, own, *typed],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0 and "Job stats:" in result.stdout, result.stderr
    shown = subprocess.run(
        [sys.executable, "-m", "snakemake", *typed], capture_output=True, text=True, check=True
    )
    assert "3 jobs to run:" in shown.stdout


def handler(capsys) -> tuple[LogHandler, list]:
    """A handler, and a function that hands it a record of Snakemake's."""

    def tell(text: str, event: LogEvent | None = None, level: int = logging.INFO, **data) -> str:
        record = logging.LogRecord("snakemake", level, "", 0, text, (), None)
        record.__dict__ |= {"event": event, **data}
        ours.handle(record)
        return capsys.readouterr().err

    ours = LogHandler(OutputSettings(), None)
    return ours, tell


def test_slurm_jobs_have_their_number_and_the_path_of_their_log(capsys, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    ours, tell = handler(capsys)
    try:
        log = tmp_path / "train.log"
        info = {"rule_name": "train_child", "wildcards": {"experiment": "a", "gen": 1}}
        tell("", LogEvent.RUN_INFO, stats={"train_child": 2, "total": 2})
        tell("", LogEvent.JOB_INFO, jobid=7, log=[str(log)], reason="", **info)
        said = tell("Job 7 has been submitted with SLURM jobid 123 (log: slurm/123.log).")
        assert said[10:] == f"submitted: train_child a gen1  (Slurm job 123, log {log})\n"
        message = "SLURM-job '123' failed, SLURM status is: 'TIMEOUT'."
        failure = {"jobid": 7, "rule_name": "train_child", "rule_msg": message, "indent": False}
        logs = [str(log), "slurm/123.log"]
        said = tell("", LogEvent.JOB_ERROR, level=40, log=logs, **failure)
        assert "(0 s since submission, Slurm job 123)" in said and message[:-1] in said
        assert said.endswith("  log: slurm/123.log\n")
        assert tell("Trying to restart job 7.")[10:] == "retry: train_child a gen1\n"
        tell("", LogEvent.JOB_INFO, jobid=7, log=[str(log)], reason="", **info)
        log.write_text("2026-01-01 00:00:00,000 ERROR error: train_child: no text\n")
        said = tell("", LogEvent.JOB_ERROR, level=40, log=logs, **failure)
        assert said.endswith(f"  error: no text\n  log: {log}\n")
        tell("", LogEvent.JOB_INFO, jobid=7, log=[str(log)], reason="", **info)
        log.write_text("2026-01-01 00:00:01,000 ERROR error: train_child: no disk\n")  # replaced
        assert "error: no disk" in tell("", LogEvent.JOB_ERROR, level=40, log=logs, **failure)
        tell("", LogEvent.JOB_INFO, jobid=7, log=[str(log)], reason="", **info)
        tell("Job 7 has been submitted with SLURM jobid 124 (log: slurm/124.log).")
        said = tell("", LogEvent.JOB_FINISHED, job_id=7)
        assert said[10:] == "[1/2]  train_child a gen1  (0 s since submission, Slurm job 124)\n"
        warning = "Job '124' failed with status 'NODE_FAIL', but requeue is enabled."
        assert tell(warning, level=30) == f"{warning}\n"
    finally:
        ours.close()
        signal.signal(signal.SIGINT, before)
        errors.shell._process_prefix = None


def test_names_and_durations():
    assert names.job("generate_shard", {"experiment": "a", "gen": "1", "rank": "0"}) == (
        "generate_shard a gen1 parent0"
    )
    assert names.job("evaluate_member", {"place": "a/gen1", "member": 3}) == (
        "evaluate_member a gen1 member3"
    )
    assert [names.duration(s) for s in (0.4, 59.7, 3599, 7261)] == [
        "0 s",
        "1 min 00 s",
        "59 min 59 s",
        "2 h 01 min",
    ]


def test_an_error_after_a_job_is_no_finished_run(folder):
    (folder / "Snakefile").write_text(
        'rule all:\n  output: ensure("x", non_empty=True)\n  shell: "touch x"\n'
    )
    lines = run(folder, status=1)
    assert not [line for line in lines if line.startswith("Finished")], lines
    assert "Ended with an error; 1 job did not finish." in lines


def test_a_job_that_writes_much_keeps_its_error_and_is_cut_on_the_terminal(folder):
    (folder / "train.py").write_text(
        "import sys\n"
        "open(snakemake.log[0], 'w').writelines(f'{n} log\\n' for n in range(20_000))\n"
        "sys.stderr.writelines(f'{n} err\\n' for n in range(60_000))\n"
        "sys.exit('y' * 3_000_000)\n"
    )
    lines = run(folder, status=1)
    assert len("".join(lines)) < 20_000 and sum("error: yyy" in line for line in lines) == 2


def test_a_closed_stream_does_not_change_the_exit_status(folder):
    typed = " ".join(f"'{word}'" for word in words(folder))
    done = subprocess.run(["bash", "-c", f"{typed} 2>&-"], stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert (folder / "done" / "quick.0").exists()
