"""Read lm-eval's YAML files from lm-eval's own folder, or from a copy of a user's folder.

A staged task holds the text of the user's YAML and Python files (task.json, `files`). Every job
that loads the task unpacks them, so an evaluation runs the staged code on any machine.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pollination.core.sanitize import line
from pollination.evaluation.lm_eval_calls import offline
from pollination.plan.benchmark_folder import Benchmark
from pollination.plan.benchmark_tasks import unsupported
from pollination.plan.benchmark_yaml import merged


def task_root() -> Path:
    """Return the folder of lm-eval's built-in templates."""
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent


@dataclass(frozen=True)
class TemplateSource:
    """A folder of templates; `folder` is the user's, or None for lm-eval's own."""

    root: Path
    folder: str | None = None

    def load(self, yaml: str, name: str | None = None) -> dict:
        """Return the keys of a template, with its functions; `yaml` is its path in the folder.

        ValueError: a built-in template, task `name`, has keys that are not supported, or its
        functions need a package that is not installed or a network.
        """
        from lm_eval.tasks._yaml_loader import load_yaml

        def load(path: Path) -> dict:
            return load_yaml(path, recursive=False)

        if self.folder is None:
            if reason := unsupported(load_yaml(self.root / yaml, resolve_func=False)):
                raise ValueError(f"task template {name!r} ({yaml}): {reason}")
            try:
                with offline():
                    return load_yaml(self.root / yaml)
            except (ImportError, OSError) as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise ValueError(
                    line(
                        f"task template {name!r} ({yaml}) needs a package that is not installed, "
                        f"or a network ({reason}); choose another template"
                    )
                ) from error
        return merged(self.root / yaml, self.root, [], load)

    @contextmanager
    def blamed(self, yaml: str | None) -> Iterator[None]:
        """Turn any failure in a user's template into a one-line ValueError that names the file."""
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
    """Unpack the user's files {path in the folder: text}; without them, use lm-eval's folder."""
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
    """Return the texts of a benchmark's files by their path in the folder."""
    contents = {}
    for name in benchmark.files:
        path = Path(benchmark.folder, name)
        try:
            contents[name] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ValueError(
                f"tasks: {path}: not readable as UTF-8 text ({error}); save the file as UTF-8"
            ) from None
    return contents
