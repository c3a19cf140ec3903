"""System packages that a test needs: installed with apt-get where that can be done."""

import os
import shutil
import subprocess


def install(*names: str) -> str | None:
    """Install packages as root; why that cannot be done, or None."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return (
            f"{names[0]} is not installed, and apt-get as root, which could install it, is not to "
            f"be had; packages: {' '.join(names)}"
        )
    for words in (
        ("apt-get", "update"),
        ("apt-get", "install", "-y", "--no-install-recommends", *names),
    ):
        try:
            done = subprocess.run(
                words,
                env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
                capture_output=True,
                text=True,
                timeout=600,
            )
        except subprocess.TimeoutExpired:
            return f"{' '.join(words)}: no end after 600 s"
        if done.returncode:
            return f"{' '.join(words)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}"
    return None
