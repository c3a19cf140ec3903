"""The faults by name. Each says what it did, or None where there was nothing to break."""

from collections.abc import Callable

from tests.chaos.campaign import Campaign

Fault = Callable[[Campaign], str | None]
FAULTS: dict[str, Fault] = {}
CALM: set[str] = set()  # after these, the driver must show that it lives


def fault(function: Fault) -> Fault:
    FAULTS[function.__name__] = function
    return function


def calm(function: Fault) -> Fault:
    CALM.add(function.__name__)
    return fault(function)
