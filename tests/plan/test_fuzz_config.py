"""Mutated configs, hundreds of them: each is accepted, or refused in one line a mistake that names
the key; nothing else ever happens.

POLLINATION_FUZZ=1000 and POLLINATION_FUZZ_SEED=7 try more, and others.
"""

import copy
import os
import random
import re
import signal
from contextlib import contextmanager

import pytest
import yaml

from pollination.cli import main
from pollination.core.sanitize import hidden
from pollination.plan.config.resolve import ConfigError, check_files, resolve
from pollination.plan.jobs import everything, jobs
from pollination.plan.plan import Plan
from tests.conftest import ROOT, TOY, snakemake

COUNT, SEED = (
    int(os.environ.get("POLLINATION_FUZZ", 200)),
    int(os.environ.get("POLLINATION_FUZZ_SEED", 0)),
)
CONFIGS = sorted((ROOT / "config").rglob("*.yaml"))
SECONDS = 60  # that one config may take; the largest shipped one takes two
WORDS = [
    "",
    " ",
    "../../etc",
    "/etc/passwd",
    "a\nb",
    "\x1b[31mred",
    "\u202egnp",
    "\x00",
    "\ud800",
    "é" * 300,
    "x" * 100_000,
    "no",
    "{data}",
    "{gen}",
]
WORDS += [
    "__proto__",
    "<script>alert(1)</script>",
    "%s%n",
    "$(touch pwned)",
    "~",
    "~nobody",
    "*",
    "[",
    "own",
    "none",
    "base",
    "config",
    "a:b",
    "a.s1",
    "demo\n",
]
NUMBERS = [
    0,
    -1,
    1,
    2,
    7,
    1.0,
    3.5,
    1e-300,
    1e308,
    float("nan"),
    float("inf"),
    -float("inf"),
    10**12,
    10**30,
    -(10**400),
    2**31,
    2**63,
]
ODD = [
    "1e-3",
    "017",
    "0x1f",
    "1:30",
    "2026-11-27",
    "!!binary aGk=",
    "!!set {a, b}",
    "yes",
    "no",
    "~",
    "1_000",
    ".inf",
    "!!str 3",
    "3: 4",
    "[]",
    "{}",
]
ODD_VALUES = [
    yaml.safe_load(f"x: {text}" if ": " not in text else f"x: {{{text}}}")["x"] for text in ODD
]


def places(node, path=()):
    """(path, container, key) of everything in a config."""
    for key in node if isinstance(node, dict) else range(len(node)):
        yield (*path, key), node, key
        if isinstance(node[key], (dict, list)):
            yield from places(node[key], (*path, key))


def mutated(raw: dict, rng: random.Random) -> dict:
    """One to three changes of a config."""
    raw = copy.deepcopy(raw)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        everything = list(places(raw))
        if not everything:
            return raw
        _, node, key = rng.choice(everything)
        _, other, other_key = rng.choice(everything)
        if kept := [
            (n, k)
            for _, n, k in everything
            if isinstance(n[k], type(node[key])) and not isinstance(n[k], (dict, list))
        ]:
            other, other_key = rng.choice(kept)  # a value of the same type is the likelier slip
        kind = rng.choice([0, 1, 2, 3, 4, 4, 4, 5, 6, 7, 8, 9, 10, 10, 10])
        if kind == 0:
            del node[key]
        elif kind == 1:
            node[key] = rng.choice(
                [None, [], {}, True, False, "", 0, [None], [[]], {"a": None}, [{}]]
            )
        elif kind == 2:
            node[key] = rng.choice(NUMBERS)
        elif kind == 3:
            node[key] = rng.choice(WORDS)
        elif kind == 4:
            node[key] = copy.deepcopy(other[other_key])
        elif kind == 5 and isinstance(node, dict):
            node[rng.choice([*WORDS, 1, None, True, 2.5, "populatoin"])] = copy.deepcopy(
                rng.choice([node[key], *NUMBERS, None])
            )
        elif kind == 6 and isinstance(node, dict):
            node[rng.choice([*WORDS, 1, None, "renamed", "tasks"])] = node.pop(key)
        elif kind == 7:
            node[key] = copy.deepcopy(rng.choice(ODD_VALUES))
        elif kind == 8:
            node[key] = (
                [node[key]] if not isinstance(node[key], list) else dict(enumerate(node[key]))
            )
        elif kind == 9:
            node[key] = [copy.deepcopy(node[key]) for _ in range(rng.choice([2, 3, 50]))]
        elif isinstance(node[key], str) and node[key]:
            at = rng.randrange(len(node[key]))
            node[key] = node[key][:at] + rng.choice(WORDS[:10]) + node[key][at + 1 :]
        elif isinstance(node[key], (int, float)):
            node[key] = node[key] * rng.choice([-1, 0, 0.5, 10, 10**6, 10**15])
    return raw


