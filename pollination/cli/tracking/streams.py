"""The points that a run has so far, as one stream per member and per experiment.

A stream is a list that only grows while the run makes progress. It grows in this order:

a member, e.g. population/gen1/member0: the rows of its training, by step; then its scores
an experiment, e.g. population: for each generation, the mean scores of its members; then its
selection of parents
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Literal

from pollination.analysis.frames import Results
from pollination.core import artifacts
from pollination.plan import layout
from pollination.plan.plan import Plan

LARGEST = 1 << 26  # bytes of a checkpoint's header that are read
ROWS, SCORES = "train.jsonl", "scores.json"
SAVED = ("checkpoint.safetensors", "checkpoint.json")  # of a training that has not finished


@dataclass(frozen=True)
class Point:
    """Numbers by tag at one step or generation. `axis` says which of the two `at` counts."""

    axis: Literal["step", "generation"]
    at: int
    values: dict[str, float]

    @property
    def digest(self) -> str:
        """Return a short digest. A point that was sent is recognized by it."""
        content = json.dumps([self.axis, self.at, self.values], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Stream:
    """The points of a member or of an experiment. `about` are facts for the tracker."""

    name: str
    about: dict[str, Any]
    points: list[Point]


@dataclass
class Reader:
    """Read the streams of a run; a file is read again only after it has changed.

    `damaged`: the files that could not be read in the last pass, with the reason.
    """

    plan: Plan
    damaged: dict[str, str] = field(default_factory=dict)
    _known: dict[tuple, tuple[tuple, list[Point]]] = field(default_factory=dict)

    def read(self) -> Iterator[Stream]:
        """Yield the streams that have points, by experiment and generation."""
        self.damaged, seen = {}, set()
        for name, one in self.plan.config["experiments"].items():
            points, whole = [], True
            for g in range(one["generations"]):
                of_members = []
                for m in range(one["population"]):
                    folder = layout.member_folder(self.plan, name, g, m)
                    scores = self._scores(folder, g)
                    of_members.append(scores)
                    if folder in seen:
                        continue
                    seen.add(folder)
                    place = layout.place_of(self.plan, name, g)
                    rows = self._rows(folder)
                    about = {"place": place, "generation": g, "member": m}
                    trained = Path(folder, ROWS).is_file()  # scores of a former training remain
                    if member := rows + (scores if rows and trained else []):
                        yield Stream(f"{place}/member{m}", about, member)
                whole = whole and all(of_members)
                if whole:  # the stream ends at the first generation that is not scored
                    points += _means(g, of_members) + self._selection(name, g)
            if points:
                about = {"experiment": name, "seed": one["seed"]}
                yield Stream(name, about, points)

    def _rows(self, folder: str) -> list[Point]:
        path = Path(folder, ROWS)
        found = [path] if path.is_file() else _checkpoints(folder)
        return self._cached(found[:1], _training) if found else []

    def _scores(self, folder: str, generation: int) -> list[Point]:
        path = Path(folder, SCORES)

        def read(_: Path) -> list[Point]:
            rows = Results(self.plan).scores_of(folder)
            values = {
                f"scores/{name}/{metric}" if name != metric else f"scores/{name}": float(value)
                for _, name, metric, value, _ in rows
            }
            return [Point("generation", generation, values)] if values else []

        return self._cached([path, path.with_name("answers.parquet")], read, generation)

    def _selection(self, name: str, generation: int) -> list[Point]:
        path = Path(self.plan.results, name, f"gen{generation}", "selection.json")
        return self._cached([path], lambda path: _chosen(generation, artifacts.read_json(path)))

    def _cached(self, paths: list[Path], read, *more) -> list[Point]:
        """Return what `read` makes of the first path; nothing if it is absent or damaged."""
        marks = []
        for path in paths:
            with suppress(OSError):
                stat = path.stat()
                marks.append((path, stat.st_mtime_ns, stat.st_size, stat.st_ino))
        if not marks or marks[0][0] != paths[0]:
            return []
        key, mark = (paths[0], *more), tuple(marks)
        if key not in self._known or self._known[key][0] != mark:
            try:
                self._known[key] = mark, read(paths[0])
            except FileNotFoundError:  # a job has just replaced or deleted it
                return []
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                self.damaged[str(paths[0])] = str(error)
                return []
        return self._known[key][1]


def _checkpoints(folder: str) -> list[Path]:
    """Return the checkpoints of a member's training, the newest first (core/job.py)."""
    found = []
    for name in SAVED:
        for path in Path(folder).glob(f".train.work/*/{name}"):
            with suppress(OSError):
                found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]


def _training(path: Path) -> list[Point]:
    """Return the rows of train.jsonl, or those that a checkpoint has saved.

    A last line that is not complete is left out: something copies the file just now.
    """
    if path.name == ROWS:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        rows = [json.loads(line) for line in lines if line.strip()]
    elif path.suffix == ".json":
        rows = json.loads(path.read_text(encoding="utf-8"))["state"]["metrics"]
    else:
        rows = json.loads(_metadata(path)["state"])["metrics"]
    return [
        Point(
            "step",
            int(row["step"]),
            {
                f"train/{key}": float(value)
                for key, value in row.items()
                if key != "step" and isinstance(value, Real)
            },
        )
        for row in rows
    ]


def _metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file, without its tensors.

    Its first 8 bytes are the size of the header that follows, a JSON object.
    """
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > LARGEST:
            raise ValueError(f"its header has {size:,} bytes; at most {LARGEST:,} are read")
        return json.loads(file.read(size))["__metadata__"]


def _means(generation: int, of_members: list[list[Point]]) -> list[Point]:
    """Return the means over members of the scores that all of them have."""
    values = [points[0].values for points in of_members]
    tags = [tag for tag in values[0] if all(tag in one for one in values)]
    means = {tag: sum(one[tag] for one in values) / len(values) for tag in tags}
    return [Point("generation", generation, means)] if means else []


def _chosen(generation: int, choice: dict[str, Any]) -> list[Point]:
    """Return a selection as numbers: slots of the parents, and accuracies of the selecting half."""
    parents, accuracies = choice["parents"], choice.get("accuracies") or []
    values = {f"selection/parent{rank}": float(slot) for rank, slot in enumerate(parents)}
    if accuracies:
        values["selection/mean_of_members"] = sum(accuracies) / len(accuracies)
        chosen = [accuracies[slot] for slot in parents]
        values["selection/mean_of_parents"] = sum(chosen) / len(chosen)
    if curse := choice.get("winners_curse"):
        values["selection/winners_curse"] = float(curse["gap"])
    return [Point("generation", generation, values)]
