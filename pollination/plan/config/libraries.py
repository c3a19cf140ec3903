"""Read names that installed libraries know from their files, because importing them takes seconds.

If a library is not installed here, nothing is known, and the jobs check the names.
"""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pollination.plan.config.values import nearest

_MAPPING = re.compile(
    r"^MODEL_FOR_CAUSAL_LM_MAPPING_NAMES\b[^=]*=\s*OrderedDict\((.*?)^\)", re.M | re.S
)
_NAMED = re.compile(
    r"""^\s*-?\s*["']?(?:task|group|tag)["']?\s*:\s*["']?([^\s"'\[\]{},#]+)""", re.M
)


def _folder(library: str) -> Path | None:
    spec = find_spec(library)
    return Path(spec.origin).parent if spec and spec.origin else None


@cache
def causal_architectures() -> tuple[str, ...]:
    """Return the model types of transformers' causal language models; () if they are unknown."""
    folder = _folder("transformers")
    try:
        text = (
            (folder / "models/auto/modeling_auto.py").read_text(encoding="utf-8") if folder else ""
        )
        match = _MAPPING.search(text)
        return tuple(dict(ast.literal_eval(match.group(1).strip()))) if match else ()
    except (OSError, ValueError, SyntaxError):
        return ()


def check_architecture(key: str, architecture: str, mistakes: list[str]) -> None:
    """Check that transformers has a causal language model of this type."""
    known = causal_architectures()
    if known and architecture not in known:
        mistakes.append(
            f"{key}: {architecture!r} is not a causal language model of "
            f"transformers{nearest(architecture, list(known))}; allowed: the model types of its "
            "causal language models, e.g. llama, gpt2 or opt"
        )


def check_templates(templates: dict[str, str], mistakes: list[str]) -> None:
    """Check that lm-eval's files mention each template. `templates`: key of the config -> name.

    This reads all 14,000 files, in about a second. A name that they mention in another sense passes
    here; staging the task then refuses it.
    """
    folder = _folder("lm_eval")
    waiting = dict(templates)
    names: set[str] = set()
    for path in sorted(folder.glob("tasks/**/*.yaml")) if folder and waiting else ():
        text = path.read_text(encoding="utf-8", errors="replace")
        waiting = {key: name for key, name in waiting.items() if not _mentions(text, name)}
        if not waiting:
            return
        names.update(_NAMED.findall(text))
    for key, name in waiting.items() if names else ():
        mistakes.append(
            f"{key}: {name!r} is not a task, group or tag of lm-eval"
            f"{nearest(name, sorted(names))}; allowed: a name of its list (`lm-eval ls tasks`), "
            "e.g. winogrande; for a task of your own, set include_path"
        )


def _mentions(text: str, name: str) -> bool:
    return name in text and bool(re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", text))