@contextmanager
def limited(seconds: int):
    def late(*_):
        raise AssertionError(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def plan(raw) -> str:
    """What the Snakefile does with a config, up to all files and jobs; the mistakes, "" where there
    are none.
    """
    try:
        config = resolve(raw, "my.yaml")
        check_files(config, "my.yaml")
    except ConfigError as mistakes:
        return str(mistakes)
    made = Plan(config, f"results/{config['run']}")
    paths = everything(made) + [work.output for work in jobs(made)]
    for path in paths:  # nothing lies elsewhere, whatever names say
        assert re.fullmatch(r"results/[\w.-]+(/[\w.-]+)+", path) and "/../" not in path, path
    return ""


def clear(mistakes: str) -> bool:
    """Whether each line opens with the file and a key (or says that it is the whole config), is of
    bounded length, and has nothing that a terminal acts on.
    """
    lines = mistakes.split("\n")
    return all(
        line.startswith("my.yaml: ")
        and ": " in line[9:]
        and len(line) < 2500
        and not any(map(hidden, line))
        for line in lines
    )


@pytest.mark.slow
def test_mutated_configs_are_accepted_or_refused_in_clear_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    before = sorted(ROOT.glob("*"))
    base, refused = {path: yaml.safe_load(path.read_text()) for path in CONFIGS}, 0
    for number in range(COUNT):
        rng = random.Random(f"{SEED} {number}")
        path = rng.choice(CONFIGS)
        raw = mutated(base[path], rng)
        try:
            with limited(SECONDS):
                mistakes = plan(raw)
        except BaseException as error:
            (tmp_path / "raw.txt").write_text(repr(raw)[:200000], errors="replace")
            raise AssertionError(
                f"mutation {number} of {path.name}: {type(error).__name__}"
            ) from error
        assert not mistakes or clear(mistakes), (number, path.name, mistakes[:3000])
        refused += bool(mistakes)
    assert sorted(ROOT.glob("*")) == before
    assert COUNT // 3 < refused < COUNT


TEXTS = {  # what only a file can hold -> what is said of it
    "run: a\nrun: b\n": "the key 'run' appears twice",
    "run: a\nexperiments:\n  line: {founders: human}\n  "
    "line: {founders: human}\n": "line 4: the key 'line' appears twice",
    "run: a\n\tcorpora: {}\n": "not readable as YAML",
    "run: [1\n": "not readable as YAML",
    "run: *nothing\n": "not readable as YAML",
    "run: !!python/object/apply:os.system [touch pwned]\n": "not readable as YAML",
    "run: a\ndata_seed: 2026-99-99\n": "not readable as YAML",
    f"run: a\ndata_seed: {'9' * 5000}\n": "not readable as YAML",
    f"run: {'[' * 200}{']' * 200}\n": "the config is endless",
    f"run: {'[' * 100000}{']' * 100000}\n": "not readable as YAML",
    "": "no keys at the top level",
    "- run\n": "no keys at the top level",
    "run: \udc80\n": "not readable as YAML",
    "run: a\nfigures: &a {paper: *a}\n": "the config is endless",
    "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
    + "".join(
        f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n"
        for a, b in zip("abcdefg", "bcdefgh", strict=True)
    ): "the config is endless",
    "run: no\ntheory: {n: 10}\n": "run: False has the wrong type; allowed: string",
    "run: 2026-11-27\n": "run: datetime.date(2026, 11, 27) has the type date",
    "run: a\ntheory: {n: 1e3}\n": "theory.n: '1e3' has the wrong type",
    "run: a\ntheory: {n: 1000.0}\n": "theory.n: 1000.0 has the wrong type",
    "run: a\ntheory: {noise: .nan}\n": "theory.noise: nan is not allowed; write a finite number",
    "run: a\ntheory: {1: 2}\n": "theory.1: the key 1 is not text",
    f"run: a\ndata_seed: {2**63}\n": "data_seed: the integer has more than 64 bits",
    "run: a\ncorpora: {text: {kind: files, path: "
    '"a\\0b"}}\n': "corpora.text.path: 'a\\x00b' contains a NUL",
    'run: a\ncorpora: {"a\\0b": {kind: files, path: x}}\n': (
        "contains a NUL or half of a surrogate pair"
    ),
    'run: "a\\n"\ntheory: {n: 10}\n': "run: 'a\\n' is not a valid name",
    'run: a\ntheory: {n: 10}\n"the\\e[2Jory": {}\n': "the\\x1b[2Jory: unknown key",
}


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_text_that_is_no_config_is_refused_in_one_line_by_the_command(
    number, tmp_path, capsys, monkeypatch
):
    text, words = list(TEXTS.items())[number]
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    monkeypatch.chdir(tmp_path)
    with limited(SECONDS):
        assert main(["check", "--configfile", "my.yaml"]) in (1, 2)
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and not any(map(hidden, said.rstrip("\n"))), said
    assert list(tmp_path.iterdir()) == [path]


def test_snakemake_says_the_same_and_makes_no_folder(tmp_path):
    base, tried = yaml.safe_load(TOY.read_text()), []
    for number in range(10**6):
        raw = mutated(base, random.Random(f"{SEED} real {number}"))
        text = yaml.safe_dump(raw, allow_unicode=False, sort_keys=False)
        try:
            same = yaml.safe_load(text) == raw  # not so with NaN, or half of a surrogate pair
        except yaml.YAMLError:
            same = False
        mistakes = plan(raw) if same else ""
        wanted = len(tried) % 3 == 0  # one in three is accepted
        if same and (not mistakes) == wanted:
            (tmp_path / "my.yaml").write_text(text, encoding="utf-8")
            output = snakemake(tmp_path, "-n", configfile=tmp_path / "my.yaml", ok=wanted)
            # the line of the file comes on top
            told = re.sub(r"^my\.yaml:\d+( \(default\))?: ", "my.yaml: ", output, flags=re.M)
            assert "Traceback" not in output and not (
                set(mistakes.splitlines()) - set(told.splitlines())
            ), (text[:3000], output[-3000:])
            assert [path.name for path in tmp_path.iterdir() if path.name != ".snakemake"] == [
                "my.yaml"
            ]
            tried.append(number)
        if len(tried) >= max(2, COUNT // 150):
            return


@pytest.mark.parametrize(
    "change",
    [
        {"generations": 10**12},
        {"generations": 100_000},
        {"population": 10**9},
        {"generate": {"shards": 10**9}},
        {"generations": 40_000, "human": {"accumulate": "all"}},
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_listed(change):
    raw = yaml.safe_load(TOY.read_text())
    raw["experiments"]["line"] |= change
    with limited(SECONDS):
        assert "experiments.line.population: " in plan(
            raw
        ) and "cannot be planned; allowed: " in plan(raw)
