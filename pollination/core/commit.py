"""Read which commit of the project a job runs, also where git refuses to say it."""

import os
import subprocess
import sys
from pathlib import Path

LONGEST_S = 60.0
OWN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # these would name another repository


def git_commit(folder: Path) -> str:
    """Return the commit of a checkout, as the record of a job names it."""
    return read(folder)[0]


def read(folder: Path) -> tuple[str, str | None]:
    """Return the commit of a checkout, and why git did not read it (None: git did).

    The commit ends with '+' if files differ from it, and with '?' if that is not known. It is
    'unknown' outside a checkout.
    """
    try:
        changed = _git(folder, "status", "--porcelain", "-uno")
        return _git(folder, "rev-parse", "HEAD") + ("+" if changed else ""), None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip() or f"git ended with status {error.returncode}"
    except subprocess.TimeoutExpired:
        reason = f"git did not answer within {LONGEST_S:.0f} s"
    except OSError as error:
        reason = f"git cannot be started: {os.strerror(error.errno or 0).lower()}"
    repository = next(
        (place / ".git" for place in (folder, *folder.parents) if (place / ".git").exists()), None
    )
    if repository is None:
        return "unknown", None
    known = _head(repository)
    if "dubious ownership" in reason:
        reason = (
            f"{repository.parent} belongs to another user; type git config --global --add "
            f"safe.directory {repository.parent}"
        )
    reason = reason.splitlines()[0].removeprefix("fatal: ")
    return f"{known}?" if known else "unknown", f"git does not read the commit: {reason}"


def date(folder: Path, commit: str) -> str | None:
    """Return the day of a commit that a record names, YYYY-MM-DD; None if git does not know it."""
    try:
        return _git(folder, "show", "--no-patch", "--format=%cs", commit.rstrip("+?"), "--")
    except (subprocess.SubprocessError, OSError):
        return None


def warn(folder: Path) -> None:
    """Print one line if git does not read the commit that the records will name."""
    known, trouble = read(folder)
    if trouble:
        print(f"warning: {trouble}; records say commit {known}", file=sys.stderr)


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ("git", *words),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=LONGEST_S,
        env={name: value for name, value in os.environ.items() if name not in OWN}
        | {"LC_ALL": "C"},
    )
    return done.stdout.strip()


def _head(repository: Path) -> str | None:
    """Return the commit that HEAD names in a repository's files; None if they do not say it."""
    try:
        if repository.is_file():  # a worktree's link to its folder in the repository
            linked = repository.read_text().removeprefix("gitdir:").strip()
            repository = repository.parent / linked
        head = (repository / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        reference = head.removeprefix("ref: ")
        common = repository
        if (repository / "commondir").is_file():
            common = repository / (repository / "commondir").read_text().strip()
        if (common / reference).is_file():
            return (common / reference).read_text().strip()
        for packed in (common / "packed-refs").read_text().splitlines():
            if packed.endswith(f" {reference}"):
                return packed.split()[0]
    except (OSError, UnicodeDecodeError):
        pass
    return None
