"""Write points to a tracker. Its package is imported when it is used.

`shown` is the command that shows the points.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from shlex import quote
from types import ModuleType
from typing import Any, Protocol

from pollination.cli.tracking.streams import Point, Stream

EVENTS = "events.out.tfevents.pollination"


class Tracker(Protocol):
    shown: str

    def has(self, stream: str, size: int) -> bool:
        """Return whether the tracker still has what a delivery of that size left."""

    def write(self, stream: Stream, points: list[Point], restarts: int, size: int) -> int:
        """Append points to a stream, which has been replaced `restarts` times.

        `size`: that of its event file after the last noted delivery. Return the new size, or 0 if
        the tracker has no such files.
        """


class TensorBoard:
    """Write one event file per stream: FOLDER/RUN/population/gen1/member0/events...

    The file is only ever appended to. Bytes after the last noted delivery come from a process that
    was killed, so they are cut off.
    """

    def __init__(self, into: Path, run: str) -> None:
        self.folder = into / run
        self.shown = f"tensorboard --logdir {quote(str(into))}"
        self.proto = _module("tensorboard", "tensorboard.compat.proto.event_pb2")
        self.summary = import_module("tensorboard.compat.proto.summary_pb2")
        self.records = import_module("tensorboard.summary.writer.record_writer")

    def path(self, stream: str) -> Path:
        return self.folder / stream / EVENTS

    def has(self, stream: str, size: int) -> bool:
        path = self.path(stream)
        return path.is_file() and path.stat().st_size >= size

    def write(self, stream: Stream, points: list[Point], restarts: int, size: int) -> int:
        path = self.path(stream.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        event, now_s = self.proto.Event, time.time()
        events = [event(wall_time=now_s, file_version="brain.Event:2")]
        if restarts:  # TensorBoard then forgets the points from step 0 on
            start = self.proto.SessionLog(status=self.proto.SessionLog.START)
            events.append(event(wall_time=now_s, step=0, session_log=start))
        elif size:
            events = []
        for point in points:
            values = [
                self.summary.Summary.Value(tag=tag, simple_value=value)
                for tag, value in point.values.items()
            ]
            summary = self.summary.Summary(value=values)
            events.append(event(wall_time=now_s, step=point.at, summary=summary))
        with open(path, "ab") as file:
            file.truncate(size)  # what lies behind it comes from a process that was killed
            file.seek(size)
            writer = self.records.RecordWriter(file)
            for one in events:
                writer.write(one.SerializeToString())
            return file.tell()


class Client:
    """Send streams to Trackio or Weights & Biases, which have the same functions.

    A stream that restarts becomes a new run of the tracker, `NAME (2)`, because neither of them
    replaces points. A process that is killed during a delivery may repeat this delivery.
    """

    hint = ""

    def __init__(self, module: ModuleType, project: str, shown: str) -> None:
        self.module, self.project, self.shown = module, project, shown

    def has(self, stream: str, size: int) -> bool:
        return True

    def write(self, stream: Stream, points: list[Point], restarts: int, size: int) -> int:
        name = f"{stream.name} ({restarts + 1})" if restarts else stream.name
        group = stream.about.get("place", "").split("/gen")[0] or stream.name
        with self._told():
            run = self.module.init(
                project=self.project,
                name=name,
                group=group,
                config=stream.about,
                resume="allow",
                **self.options(name),
            )
            self.begin(run)
            for point in points:
                self.log(run, point)
            self.module.finish()
        return 0

    def options(self, name: str) -> dict[str, Any]:
        raise NotImplementedError

    def begin(self, run: Any) -> None:
        pass

    def log(self, run: Any, point: Point) -> None:
        raise NotImplementedError

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Hide what the tracker prints, and name it in its errors."""
        try:
            with redirect_stdout(StringIO()):
                yield
        except Exception as error:  # network, login and quota fail in many ways
            why = str(error).strip().splitlines()
            name = self.module.__name__
            raise ValueError(
                f"--to {name}: {why[0] if why else type(error).__name__}{self.hint}; run the same "
                "command to resume"
            ) from None


class Trackio(Client):
    def __init__(self, into: Path, run: str) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(into.resolve()))
        shown = f"TRACKIO_DIR={quote(os.environ['TRACKIO_DIR'])} trackio show --project {run}"
        super().__init__(_module("trackio"), run, shown)

    def options(self, name: str) -> dict[str, Any]:
        return {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}

    def log(self, run: Any, point: Point) -> None:
        run.log(point.values, step=point.at)


class WeightsAndBiases(Client):
    hint = " Or export WANDB_MODE=offline"

    def __init__(self, into: Path, run: str) -> None:
        self.into = into
        module = _module("wandb")
        shown = "wandb status"
        if os.environ.get("WANDB_MODE") == "offline":
            shown = f"wandb sync {quote(str(into / 'wandb'))}/offline-run-*"
        super().__init__(module, run, shown)

    def options(self, name: str) -> dict[str, Any]:
        settings = self.module.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True
        )
        identity = hashlib.sha256(f"{self.project} {name}".encode()).hexdigest()[:12]
        return {"id": identity, "dir": str(self.into), "settings": settings}

    def begin(self, run: Any) -> None:
        # A resumed run of wandb drops points of earlier steps, so steps are values of their own.
        for tags, axis in (
            ("train", "step"),
            ("scores", "generation"),
            ("selection", "generation"),
        ):
            run.define_metric(f"{tags}/*", step_metric=axis)

    def log(self, run: Any, point: Point) -> None:
        run.log(point.values | {point.axis: point.at})


TRACKERS: dict[str, Callable[[Path, str], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": WeightsAndBiases,
}


def _module(package: str, name: str = "") -> ModuleType:
    """Import a package that is an optional extra of the project. ValueError: it is missing."""
    try:
        return import_module(name or package)
    except ModuleNotFoundError as error:
        own = (error.name or package).split(".")[0]
        raise ValueError(
            f"--to {package}: the package {own} is not installed; in the checkout, type: "
            f"pip install --editable '.[{package}]'"
        ) from None
