"""Where lm-eval's YAML files are read from: lm-eval's own folder, or a copy of a user's folder.

A staged task holds the text of the user's YAML and Python files (task.json, `files`). Every job
that loads the task unpacks them, so an evaluation runs the code that was staged, wherever it runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pollination.core.sanitize import line
from pollination.plan.benchmark_folder import Benchmark, merged


def task_root() -> Path:
    """The folder of lm-eval's built-in templates."""
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent


@dataclass(frozen=True)
class TemplateSource:
    """A folder of templates; `folder` is the user's, None where they are lm-eval's own."""

    root: Path
    folder: str | None = None

    def load(self, yaml: str) -> dict:
        """The keys of a template by its path in the folder, with its functions."""
        from lm_eval.tasks._yaml_loader import load_yaml

        def load(path: Path) -> dict:
            return load_yaml(path, recursive=False)

        if self.folder is None:
            return load_yaml(self.root / yaml)
        return merged(self.root / yaml, self.root, [], load)

    @contextmanager
    def blamed(self, yaml: str | None) -> Iterator[None]:
        """Whatever fails in a user's template is a ValueError of one line that names its file."""
        try:
            yield
        except (Exception, SystemExit) as error:
            if self.folder is None:
                raise
            kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
            reason = f"{kind}{error}".replace(str(self.root), self.folder).removeprefix("tasks: ")
            file = f"{self.folder}/{yaml}"
            said = reason if reason.startswith(file) else f"{file}: {reason}"
            raise ValueError(line("tasks: " + " ".join(said.split()))) from error


@contextmanager
def opened(folder: str | None, files: dict[str, str] | None) -> Iterator[TemplateSource]:
    """The user's files {path in the folder: text}, unpacked; lm-eval's own folder without any."""
    if folder is None:
        yield TemplateSource(task_root())
        return
    with TemporaryDirectory(prefix="pollination-") as place:
        root = Path(place).resolve()
        for name, text in (files or {}).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        yield TemplateSource(root, folder)


def texts(benchmark: Benchmark) -> dict[str, str]:
    """The files of a benchmark by their path in the folder."""
    contents = {}
    for name in benchmark.files:
        path = Path(benchmark.folder, name)
        try:
            contents[name] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ValueError(f"tasks: {path}: not readable as UTF-8 text: {error}") from None
    return contents
