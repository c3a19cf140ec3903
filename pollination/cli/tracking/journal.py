"""Remember which points of a run a tracker has, so that no start sends a point twice."""

import fcntl
import json
from dataclasses import dataclass, field
from pathlib import Path

from pollination.cli.tracking.streams import Point, Stream


@dataclass
class Sent:
    """What a tracker has of a stream: digests of its points, in order.

    `restarts`: how often the stream was replaced. `size`: bytes of the event file, or 0.
    """

    digests: list[str] = field(default_factory=list)
    restarts: int = 0
    size: int = 0


class Journal:
    """A file with one JSON line per delivery. One process at a time may have it open.

    ValueError: another process has it, or it belongs to another run.
    """

    def __init__(self, path: Path, run: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.sent: dict[str, Sent] = {}
        self._file = open(path, "a+b")  # noqa: SIM115
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ValueError(
                f"{path}: another `pollination watch` sends this run to the same folder; stop it, "
                "or give another --into"
            ) from None
        self._load(run.resolve())

    def _load(self, run: Path) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._file.truncate(len(whole))  # a line that a killed process began
        try:
            entries = [json.loads(line) for line in whole.splitlines()]
            other = Path(entries[0]["folder"]) if entries else run
            for entry in entries[1:]:
                self._note(entry)
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(
                f"{self.path}: not readable ({error}); delete its folder to send all points again"
            ) from None
        if not entries:
            self._append({"folder": str(run)})
        elif other != run and other.exists():
            raise ValueError(
                f"{self.path}: it belongs to the run in {other}, which has the same name; give "
                "another --into"
            )

    def _note(self, entry: dict) -> None:
        sent = self.sent.setdefault(entry["stream"], Sent())
        if entry["restarts"] != sent.restarts:
            sent.digests = []
        sent.digests += entry["points"]
        sent.restarts, sent.size = entry["restarts"], entry["size"]

    def news(self, stream: Stream) -> tuple[bool, list[Point]]:
        """Return whether the stream restarts, and the points that the tracker lacks.

        A stream that has lost its end is waited for: a job that restarts repeats its points. A
        stream with other points restarts.
        """
        have = self.sent.get(stream.name, Sent()).digests
        now = [point.digest for point in stream.points]
        if now[: len(have)] == have:
            return False, stream.points[len(have) :]
        if have[: len(now)] == now:
            return False, []
        return True, stream.points

    def add(self, stream: str, points: list[Point], restarts: int, size: int) -> None:
        """Note that a tracker has points; `size` is that of its event file."""
        digests = [point.digest for point in points]
        entry = {"stream": stream, "points": digests, "restarts": restarts, "size": size}
        self._note(entry)
        self._append(entry)

    def forget(self, stream: str) -> None:
        """Note that somebody has deleted what the tracker had of a stream."""
        self.add(stream, [], self.sent[stream].restarts + 1, 0)

    def _append(self, entry: dict) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
