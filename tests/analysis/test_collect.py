"""Collecting outputs through an API: against local servers that refuse, break off, answer what is
no answer, and count what they are asked.
"""

import gzip
import json
import os
import random
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from pollination.analysis.fingerprint import answers, prices, replies, requests
from pollination.core import artifacts
from pollination.core.settings import lean, node_at
from pollination.plan.config.endpoints import check_key, read_endpoint
from tests.analysis.endpoint import (
    KEY,
    Endpoint,
    as_json,
    chat,
    list_models,
    prompt_of,
    start,
    story,
)
from tests.conftest import ROOT, planned, serving, snakemake


@pytest.fixture
def server():
    with serving(Endpoint, asked=[], headers=[], reply=story) as here:
        here.address = f"http://127.0.0.1:{here.server_port}/v1"
        yield here


@pytest.fixture
def survey(tmp_path, server, monkeypatch) -> Path:
    """A folder with three models at the server and four prompts, and a user who allows the key."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TEST_API_KEY", KEY)
    monkeypatch.setenv("POLLINATION_KEYS", f"TEST_API_KEY@127.0.0.1:{server.server_port}")
    monkeypatch.setenv("POLLINATION_REQUESTS_PER_MINUTE", "60000")
    monkeypatch.setenv("POLLINATION_REQUESTS_AT_ONCE", "1")
    monkeypatch.setenv("POLLINATION_REQUEST_RETRIES", "1")
    monkeypatch.setattr(requests, "FIRST_PAUSE_S", 0.01)
    list_models(tmp_path / "models.csv", server.address)
    write_prompts(tmp_path, 4)
    return tmp_path


def write_prompts(folder: Path, count: int) -> None:
    lines = [{"prompt_id": f"p{i}", "prompt": f"story {i}"} for i in range(count)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def once(bad):
    """A server that sends `bad` in reply to its second request."""
    seen = []

    def reply(asked):
        seen.append(asked)
        return bad if len(seen) == 2 else story(asked)

    return reply


def bytes_below(folder: Path) -> bytes:
    own = [path for path in folder.rglob("*") if path.is_file() and path.name != "models.csv"]
    return b"".join(path.read_bytes() for path in own)


def body(**message) -> dict:
    return json.loads(chat("x" * 50, **message)[2])


BAD = {
    "empty body": (200, {}, b""),
    "not JSON": (200, {"content-type": "application/json"}, b'{"choices": [{"mess'),
    "not a JSON object": as_json([1, 2]),
    "not UTF-8": (200, {}, b'{"choices": "\xff\xfe"}'),
    "error 502 under status 200": as_json({"error": {"message": "Provider", "code": 502}}),
    "error under status 200": as_json({"error": "overloaded", "choices": None}),
    "no choices": as_json(body() | {"choices": []}),
    "no choices ": as_json(body() | {"choices": {"0": 1}}),
    "no choices  ": as_json({"object": "chat.completion", "choices": [None]}),
    "no message": as_json({"choices": [{"index": 0, "finish_reason": "stop", "text": "hi"}]}),
    "no text": chat(None),
    "no text ": chat(" \n"),
    "no text  ": chat([]),
    "no text   ": chat("\ufeff\u200b\n\x01"),
    "no text after reasoning": chat(None, reasoning_content="I consider the harbour"),
    "content is a number": chat(7),
    "content is a mapping": chat({"text": "x"}),
    "content part of type 'image_url'": chat([{"type": "image_url", "image_url": {}}]),
    "content part without text": chat([{"type": "text"}]),
    "half of a surrogate pair": chat("a lantern \ud83d in the harbour"),
    "NUL character": chat("a lantern \0 in the harbour"),
    "finish reason 'error'": chat("A lant", "error"),
    "finish reason missing": chat("A lant", None),
    "tool call": chat("Let me look.", "tool_calls", tool_calls=[{"id": "1"}]),
    "content filter": chat(None, "content_filter"),
    "content filter ": as_json({"error": {"code": "content_filter", "message": "no"}}, 400),
    "status 503": as_json({"error": {"message": "busy"}}, 503),
    "status 429": as_json({"error": {"message": "slow down"}}, 429, retry_after="0.05"),
    "status 502": (502, {"content-type": "text/html"}, b"<html>Bad gateway</html>"),
    "status 204": (204, {"content-length": "0"}, b""),
    "broken connection": (200, {"content-length": "5000"}, chat("x" * 99)[2]),
    "broken connection ": (200, {"transfer-encoding": "chunked"}, b'40\r\n{"choices"'),
    "body not decompressible": (200, {"content-encoding": "gzip"}, b"no gzip at all"),
    "body above 16 MiB": (200, {"content-encoding": "gzip"}, gzip.compress(b" " * 2**25)),
}


@pytest.mark.parametrize("label", BAD)
def test_a_reply_that_is_no_answer_is_counted_and_asked_again(survey, server, label):
    server.reply = once(BAD[label])
    rows = start(survey)
    assert [row["output"][:15] for row in rows] == [f"story {i} lantern" for i in range(4)]
    assert len(server.asked) == 5
    assert f"replies without an answer: 1 {label.strip()}" in (survey / "ada.log").read_text()


LASTING = ["no choices", "error 502 under status 200", "no text", "half of a surrogate pair"]


@pytest.mark.parametrize("label", [*LASTING, "content filter", "status 503"])
def test_a_prompt_without_an_answer_costs_no_other_and_is_named(survey, server, label):
    server.reply = lambda asked: BAD[label] if prompt_of(asked) == "story 1" else story(asked)
    said = start(survey)
    words = {"error 502 under status 200": "Provider", "status 503": "busy"}.get(label)
    reason = f'{label}; the endpoint says "{words}"' if words else label
    assert f"1 of 4 prompts have no answer (1 {reason}): p1. All other answers" in said
    assert "set fingerprint.api.collect.missing: skip" in said
    assert len(server.asked) == 5 and not (survey / "out/ada.parquet").exists()
    server.reply, server.asked[:] = story, []
    assert len(start(survey)) == 4 and [prompt_of(asked) for asked in server.asked] == ["story 1"]


def test_an_endpoint_that_never_answers_stops_the_job_early(survey, server):
    write_prompts(survey, 50)
    server.reply = lambda _: BAD["no choices"]
    assert "5 prompts in a row got no answer; the last: no choices; 0 of 50 answers" in start(
        survey
    )
    assert len(server.asked) == 10


def test_missing_skip_keeps_the_reason_instead_of_a_text(survey, server):
    server.reply = lambda asked: (
        chat(None, "length", reasoning="hm") if prompt_of(asked) == "story 2" else story(asked)
    )
    said = start(survey)
    assert "all of the 50 tokens; raise fingerprint.api.collect.max_tokens" in said
    asked = len(server.asked)
    rows = start(survey, missing="skip")
    assert len(server.asked) == asked + 2  # the two answers were taken over
    assert (rows[2]["output"], rows[2]["missing"], rows[2]["finish_reason"]) == (
        None,
        "no text before the limit of tokens",
        "length",
    )
    answers.check_collected(survey / "out/ada.parquet")


def test_more_tokens_keep_the_answers_that_ended_by_themselves(survey, server):
    endings = {"story 0": "stop", "story 1": "length", "story 2": "stop"}

    def reply(asked):
        finish = endings.get(prompt_of(asked))
        return chat("a lantern", finish) if finish else chat("", "length")

    server.reply = reply
    assert "collect.max_tokens" in start(survey)
    server.reply, server.asked[:] = story, []
    rows = start(survey, max_tokens=500)
    assert [prompt_of(asked) for asked in server.asked] == ["story 1", "story 3"]
    assert rows[0]["output"] == "a lantern" and all(row["finish_reason"] == "stop" for row in rows)
    server.asked.clear()
    (survey / "out/ada.parquet").unlink()
    start(survey, temperature=0.1)
    assert len(server.asked) == 4  # another temperature is another distribution


STOPS = {
    "HTML": ((200, {"content-type": "text/html"}, b"<!doctype html><p>Welcome</p>"), "Welcome",
             "base_url in models.csv leads to a web page"),
    "page as text": ((200, {"content-type": "text/plain"}, b" \n<HTML>Hi"), "Hi", "ends in /v1"),
    "stream": ((200, {"content-type": "text/event-stream"}, b"data: {}\n\n"), "", "streams"),
    "400": (as_json({"error": {"message": "temperature: 0.7"}}, 400), "temperature: 0.7",
            "fingerprint.api.collect"),
    "401": (as_json({"error": {"message": f"no, {KEY}"}}, 401), "no, ", "the key in TEST_API_KEY"),
    "401 masked": (as_json({"error": {"message": "sk-very****9731"}}, 401), "***", "TEST_API_KEY"),
    "402": (as_json({"detail": "no credit"}, 402), "no credit", "add credit"),
    "403": (as_json({"message": "not you"}, 403), "not you", "ask for access"),
    "404": (as_json({"error": {"message": "gone"}}, 404), "gone", "no model vendor/ada at this"),
    "404 under 200": (as_json({"object": "error", "message": "gone", "code": 404}), "gone",
                      "no model vendor/ada"),
    "quota": (as_json({"error": {"message": "pay", "code": "insufficient_quota"}}, 429), "pay",
              "add credit"),
    "501": (as_json({"error": {"message": "no chats"}}, 501), "no chats", "base_url"),
    "a day": (as_json({"error": {"message": "tomorrow"}}, 429, retry_after="86400"), "tomorrow",
              "asks to wait 86,400 s"),
    "echo": (chat(f"Your key is {KEY}"), "", "the reply repeats the API key"),
    "echo aside": (chat("text", reasoning=f"key {KEY}"), "", "the reply repeats the API key"),
}  # fmt: skip


@pytest.mark.parametrize("kind", STOPS)
def test_what_asking_again_cannot_cure_stops_with_the_reason_and_no_key(survey, server, kind):
    bad, words, fix = STOPS[kind]
    server.reply = lambda asked: bad if prompt_of(asked) == "story 2" else story(asked)
    said = start(survey)
    assert words in said and fix in said
    assert "2 of 4 answers are saved, run the same command to resume" in said
    assert len(server.asked) == 3
    assert KEY.encode() not in bytes_below(survey) and b"*9731" not in bytes_below(survey)
    server.reply = story
    assert len(start(survey)) == 4 and len(server.asked) == 5


def test_answers_under_way_are_saved_when_another_request_stops_the_job(
    survey, server, monkeypatch
):
    monkeypatch.setenv("POLLINATION_REQUESTS_AT_ONCE", "4")
    together = threading.Barrier(4, timeout=20)

    def reply(asked):
        together.wait()
        if prompt_of(asked) == "story 0":
            return as_json({"error": "no"}, 401)
        time.sleep(0.3)
        return story(asked)

    server.reply = reply
    assert "3 of 4 answers are saved" in start(survey)
    server.reply, server.asked[:] = story, []
    assert len(start(survey)) == 4 and [prompt_of(asked) for asked in server.asked] == ["story 0"]


def test_no_redirect_takes_the_key_to_another_host(survey, server):
    with serving(Endpoint, asked=[], headers=[], reply=story) as other:
        target = f"http://user:word@127.0.0.1:{other.server_port}/v1/chat/completions?token=abc"
        for status in (301, 302, 303, 307, 308):
            server.reply = lambda _, status=status: (status, {"location": target}, b"")
            said = start(survey)
            assert f"the endpoint redirects to http://127.0.0.1:{other.server_port}/v1" in said
            assert "word" not in said and "abc" not in said
        assert not other.asked


def test_the_columns_hold_reasons_thoughts_and_refusals(survey, server):
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
             {"type": "text", "text": "A lan"}, {"type": "text", "text": "tern"}]  # fmt: skip
    said = {
        "a": chat("A lantern", "length", reasoning="by day"),
        "b": chat("A lantern", "content_filter"),
        "c": chat("<think>\nby night\n</think>\n\nA lantern", "EOS"),
        "d": chat("by dusk</think>A lantern"),
        "e": chat(parts),
        "f": chat(None, refusal="I cannot \ud800 write this"),
        "g": chat("A lantern", reasoning_details=[{"type": "reasoning.text", "text": "by dawn"}]),
        "h": (200, {"content-type": "text/plain"}, b"\xef\xbb\xbf \n" + chat("A lantern")[2]),
        "i": (200, {"content-encoding": "gzip"}, gzip.compress(chat("A lantern 🏮\u2028")[2])),
    }
    lines = [{"prompt_id": name, "prompt": name} for name in said]
    (survey / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    server.reply = lambda asked: said[prompt_of(asked)]
    rows = {row["prompt_id"]: row for row in start(survey)}
    assert {name: row["output"] for name, row in rows.items()} == dict.fromkeys(
        said, "A lantern"
    ) | {"f": None, "i": "A lantern 🏮\u2028"}
    assert [rows[name]["finish_reason"] for name in "abc"] == ["length", "content_filter", "EOS"]
    thoughts = [rows[name]["reasoning"] for name in "abcdefg"]
    assert thoughts == ["by day", None, "by night", "by dusk", "hm", None, "by dawn"]
    assert (rows["f"]["refusal"], rows["f"]["missing"]) == ("I cannot ? write this", "refusal")
    assert (rows["a"]["served_model"], rows["a"]["completion_tokens"]) == ("served-1", 80)
    log = (survey / "ada.log").read_text()
    assert "8 of 9 prompts have an answer (1 cut at max_tokens, 1 cut by a content filter, " in log
    assert len(server.asked) == 9


def test_an_unclosed_thought_and_old_limits_are_no_answers(survey, server):
    server.reply = lambda _: chat("<think>I wonder", "length")
    assert "raise fingerprint.api.collect.max_tokens" in start(survey)
    words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."

    def newer(asked):
        if "max_tokens" in asked:
            return as_json({"error": {"message": words}}, 400)
        assert asked["max_completion_tokens"] == 50
        return story(asked)

    server.reply = newer
    assert len(start(survey)) == 4


def test_a_finished_collection_with_null_outputs_is_named_and_mended(survey, server):
    start(survey)
    old = artifacts.read_table(survey / "out/ada.parquet", ["model", "prompt_id", "prompt"])
    texts = pa.array(["A lantern", None, "", "A harbour"], pa.string())
    table = old.append_column("output", texts)
    for path in (survey / "out").rglob("ada.parquet"):  # the kept copy is a link to it
        artifacts.write_table(path, table)
        digest = artifacts.digest(path)
        record = json.loads(path.with_name("ada.run.json").read_text())
        record = {key: value for key, value in record.items() if key != "seal"}
        record["outputs"]["ada.parquet"] = digest
        artifacts.write_json(path.with_name("ada.run.json"), artifacts.seal(record))
    with pytest.raises(ValueError, match=r"ada.parquet: 2 outputs are empty .*\(rows 2, 3\)"):
        answers.check_collected(survey / "out/ada.parquet")
    server.asked.clear()
    for path in (survey / "out").glob("ada.*"):
        path.unlink()
    rows = start(survey)
    assert [prompt_of(asked) for asked in server.asked] == ["story 1", "story 2"]
    assert [rows[0]["output"], rows[3]["output"]] == ["A lantern", "A harbour"]
    answers.check_collected(survey / "out/ada.parquet")


def test_torn_and_foreign_lines_are_passed_over(tmp_path):
    good = {"prompt_id": "a", "output": "x", "tokens": [1, 1]}
    lines = [
        json.dumps(good),
        json.dumps(good | {"prompt_id": "b", "output": None}),  # as earlier versions kept it
        "\0\0\0\0",
        '["a"]',
        json.dumps(good | {"prompt_id": "c", "tokens": 3}),
        json.dumps(good | {"prompt_id": "d", "asked": "another", "max_tokens": 5}),
        '{"prompt_id": "e", "out',
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(lines))
    store = answers.Answers(tmp_path, dict.fromkeys("abcde", "digest"), 5, False)
    assert (list(store.found), list(store.tried), store.damaged) == (["a"], ["b"], 4)
    store.save("e", {"output": "y"})
    store.file.close()
    again = answers.Answers(tmp_path, dict.fromkeys("abcde", "digest"), 5, False)
    assert list(again.found) == ["a", "e"]
    again.file.close()


def collector(folder: Path) -> subprocess.Popen:
    words = [sys.executable, "-m", "tests.analysis.endpoint", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "POLLINATION_BEAT_S": "0.5"}
    return subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)


def test_killed_collectors_lose_only_the_requests_under_way(survey, server, monkeypatch):
    monkeypatch.setenv("POLLINATION_REQUESTS_AT_ONCE", "3")
    write_prompts(survey, 60)
    draw, kills = random.Random(7), 2

    def reply(asked):
        time.sleep(0.02)
        return story(asked)

    server.reply = reply
    for _ in range(kills):
        process, before = collector(survey), len(server.asked)
        goal = before + draw.randint(5, 15)
        while len(server.asked) < goal and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.wait()
    assert collector(survey).wait() == 0
    assert 60 <= len(server.asked) <= 60 + 3 * kills
    assert artifacts.read_table(survey / "out/ada.parquet").num_rows == 60


def test_a_signal_saves_the_requests_under_way(survey, server):
    write_prompts(survey, 40)

    def reply(asked):
        time.sleep(0.05)
        return story(asked)

    server.reply = reply
    process = collector(survey)
    while len(server.asked) < 5 and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    assert process.wait() == 1
    asked = len(server.asked)
    last = (survey / "ada.log").read_text().splitlines()[-1]
    assert f"stopped by SIGTERM after {asked} of 40 prompts; their answers are saved" in last
    assert len(start(survey)) == len(server.asked) == 40


def test_a_pause_that_the_server_asks_for_holds_all_requests(survey, server, monkeypatch):
    monkeypatch.setenv("POLLINATION_REQUESTS_AT_ONCE", "3")
    began, times = time.monotonic(), []

    def reply(asked):
        times.append(time.monotonic() - began)
        busy = as_json({"error": "busy"}, 429, retry_after="1")
        return busy if len(times) == 1 else story(asked)

    server.reply = reply
    write_prompts(survey, 30)
    assert len(start(survey)) == 30
    assert sum(moment < times[0] + 0.9 for moment in times) <= 4 and times[-1] > times[0] + 1


def test_two_collectors_at_once_ask_each_prompt_once(survey, server):
    write_prompts(survey, 30)

    def reply(asked):
        time.sleep(0.02)
        return story(asked)

    server.reply = reply
    both = [collector(survey), collector(survey)]
    assert [process.wait() for process in both] == [0, 0] and len(server.asked) == 30


def outputs(model: str) -> str:
    return f"results/asked/fingerprint/api/outputs/{model}.parquet"


def config_of(folder: Path) -> Path:
    asked = {"prompts": str(folder / "prompts.jsonl"), "max_prompts": 4, "system": "Be brief."}
    survey = {"kind": "collect", "models": str(folder / "models.csv")}
    path = folder / "api.yaml"
    text = {"run": "asked", "fingerprint": {"api": survey | {"collect": asked}}}
    path.write_text(yaml.safe_dump(text))
    return path


@pytest.mark.slow
def test_a_survey_is_resumed_and_a_new_model_asks_only_itself(survey, server, tmp_path):
    bad = as_json({"error": {"message": f"no, {KEY}"}}, 400)
    server.reply = lambda asked: bad if prompt_of(asked) == "story 2" else story(asked)
    said = snakemake(tmp_path, "--", outputs("ada"), configfile=config_of(survey), ok=False)
    assert 'status 400 (the endpoint says "no, ***' in said
    assert "2 of 4 answers are saved, run the same command to resume" in said
    server.reply, server.asked[:] = story, []
    parts = [f"results/asked/fingerprint/api/parts/{model}.json" for model in ("ada", "abe")]
    snakemake(tmp_path, "--", *parts, configfile=config_of(survey))
    assert len(server.asked) == 2 + 4  # two that were missing, four of the other model
    first = min(server.asked, key=lambda asked: asked["model"] != "vendor/ada")
    assert (first["temperature"], first["max_tokens"]) == (0.7, 4096)
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    found = artifacts.read_json(tmp_path / parts[0])[0]
    assert found["outputs"] == 4 and found["top_bigrams"][0]["ngram"] == "story lantern"
    assert KEY.encode() not in bytes_below(tmp_path)
    text = (tmp_path / "models.csv").read_text()
    more = f"bea,b,2024-04,{server.address},vendor/bea,TEST_API_KEY\n"
    (tmp_path / "models.csv").write_text(text + more)
    parts.append("results/asked/fingerprint/api/parts/bea.json")
    jobs = planned(snakemake(tmp_path, "-n", "--", *parts, configfile=config_of(survey)))
    assert jobs == {"collect_outputs": 1, "count_fingerprints": 1, "total": 2}


def test_the_new_key_is_no_param_of_old_collections():
    collected = node_at(["fingerprint", "api", "collect"])
    assert lean({"max_tokens": 5, "missing": "error"}, collected) == {"max_tokens": 5}


def test_check_names_a_key_that_is_not_allowed_and_an_empty_output(survey, monkeypatch, tmp_path):
    config, words = config_of(survey), [sys.executable, "-m", "pollination", "check"]
    monkeypatch.delenv("POLLINATION_KEYS")
    (tmp_path / outputs("abe")).parent.mkdir(parents=True)
    table = {"model": ["abe"], "prompt_id": ["p"], "prompt": ["x"], "output": [None]}
    artifacts.write_table(tmp_path / outputs("abe"), pa.table(table))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [*words, "--configfile", str(config)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 1 and "outputs/abe.parquet: 1 outputs are empty" in ran.stderr
    assert ran.stderr.count("you have not allowed TEST_API_KEY for the host 127.0.0.1:") == 2


ROW = {"model": "ada", "key": "HF_TOKEN", "name": "m"}


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("https://api.example.com/v1", "HF_TOKEN@api.example.com"),
        ("https://API.Example.com:443/v1/", "OTHER@b.example , HF_TOKEN@api.example.COM:443,"),
        ("https://api.example.com:8443", "HF_TOKEN@api.example.com:8443"),
        ("http://localhost:8000/v1", "HF_TOKEN@localhost:8000"),
        ("http://127.0.0.2:8000/v1", "HF_TOKEN@127.0.0.2:8000"),
        ("http://[0:0::1]:8000/v1", "HF_TOKEN@[::1]:8000"),
        ("http://localhost/v1", "HF_TOKEN@localhost:80"),
    ],
)
def test_a_key_goes_where_the_user_allows_it(monkeypatch, tmp_path, address, allowed):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("POLLINATION_KEYS", allowed)
    endpoint = check_key(ROW | {"base_url": address})
    assert endpoint.url.lower().startswith(address.split("//")[0])
    monkeypatch.setenv("POLLINATION_KEYS", "OTHER@" + allowed.rpartition("@")[2].rstrip(","))
    with pytest.raises(ValueError, match="you have not allowed HF_TOKEN for the host") as caught:
        check_key(ROW | {"base_url": address})
    # the line to type, taken as it is said, allows it
    line = str(caught.value).split("POLLINATION_KEYS=")[1].split('"')[1]
    was = os.environ["POLLINATION_KEYS"]
    monkeypatch.setenv("POLLINATION_KEYS", line.replace("$POLLINATION_KEYS", was))
    assert check_key(ROW | {"base_url": address})
    # so does the line of the file
    monkeypatch.delenv("POLLINATION_KEYS")
    path = tmp_path / ".config/pollination/keys.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(str(caught.value).partition("keys.yaml: ")[2] + "\nother.example: [A_B, C]\n")
    path.chmod(0o600)
    assert check_key(ROW | {"base_url": address})
    path.chmod(0o620)
    with pytest.raises(ValueError, match="other users may write this file.*chmod go-w"):
        check_key(ROW | {"base_url": address})


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("https://api.openai.com.evil.example/v1", "not allowed HF_TOKEN for the host api.openai"),
        ("https://api.openai.com:8443/v1", "not allowed HF_TOKEN for the host api.openai.com:8443"),
        ("https://xapi.openai.com", "not allowed"),
        ("https://openai.com", "not allowed"),
        ("https://localhost.evil:8000/v1", "not allowed"),
        ("https://127.0.0.1:8000", "not allowed"),
        ("http://api.openai.com/v1", "not sent over http to api.openai.com:80"),
        ("http://api.openai.com:443/v1", "not sent over http"),
        ("http://localhost.evil:8000/v1", "not sent over http"),
        ("http://127.0.0.1.evil:8000/v1", "not sent over http"),
        ("http://127.1:8000/v1", "not sent over http"),
        ("http://0.0.0.0:8000/v1", "not sent over http"),
        ("http://2130706433:8000/v1", "not sent over http"),
        ("http://[::ffff:7f00:1]:8000/v1", "not sent over http"),
        ("http://10.0.0.4:8000/v1", "not sent over http to 10.0.0.4:8000.*ssh -L 8000"),
        ("https://api.openai.com@evil.example/v1", "user name or password"),
        ("https://user:pass@api.openai.com/v1", "user name or password"),
        ("https://api.openai.com\\@evil.example/v1", "user name or password"),
        ("https://api.openai.com\\.evil.example/v1", "not an address"),
        ("https://evil.example#@api.openai.com/v1", "user name or password"),
        ("https://api.openai.com./v1", "empty part"),
        ("https://api..openai.com/v1", "empty part"),
        ("https://аpi.openai.com/v1", "xn--"),
        ("https://api.openai.com。evil.example/v1", "xn--"),
        ("https://api.openai%2ecom/v1", "not allowed"),
        ("https://api.openai.com:99999/v1", "port 99999"),
        ("https:///v1", "not allowed"),
        ("https://[::1/v1", "not allowed"),
        ("https://api.openai.com/v1?x=1", "query"),
        ("https://api.openai.com/v1/chat/completions", "leave out the part"),
        ("ftp://api.openai.com/v1", "not an address"),
        ("file:///etc/passwd", "not an address"),
        ("api.openai.com/v1", "not an address"),
        ("https://api.openai.com/v1\n", "not an address"),
        ("https://api.openai.com /v1", "not allowed"),
    ],
)
def test_hosts_that_look_alike_get_no_key(monkeypatch, tmp_path, address, message):
    monkeypatch.setenv("HOME", str(tmp_path))
    allowed = "HF_TOKEN@api.openai.com,HF_TOKEN@localhost:8000,HF_TOKEN@127.0.0.1:443"
    monkeypatch.setenv("POLLINATION_KEYS", allowed.replace("443", "9000"))
    with pytest.raises(ValueError, match=message) as caught:
        check_key(ROW | {"base_url": address})
    assert "pass" not in str(caught.value).replace("password", "").replace("passwd", "")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("HF_TOKEN", "POLLINATION_KEYS, entry 1: not of the form VARIABLE@HOST"),
        ("A@b.example,HF_TOKEN=hf_secret", "POLLINATION_KEYS, entry 2: not of the form"),
        ("HF_TOKEN@https://api.openai.com/v1", "entry 1: not of the form"),
        ("HF_TOKEN@*.openai.com", "entry 1: not of the form"),
        ("HF_TOKEN@*", "entry 1: not of the form"),
        ("*@api.openai.com", "entry 1: not of the form"),
        ("hf_secret@api.openai.com", "entry 1: not of the form"),
    ],
)
def test_a_malformed_permission_allows_nothing_and_is_not_repeated(
    monkeypatch, tmp_path, setting, message
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("POLLINATION_KEYS", setting)
    with pytest.raises(ValueError, match=message) as caught:
        check_key(ROW | {"base_url": "https://api.openai.com/v1"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n", "a: [", "a.example: {}\n", "a.example: 3\n", "\xff"])
def test_a_malformed_file_of_keys_allows_nothing(monkeypatch, tmp_path, text):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".config/pollination/keys.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(ValueError, match="keys.yaml.*of the form HOST: VARIABLE"):
        check_key(ROW | {"base_url": "https://api.openai.com/v1"})


def test_a_key_in_the_place_of_its_name_is_not_repeated(survey, server, monkeypatch):
    list_models(survey / "models.csv", server.address, key="hf_AbCdEf123")
    said = start(survey)
    assert "column key of model ada: not the name of an environment variable" in said
    assert "hf_AbC" not in said
    list_models(survey / "models.csv", server.address)
    monkeypatch.delenv("TEST_API_KEY")
    assert "the environment variable TEST_API_KEY" in (said := start(survey))
    assert "is not set; export it and run the same command" in said
    monkeypatch.setenv("TEST_API_KEY", "sk-secret two")
    assert "holds spaces" in (said := start(survey)) and "secret" not in said
    monkeypatch.setenv("POLLINATION_KEYS", "")
    assert "you have not allowed TEST_API_KEY for the host 127.0.0.1:" in start(survey)
    assert not server.asked


def test_a_proxy_sees_nothing_of_what_stays_on_this_machine(survey, server, monkeypatch):
    with serving(Endpoint, asked=[], headers=[], reply=story) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert len(start(survey)) == 4 and not proxy.asked
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}


def test_no_key_no_header(survey, server):
    list_models(survey / "models.csv", server.address, key="")
    assert len(start(survey)) == 4
    assert not any("Authorization" in headers for headers in server.headers)


def test_a_prompt_that_no_table_can_hold_is_refused_before_anything_is_paid(survey, server):
    (survey / "prompts.jsonl").write_text('{"prompt_id": "a", "prompt": "x \\ud800"}\n')
    assert "line 1: prompt 'x \\ud800' is not text" in start(survey) and not server.asked


@pytest.mark.parametrize(
    ("ids", "said"),
    [([], "the file holds no prompt"), (["a", "b", "a"], "prompt_id 'a' appears twice")],
)
def test_prompts_without_rows_or_with_one_twice_are_named(survey, server, ids, said):
    lines = [json.dumps({"prompt_id": name, "prompt": "x"}) + "\n" for name in ids]
    (survey / "prompts.jsonl").write_text("".join(lines) or "\n")
    assert f"prompts.jsonl: {said}" in start(survey) and not server.asked


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("POLLINATION_REQUESTS_PER_MINUTE", "0"),
        ("POLLINATION_REQUESTS_AT_ONCE", "none"),
        ("POLLINATION_REQUEST_RETRIES", "-1"),
        ("POLLINATION_REQUEST_TIMEOUT_S", "nan"),
    ],
)
def test_a_limit_that_is_no_number_is_named(survey, monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    assert f"the environment variable {name} is {text!r}; allowed: a number" in start(survey)


def test_a_slow_endpoint_runs_into_the_time_out(survey, server, monkeypatch):
    monkeypatch.setenv("POLLINATION_REQUEST_TIMEOUT_S", "0.3")
    free = threading.Event()

    def reply(asked):
        if len(server.asked) == 1:
            free.wait(20)
        return story(asked)

    server.reply = reply
    assert len(start(survey)) == 4
    free.set()
    assert "1 time-out" in (survey / "ada.log").read_text()


def test_the_wait_that_a_server_asks_for():
    now = format_datetime(datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC), usegmt=True)
    later = format_datetime(datetime(2026, 3, 1, 12, 1, 30, tzinfo=UTC), usegmt=True)
    assert replies.retry_after({"retry-after": "12"}) == 12
    assert replies.retry_after({"retry-after": " 0.5"}) == 0.5
    assert replies.retry_after({"retry-after-ms": "250", "retry-after": "1"}) == 0.25
    assert replies.retry_after({"retry-after": later, "date": now}) == 90
    assert replies.retry_after({"retry-after": now, "date": later}) is None
    assert replies.retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) is None
    for text in ("", "soon", "-3", "nan", "inf", "Wed, 99 Oct"):
        assert replies.retry_after({"retry-after": text}) is None


def test_prices_are_foretold_and_counted_where_they_are_known():
    row, settings = (
        {"model": "m", "input_price": "2", "output_price": "10"},
        {"system": "s" * 100, "instruction": "i" * 100, "max_tokens": 1000},
    )
    forecast = prices.forecast([("p", "x" * 200)] * 100, settings, row)
    assert forecast == "; at most about 1.02 for the rest"
    spent = [{"tokens": (500_000, 100_000)}, {"tokens": (None, None)}]
    assert prices.spending(spent, row) == ", 100,000 tokens written, 2.00 spent"
    assert prices.forecast([("p", "x")], settings, {"model": "m"}) == ""
    with pytest.raises(
        ValueError, match="input_price, output_price of model m: 'x', '1'; both must be numbers"
    ):
        prices.price_of({"model": "m", "input_price": "x", "output_price": "1"}, 1, 1)


def test_requests_keep_their_pace():
    pace = requests.Pace(1200)
    starts = []
    for _ in range(4):
        starts.append(pace.next_s)
        pace.start(pace.next_s)
    assert starts == pytest.approx([0.0, 0.05, 0.10, 0.15])


def test_addresses_are_rebuilt_from_checked_parts():
    assert read_endpoint("HTTPS://Api.Example.com").url == (
        "https://api.example.com:443/chat/completions"
    )
    assert read_endpoint("http://[0::1]:81/a/").url == "http://[::1]:81/a/chat/completions"
