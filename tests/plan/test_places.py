"""A mistake of a config names the line that sets the key, whichever source set it."""

from pathlib import Path

import pytest
import yaml

from pollination.plan.config.loading import read_yaml
from pollination.plan.config.places import Places
from pollination.plan.config.resolve import ConfigError, check_files, resolve
from tests.conftest import TOY

TEXT = TOY.read_text(encoding="utf-8")


def line_of(text: str, words: str) -> int:
    """The number of the only line that contains `words`."""
    found = [n for n, line in enumerate(text.split("\n"), 1) if words in line]
    assert len(found) == 1, (words, found)
    return found[0]


def places_of(raw: dict, places: Places) -> dict[str, str]:
    """The place of each mistake, by the key that it names."""
    with pytest.raises(ConfigError) as caught:
        check_files(resolve(raw, places), places)
    found = {}
    for said in str(caught.value).splitlines():
        place, key, _ = said.split(": ", 2)
        found[key] = place
    return found


def written(folder: Path, text: str, name: str = "my.yaml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


@pytest.mark.parametrize(
    "old, new, key, words",
    [
        ("architecture: llama", "architecture: 7", "models.toy.architecture", "architecture: 7"),
        ("split: test", "split: tset", "evaluate.perplexity.0.split", "split: tset"),
        ("corpus: world, split", "corpus: wrld, split", "evaluate.perplexity.0.corpus", "wrld"),
        ("    model: toy", "    model: [toy, tyo]", "founders.human.model", "tyo"),
        ("founders: human", "founders: humans", "experiments.line.founders", "founders: humans"),
        ("shards: 2, batch", "shards: 0, batch", "defaults.generate.shards", "shards: 0"),
        ("task: knowledge}", "task: [none]}", "experiments.population.select.task", "[none]"),
        ("run: toy", "run: toy\nrum: 2", "rum", "rum: 2"),
        (
            "  line: {population: 1,",
            "  line: {population: 1, seeds: [1, 2], text_of: x,",
            "experiments.line.s2.text_of",
            "text_of: x",
        ),
    ],
)
def test_the_line_of_the_key_is_named(tmp_path, old, new, key, words):
    text = TEXT.replace(old, new)
    assert text != TEXT
    path = written(tmp_path, text)
    found = places_of(read_yaml(path), Places([path]))
    assert found[key] == f"{path}:{line_of(text, words)}", found


def test_an_item_of_a_list_is_found_by_its_value(tmp_path):
    text = TEXT.replace("model: toy\n", "model:\n      - toy\n      - tyo\n")
    path = written(tmp_path, text)
    found = places_of(read_yaml(path), Places([path]))
    assert found["founders.human.model"] == f"{path}:{line_of(text, '- tyo')}"


def test_anchors_and_merge_keys_lead_to_the_line_that_holds_the_value(tmp_path):
    text = TEXT.replace("train: {tokens", "train: &t {epsilon: -1, tokens").replace(
        "\ntasks:",
        "\n  other:\n    <<: {corpus: x}\n    model: toy\n    train:\n      <<: *t\n"
        "      betas: 3\n\ntasks:",
    )
    path = written(tmp_path, text)
    found = places_of(read_yaml(path), Places([path]))
    first = line_of(text, "&t")
    assert found["founders.human.train.epsilon"] == f"{path}:{first}"
    assert found["founders.other.train.epsilon"] == f"{path}:{first}"
    assert found["founders.other.train.betas"] == f"{path}:{line_of(text, 'betas: 3')}"


def test_a_default_is_said_to_be_one(tmp_path):
    text = TEXT.replace("max_new_tokens: 32", "max_sentences: 2").replace("max_sentences: 1, ", "")
    text = text.replace("context_tokens: 64", "context_tokens: 16")
    path = written(tmp_path, text)
    found = places_of(read_yaml(path), Places([path]))
    place = f"{path}:{line_of(text, 'generate: {')} (default)"
    assert found["experiments.line.generate.max_new_tokens"] == place


def test_a_value_of_the_command_line_is_blamed_on_it(tmp_path):
    path = written(tmp_path, TEXT.replace("run: toy", "run: toy\ndevice: gpu"))
    raw = read_yaml(path)
    given = {"device": "tpu", "defaults": {"founders": "nobody"}, "rum": 3}
    places = Places([path], given)
    merged = raw | {"device": "tpu", "rum": 3}
    found = places_of(merged, places)
    assert (found["device"], found["rum"]) == ("--config", "--config")
    merged = raw | {"device": "cpu", "defaults": raw["defaults"] | {"founders": "nobody"}}
    found = places_of(merged, Places([path], {"defaults": {"founders": "nobody"}}))
    assert found["experiments.line.founders"] == "--config"


def test_of_several_files_the_last_that_sets_the_key_is_named(tmp_path):
    first = written(tmp_path, TEXT + "device: gpu\ncpu_threads: 0\n", "first.yaml")
    second = written(tmp_path, "# later\ndevice: tpu\n", "second.yaml")
    raw = read_yaml(first) | read_yaml(second)
    found = places_of(raw, Places([first, second]))
    assert found["device"] == f"{second}:2"
    assert found["cpu_threads"] == f"{first}:{line_of(TEXT + 'cpu_threads: 0', 'cpu_threads') + 1}"


def test_an_overlay_names_the_file_and_line_that_set_the_value(tmp_path):
    base = written(tmp_path, TEXT + "device: tpu\n", "base.yaml")
    text = f"""\
run: small
overlay:
  base: {base}
  drop: [experiments.line.text]
  set:
    founders.human.train.betas: 3
    defaults.generate:
      decoding: bem
  map:
    experiments.*.population: {{1: 0}}
"""
    path = written(tmp_path, text)
    found = places_of(read_yaml(path), Places([path]))
    assert found == {
        "founders.human.train.betas": f"{path}:6",
        "defaults.generate.decoding": f"{path}:8",
        "experiments.line.population": f"{path}:10",
        "device": f"{base}:{len((TEXT + 'device').splitlines())}",
    }
    path = written(tmp_path, f"overlay:\n  base: {base}\n  drop: [a]\n  set:\n    a.b: 3\n")
    with pytest.raises(ConfigError) as caught:
        resolve(read_yaml(path), Places([path]))
    assert [said.split(": ")[0] for said in str(caught.value).splitlines()] == [
        f"{path}:3",
        f"{path}:5",
    ]


@pytest.mark.parametrize(
    "text, line",
    [
        ("run: a\n\tcorpora: {}\n", 2),
        ("run: a\ncorpora:\n  w: {kind: x}\n  w: {kind: y}\n", 4),
        ("run: [1\nx: 2\n", 2),
        ("run: a\nmodels: *nobody\n", 2),
    ],
)
def test_a_file_that_is_no_yaml_is_named_with_the_line(tmp_path, text, line):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match="not readable as YAML") as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_endless_anchors_and_absent_files_have_no_line(tmp_path):
    path = written(tmp_path, "run: &a [*a]\n")
    with pytest.raises(ConfigError, match="endless"):
        resolve(yaml.safe_load("run: &a [*a]\n"), Places([path, path], {"run": {"x": 1}}))
    absent = Places([tmp_path / "absent.yaml"])
    assert absent.of("run: wrong") == f"{tmp_path}/absent.yaml"
