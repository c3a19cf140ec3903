"""The stream: lines that stay, and on a terminal one last line that is rewritten."""

import os
import shutil
from contextlib import suppress
from typing import TextIO

CLEAR = "\r\033[K"


class Screen:
    """Writes to a stream; `live` is whether it is a terminal that can rewrite a line."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream or open(os.devnull, "w")  # noqa: SIM115  closed, as by `2>&-`
        self.live = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.text = ""

    def print(self, text: str) -> None:
        """Write lines that stay, above the status line."""
        self._write(f"{CLEAR if self.text else ''}{text}\n{self.text}")

    def status(self, text: str) -> None:
        """Replace the status line; nothing happens where the stream is no terminal."""
        if self.live:
            text = text[: shutil.get_terminal_size().columns - 1]
            if text or self.text:
                self._write(f"{CLEAR}{text}")
            self.text = text

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except BrokenPipeError:  # the reader has ended, as in `snakemake -n | head`
            with suppress(OSError), open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self.stream.fileno())
        except UnicodeEncodeError:  # a terminal of another encoding
            self.stream.write(text.encode("ascii", "backslashreplace").decode())
            self.stream.flush()
