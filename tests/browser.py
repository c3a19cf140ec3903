"""A real headless Chromium: installed where it can be, and what a page does there: errors,
requests, pictures.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.packages import install

NAMES = ("chromium", "chromium-browser", "google-chrome")


@cache
def missing() -> str | None:
    """Why there is no Chromium here, or None; installs it with apt-get where that can be done."""
    if find():
        return None
    return install("chromium") or (None if find() else "Chromium was installed and is not found")


def find() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def opened(
    path: Path, width: int = 1280, height: int = 900, scripts: bool = True
) -> Iterator[tuple]:
    """(page, log): a file in a browser window; log collects what went wrong: errors, and requests
    to anywhere but the file itself.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=["--no-sandbox"])
        page, log = (
            browser.new_page(
                viewport={"width": width, "height": height}, java_script_enabled=scripts
            ),
            [],
        )
        page.on(
            "console",
            lambda message: (
                log.append(f"console {message.type}: {message.text}")
                if message.type == "error"
                else None
            ),
        )
        page.on("pageerror", lambda error: log.append(f"error: {error}"))
        page.on(
            "request",
            lambda request: (
                log.append(f"request: {request.url}")
                if request.url.startswith(("http", "ws", "ftp"))
                else None
            ),
        )
        page.goto(path.resolve().as_uri())
        yield page, log
        browser.close()
