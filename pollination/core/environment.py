"""Read numbers from environment variables."""

import math
import os


def number(name: str, default: float, least: float, most: float = math.inf) -> float:
    """Return the finite number of an environment variable; `default` if it is unset.

    ValueError: it is no number, below `least` or above `most`.
    """
    text = os.environ.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (least <= value <= most and math.isfinite(value)):
        allowed = f"at least {least:g}" if most == math.inf else f"{least:g} to {most:g}"
        raise ValueError(
            f"the environment variable {name} is {text!r}; allowed: a number, {allowed}; unset it "
            f"for the default, {default:g}"
        )
    return value
