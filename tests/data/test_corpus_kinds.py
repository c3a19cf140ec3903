"""The table of corpus kinds: an entry and a module add a kind, from the config to its documents."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pollination.analysis.cost.texts import Texts
from pollination.data.corpora import build_corpus, read_documents, stage_corpus
from pollination.data.files import resolve_files
from pollination.plan.config import schema as config_schema
from pollination.plan.config.resolve import check_files, resolve
from pollination.plan.corpora import CORPUS_KINDS, CorpusKind
from pollination.plan.inputs import corpus_sources, staged_files
from pollination.plan.measuring import sequences
from pollination.plan.plan import Plan
from tests.conftest import TOY
from tests.data.staging import Stop


@pytest.fixture
def enter(monkeypatch):
    """Enter a kind into the table, and its functions into a module of pollination.data."""

    def entry(*functions, **facts) -> None:
        module = SimpleNamespace(**{function.__name__: function for function in functions})
        monkeypatch.setitem(sys.modules, "pollination.data.trial", module)
        monkeypatch.setitem(CORPUS_KINDS, "trial", CorpusKind("a trial", "trial.read", **facts))
        config_schema.schema.cache_clear()

    yield entry
    config_schema.schema.cache_clear()


def plan_of(**spec) -> Plan:
    raw = yaml.safe_load(TOY.read_text())
    raw["corpora"]["more"] = {"kind": "trial", **spec}
    raw["founders"]["human"]["validation"] = "more"
    return Plan(resolve(raw), "r")


def stanzas(paths: list[Path]):
    for path in paths:
        for number, text in enumerate(path.read_text().split("---")):
            yield f"{path.name}:{number}", text.strip()


def read(spec, seed, folder, sources):
    """Read stanzas from the local files that the plan lists."""
    return {"files": len(sources)}, lambda: stanzas(sources)


def test_local_files_of_another_form(enter, tmp_path):
    enter(read, needs=("path",), endings=(".poem",))
    (tmp_path / "notes.txt").write_text("no poem")
    for name in ("a", "b"):
        (tmp_path / f"{name}.poem").write_text(" --- ".join(f"{name} {n}" for n in range(10)))
    plan = plan_of(path=str(tmp_path))
    sources = [Path(path) for path in corpus_sources(plan, "more")]
    assert sources == [tmp_path / "a.poem", tmp_path / "b.poem"]
    assert sources == resolve_files(str(tmp_path), (".poem",))
    size = sum(path.stat().st_size for path in sources)
    assert sum(Texts(plan).corpus("more").values()) == pytest.approx(size / 4, rel=0.2)
    build_corpus(plan.config["corpora"]["more"], 1, tmp_path / "c", sources)
    documents = {
        doc_id: text
        for split in ("train", "validation", "test", "prompts")
        for doc_id, text in read_documents(tmp_path / "c", split)
    }
    assert documents == {f"{name}.poem:{n}": f"{name} {n}" for name in "ab" for n in range(10)}


def test_a_mistake_is_named_by_the_facts_of_the_entry(enter, tmp_path):
    enter(read, needs=("path",), endings=(".poem",))
    with pytest.raises(ValueError, match="corpora.more.path: the key is missing; .* of kind trial"):
        plan_of()
    with pytest.raises(ValueError, match="corpora.more.splits: .*for kinds files and hub"):
        plan_of(splits={"train": "a", "validation": "b", "test": "c"})
    (tmp_path / "notes.txt").write_text("no poem")
    with pytest.raises(ValueError, match="corpora.more.path: .*there is no .poem file"):
        check_files(plan_of(path=str(tmp_path)).config)


def fetch(spec, path, work, stop):
    path.write_text(f"{spec['name']} 0 --- {spec['name']} 1")
    return {"revision": "2"}


def test_text_from_elsewhere_is_staged_first(enter, tmp_path):
    enter(read, fetch, needs=("name", "max_tokens"), stager="trial.fetch")
    plan = plan_of(name="ode", max_tokens=1000)
    assert corpus_sources(plan, "more") == ["r/staged/more.parquet"]
    assert "r/staged/more.parquet" in staged_files(plan)
    assert sum(Texts(plan).corpus("more").values()) == pytest.approx(1000, rel=0.06)
    spec = plan.config["corpora"]["more"]
    assert stage_corpus(spec, tmp_path / "staged", tmp_path, Stop()) == {"revision": "2"}
    assert dict(stanzas([tmp_path / "staged"])) == {"staged:0": "ode 0", "staged:1": "ode 1"}


def test_text_of_no_known_source_has_no_known_size_and_no_known_truth(enter):
    enter(read)
    plan = plan_of()
    texts = Texts(plan)
    assert corpus_sources(plan, "more") == [] and math.isnan(texts.corpus("more")["train"])
    assert texts.notes["more"] == "more: the size of a corpus of kind trial is unknown"
    entry = {"split": "test", "sequences": "blocks"}
    assert sequences(plan, entry | {"corpus": "more"}) == "blocks"
    assert sequences(plan, entry | {"corpus": "world"}) == "documents"
