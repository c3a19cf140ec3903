"""Call lm-eval without its warnings, its progress bars, its worker processes and a network.

Its templates are compiled once, and not once per question.
"""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from unittest.mock import patch


@contextmanager
def quiet() -> Iterator[None]:
    """Silence lm-eval's warnings, and its progress bars, which have no option.

    Its bootstrap then runs in this process, with the draws of its worker processes. Its templates
    are compiled once.
    """
    import lm_eval.api.metrics
    import lm_eval.api.task
    import lm_eval.utils

    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            patch.object(lm_eval.api.task, "tqdm", lambda items, **_: items),
            patch.object(lm_eval.utils, "apply_template", _apply_template),
            patch.object(lm_eval.api.metrics, "bootstrap_stderr", _bootstrap_stderr),
        ):
            yield
    finally:
        logger.setLevel(level)


@lru_cache(maxsize=1024)
def _compiled(template: str) -> Any:
    from lm_eval.utils import env

    return env.from_string(template)


def _apply_template(template: str, doc: dict) -> str:
    """Fill in a template of lm-eval as `lm_eval.utils.apply_template` does."""
    return _compiled(template).render(**doc)


def _bootstrap_stderr(function: Callable, items: list, iters: int) -> float:
    """Return lm-eval's bootstrap standard error; its chunk i of 1,000 draws has the seed i."""
    from lm_eval.api.metrics import _bootstrap_internal, sample_stddev

    size = min(1000, iters)
    draw = _bootstrap_internal(function, size)
    return sample_stddev([value for i in range(iters // size) for value in draw((i, items))])


@contextmanager
def offline() -> Iterator[None]:
    """Refuse connections, because evaluations run without a network."""

    def refuse(*_, **__):
        raise ConnectionError("it asks for a network, which evaluations do not have")

    with (
        patch.object(socket, "getaddrinfo", refuse),
        patch.object(socket.socket, "connect", refuse),
    ):
        yield
