"""Collecting outputs through an API: against a local server that refuses, breaks off and counts
what it is asked.
"""

import json
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import openai
import pytest
import yaml

from pollination.analysis.fingerprint import collect
from pollination.core import artifacts
from tests.conftest import planned, serving, snakemake

KEY = "sk-very-secret-9731"
PRICES = ",input_price,output_price"


class Answers(BaseHTTPRequestHandler):
    """Says the prompt back many times; refuses what its server's `refuse` names."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        prompt = asked["messages"][-1]["content"].split("\n")[0]
        status = self.server.refuse.get(
            prompt, 200 if self.headers["Authorization"] == f"Bearer {KEY}" else 401
        )
        if self.server.flaky and len(self.server.asked) == 1:
            status = 503
        said = {"id": "1", "object": "chat.completion", "created": 1, "model": asked["model"]}
        said["choices"] = [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": f"{prompt} lantern " * 40},
            }
        ]
        said["usage"] = {"prompt_tokens": 10, "completion_tokens": 80, "total_tokens": 90}
        body = json.dumps(
            said
            if status == 200
            else {"error": {"message": f"no, {self.headers['Authorization']}"}}
        ).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words) -> None:
        pass


@pytest.fixture
def server():
    with serving(Answers, asked=[], refuse={}, flaky=False) as here:
        yield here


@pytest.fixture
def survey(tmp_path, server, monkeypatch) -> Path:
    """A config that asks two models for four prompts."""
    monkeypatch.setenv("TEST_API_KEY", KEY)
    monkeypatch.setenv("POLLINATION_REQUESTS_PER_MINUTE", "6000")
    monkeypatch.setenv("POLLINATION_REQUESTS_AT_ONCE", "1")
    monkeypatch.setenv("POLLINATION_REQUEST_RETRIES", "1")
    (tmp_path / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt_id": f"p{i}", "prompt": f"story {i}"}) + "\n" for i in range(6))
    )
    list_models(tmp_path, server, "one", "two", "three")
    asked = {
        "prompts": str(tmp_path / "prompts.jsonl"),
        "max_prompts": 4,
        "system": "Be brief.",
        "max_tokens": 50,
    }
    config = {
        "run": "asked",
        "fingerprint": {
            "api": {"kind": "collect", "models": str(tmp_path / "models.csv"), "collect": asked}
        },
    }
    path = tmp_path / "api.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def list_models(folder: Path, server, *names: str) -> None:
    url = f"http://127.0.0.1:{server.server_port}/v1"
    rows = [
        f"{name},{'ab'[i % 2]},2024-0{i + 1},{url},vendor/{name},TEST_API_KEY,1,2"
        for i, name in enumerate(names)
    ]
    (folder / "models.csv").write_text(
        "\n".join([f"model,family,release,base_url,name,key{PRICES}", *rows]) + "\n"
    )


def outputs(model: str) -> str:
    return f"results/asked/fingerprint/api/outputs/{model}.parquet"


def test_answers_are_collected_resumed_and_a_new_model_asks_only_itself(survey, server, tmp_path):
    server.refuse = {"story 2": 400}
    said = snakemake(tmp_path, "--", outputs("one"), configfile=survey, ok=False)
    assert "status 400; 2 of 4 answers are saved, run the same command to resume" in said
    server.refuse, server.flaky = {}, True
    before = len(server.asked)
    server.asked.clear()
    parts = [f"results/asked/fingerprint/api/parts/{model}.json" for model in ("one", "two")]
    snakemake(tmp_path, "--", *parts, configfile=survey)
    assert (
        before == 3 and len(server.asked) == 1 + 2 + 4
    )  # one broken answer, two that were missing, four of the other model
    first = min(server.asked, key=lambda asked: asked["model"])
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("vendor/one", 0.7, 50)
    assert [m["role"] for m in first["messages"]] == ["system", "user"] and first["messages"][1][
        "content"
    ].startswith("story 2\n\nWrite about")
    table = artifacts.read_table(tmp_path / outputs("one")).to_pylist()
    assert [row["prompt_id"] for row in table] == ["p0", "p1", "p2", "p3"] and table[3][
        "output"
    ].startswith("story 3 lantern")
    found = artifacts.read_json(tmp_path / parts[0])[0]
    assert found["outputs"] == 4 and found["top_bigrams"][0]["ngram"] == "story lantern"
    log = (tmp_path / "results/asked/logs/fingerprint/api/outputs/one.log").read_text()
    assert (
        "4 prompts, 2 already answered; at most about 0.00 for the rest" in log
        and "4 of 4 prompts" in log
    )
    everything = [
        path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and path.name != "models.csv"
    ]
    assert not any(KEY.encode() in content for content in everything)
    list_models(tmp_path, server, "one", "two", "three", "four")
    jobs = planned(
        snakemake(
            tmp_path,
            "-n",
            "--",
            *parts,
            "results/asked/fingerprint/api/parts/four.json",
            configfile=survey,
        )
    )
    assert jobs == {"collect_outputs": 1, "count_fingerprints": 1, "total": 2}


def test_a_key_that_is_missing_or_refused_gets_one_line_without_the_key(server, monkeypatch):
    row = {"model": "one", "key": "TEST_API_KEY"}
    monkeypatch.delenv("TEST_API_KEY", raising=False)
    with pytest.raises(
        ValueError,
        match="the environment variable TEST_API_KEY .* is not set; export it and run the same",
    ):
        collect._key(row)
    url = f"http://127.0.0.1:{server.server_port}/v1"
    with (
        openai.OpenAI(base_url=url, api_key="sk-wrong-123", max_retries=0) as client,
        pytest.raises(openai.OpenAIError) as caught,
    ):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "story 1"}])
    said = collect._refused(caught.value, {"base_url": url, "name": "m"}, row, 2, 4)
    assert said == (
        f"{url}: the endpoint rejected the key in TEST_API_KEY; 2 of 4 answers are saved, run the "
        "same command to resume"
    )


def test_prices_are_foretold_and_counted_where_they_are_known():
    row, settings = (
        {"model": "m", "input_price": "2", "output_price": "10"},
        {"system": "s" * 100, "instruction": "i" * 100, "max_tokens": 1000},
    )
    assert (
        collect._foretold([("p", "x" * 200)] * 100, settings, row)
        == "; at most about 1.02 for the rest"
    )
    assert (
        collect._spent([{"tokens": (500_000, 100_000)}], row)
        == ", 100,000 tokens written, 2.00 spent"
    )
    assert collect._foretold([("p", "x")], settings, {"model": "m"}) == ""
    with pytest.raises(
        ValueError, match="input_price, output_price of model m: 'x', '1'; both must be numbers"
    ):
        collect._price({"model": "m", "input_price": "x", "output_price": "1"}, 1, 1)


def test_a_line_that_was_cut_short_is_asked_again(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"prompt_id": "a", "output": "x", "tokens": [1, 1]}\n{"prompt_id": "b", "out')
    assert list(collect._saved(path)) == ["a"] and path.read_text().endswith("}\n")


def test_requests_keep_their_pace():
    pace, start = collect.Pace(1200), time.monotonic()
    for _ in range(4):
        pace.wait()
    assert 0.14 < time.monotonic() - start < 1
