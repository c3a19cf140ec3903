"""A record of another run names files that this job does not write."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.iocontainers import OutputFiles

from pollination.core import artifacts, reuse


def run(folder: Path, names: list[str], other: str = "results/other") -> str | None:
    """Take the job of results/other, whose record names these files."""
    there, here = folder / "results/other/a", folder / "results/mine"
    outputs = {}
    for name in names:
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text("text")
        outputs[name] = artifacts.digest(there / name)
    read = {"results/other/b/text": "1"}
    record = {"rule": "r", "wildcards": {}, "params": {}, "inputs": read, "outputs": outputs}
    artifacts.write_json(there / "run.json", artifacts.seal(record))
    declared = {name: str(here / "a" / name) for name in ("text", "splits")}
    output = OutputFiles(fromdict=declared | {"run": str(here / "a/run.json")})
    job = SimpleNamespace(
        rule="r",
        wildcards={},
        recorded={},
        digests={f"{here}/b/text": "1"},
        output=output,
        log=logging.getLogger(),
    )
    (folder / "link").symlink_to("results/other")
    return reuse.take(job, [str(folder / other)], here)


@pytest.mark.parametrize("other", ["results/other", "link"])
def test_files_and_folders_of_the_job_are_taken(tmp_path, other):
    assert run(tmp_path, ["text", "splits/train", "splits/test"], other)
    assert (tmp_path / "results/mine/a/splits/test").read_text() == "text"


@pytest.mark.parametrize(
    "names",
    [["text"], ["text", "splits/x", "more"], ["text", "splits/x", "../../mine/config.yaml"],
     ["text", "splits/../../../../theirs"]],
)  # fmt: skip
def test_a_record_with_other_files_is_not_taken_and_nothing_is_written(tmp_path, names):
    assert run(tmp_path, names) is None
    assert not list((tmp_path / "results/mine").rglob("run.json"))
