"""What a failed job said: in its log, or on stderr before it opened its log."""

import atexit
import re
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import yaml
from snakemake.shell import shell

from snakemake_logger_plugin_pollination.deaths import COMMAND

LAST = 1 << 20  # bytes of a log that are searched
TAIL = 256  # bytes before the end that tell a continued log from a replaced one
RAISED = re.compile(
    r"^(?:error: .*|(?!RuleException|WorkflowError)[\w.]*(?:Error|Exception)(?:: .*)?)$", re.M
)
OS_ERRORS = ("OSError", *(kind.__name__ for kind in OSError.__subclasses__()))
OS_ERROR = re.compile(rf"(?:{'|'.join(OS_ERRORS)}): (?:\[Errno \d+\] )?")
RECORD = re.compile(r"^[\d-]{10} [\d:,.]+ (?:ERROR|CRITICAL) (.*)$")
NO_CONFIGFILE = re.compile(r"in load_configfile\b.*Error: \[Errno \d+\] (.*): '(.*)'\s*$", re.S)
UNREADABLE = "Config file is not valid JSON or YAML"
TRACEBACK = "Traceback (most recent call last):"


class Log:
    """A job's log, and how much of it earlier attempts wrote."""

    def __init__(self, path: str, start: int | None = None) -> None:
        self.path = path
        self.start, self.before = start or 0, b""
        if start is not None:
            return
        with suppress(OSError), open(path, "rb") as file:
            self.start = file.seek(0, 2)
            self.before = self._tail(file)

    def _tail(self, file: BinaryIO) -> bytes:
        file.seek(max(0, self.start - TAIL))
        return file.read(self.start - file.tell())

    def added(self) -> str:
        """Return what this attempt wrote, at most LAST bytes; all, if the log was replaced."""
        try:
            with open(self.path, "rb") as file:
                end = file.seek(0, 2)
                start = self.start if self._tail(file) == self.before else 0
                file.seek(max(start, end - LAST))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def append(self, *lines: str) -> bool:
        """Add lines to the log; return False if the disk does not allow it."""
        try:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a") as file:
                file.write("\n".join([*lines, ""]))
        except OSError:
            return False
        return True


def tail(path: Path) -> str:
    """Return the last LAST bytes of a file."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, 2) - LAST))
        return file.read().decode(errors="replace")


def last_error(text: str) -> str:
    """Return the last error of a job's log; of an exception with a traceback, its message."""
    for record in reversed(text.splitlines()):
        if match := RECORD.match(record):
            return match.group(1).strip()
    return ""


def last_raised(text: str) -> str:
    """Return the last error, or end of a traceback, in the output of Snakemake in a Slurm job."""
    found = RAISED.findall(text)
    return found[-1].removeprefix("error: ") if found else ""


def last_line(text: str) -> str:
    """Return the last line that is not empty."""
    return next((record.strip() for record in reversed(text.splitlines()) if record.strip()), "")


def of_system(text: str) -> str:
    """Return in one line why the system refused something to the driver; else an empty string.

    `text` is Snakemake's message with a traceback.
    """
    cause = explained(last_line(text)) if TRACEBACK in text else ""
    return f"error: {cause}" if cause else ""


def explained(raised: str) -> str:
    """Return the cause and the remedy for the last line of an OSError's traceback; else nothing.

    The project's own lines (core/causes.py) are used if the Snakefile has been read.
    """
    if not OS_ERROR.match(raised):
        return ""
    causes = sys.modules.get("pollination.core.causes")
    known = causes.explain(OSError(raised)) if causes else None
    if known is None and "No usable temporary directory" in raised:
        known = f"{raised}; free some space there, or type export TMPDIR=FOLDER with another folder"
    return known or OS_ERROR.sub("", raised)


def of_configfile(text: str) -> str:
    """Return in one line why Snakemake could not read a config file; else an empty string."""
    if UNREADABLE in text:
        return next(filter(None, map(_not_yaml, _configfiles(sys.argv))), "")
    if match := NO_CONFIGFILE.search(text):
        return (
            f"error: {match.group(2)}: {match.group(1).lower()}; name a config file, e.g. "
            "config/config.yaml"
        )
    return ""


def _configfiles(words: list[str]) -> list[str]:
    """Return the config files of a command line, which Snakemake's message does not name."""
    files: list[str] = []
    taking = False
    for word in words:
        option, _, value = word.partition("=")
        if option.startswith("-"):
            taking = len(option) > 8 and "--configfiles".startswith(option)
            files += [value] if taking and value else []
        elif taking:
            files.append(word)
    return files


def _not_yaml(path: str) -> str:
    """Return the line of a file that is not YAML; an empty string if it is YAML."""
    try:
        yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else path
        return f"error: {place}: not readable as YAML: {' '.join(str(error).split())}"
    return ""


class Stderr:
    """The jobs' stderr in one temporary file per job, named like its script.

    Jobs write their errors to their logs. Stderr has the rest: tracebacks of jobs that ended before
    they opened their logs, and warnings of libraries.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="snakemake-stderr."))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        name = "${{BASH_EXECUTION_STRING##*/}}"  # the braces are doubled for Snakemake's formatting
        path = f'"{self.folder}/{name}"'
        shell.prefix(f"{{{{ : 2>>{path}; }}}} 2>/dev/null && exec 2>>{path}; set -euo pipefail; ")

    def of(self, exception: str) -> Path | None:
        """Return the file of the job whose failure Snakemake reports as `exception`."""
        match = COMMAND.search(exception)
        return self.folder / match.group(1).rpartition("/")[2] if match else None

    def keep(self, log: Path) -> None:
        """Write what is left to a file beside Snakemake's own log."""
        texts = [
            f"{path.name}:\n{text}"
            for path in sorted(self.folder.iterdir())
            if (text := path.read_text(errors="replace"))
        ]
        if texts:
            name = log.name.removesuffix(".snakemake.log") + ".stderr.log"
            log.with_name(name).write_text("\n".join(texts))
