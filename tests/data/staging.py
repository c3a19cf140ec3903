"""Run the job of rule stage_corpus in a process of its own: FOLDER, and its settings as JSON."""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

from snakemake.iocontainers import InputFiles, Log, OutputFiles, Params, Wildcards

from pollination.data import hub

SCRIPT = Path(__file__).parents[2] / "workflow/scripts/stage_corpus.py"


class Stop:
    """A stop request that comes after a number of questions; None: never."""

    may_save, reason = True, "SIGTERM"

    def __init__(self, after: int | None = None) -> None:
        self.left = after

    def __bool__(self) -> bool:
        if self.left is not None:
            self.left -= 1
        return self.left is not None and self.left < 0


def run(folder: Path, spec: dict, group_characters: int, first_pause_s: float) -> None:
    """Stage the corpus `far` into `folder`. Row groups and pauses are small."""
    given = {
        "input": InputFiles(fromdict={}),
        "output": OutputFiles(
            fromdict={
                "documents": str(folder / "staged/far.parquet"),
                "run": str(folder / "staged/far.run.json"),
            }
        ),
        "params": Params(fromdict={"recipe": 2, "corpus": spec}),
        "wildcards": Wildcards(fromdict={"corpus": "far"}),
        "log": Log(toclone=[str(folder / "far.log")]),
    }
    job = SimpleNamespace(rule="stage_corpus", threads=1, config={}, **given)
    hub.ROW_GROUP_CHARACTERS, hub.FIRST_PAUSE_S = group_characters, first_pause_s
    runpy.run_path(str(SCRIPT), {"snakemake": job})


if __name__ == "__main__":
    run(Path(sys.argv[1]), **json.loads(sys.argv[2]))
