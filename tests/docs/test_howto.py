"""The survey of docs/howto/deployed-models.md, against an endpoint on this computer."""

import json
from http.server import BaseHTTPRequestHandler

import pytest

from pollination.core import artifacts
from tests.conftest import serving, snakemake
from tests.docs.pages import DOCS, save

PAGE = DOCS / "howto/deployed-models.md"


class Answers(BaseHTTPRequestHandler):
    """Answers each prompt with words of its model."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        family, number = asked["model"].split("-")
        words = {"ada": "lantern harbour whispered", "bob": "granite thunder meadow"}[family]
        text = f"{words} silver lighthouse number{number} " * 40
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        said = {"id": "1", "object": "chat.completion", "created": 1, "model": asked["model"]}
        usage = {"prompt_tokens": 10, "completion_tokens": 80, "total_tokens": 90}
        body = json.dumps(said | {"choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words) -> None:
        pass


@pytest.fixture
def server():
    with serving(Answers, asked=[]) as here:
        yield here


@pytest.mark.slow
def test_the_survey_of_the_page_runs_to_its_figures(tmp_path, server, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "sk-test")
    monkeypatch.setenv("POLLINATION_KEYS", f"MY_API_KEY@127.0.0.1:{server.server_port}")
    monkeypatch.setenv("POLLINATION_REQUESTS_PER_MINUTE", "6000")
    save(PAGE, tmp_path)
    models = tmp_path / "own/models.csv"
    address = f"http://127.0.0.1:{server.server_port}/v1"
    models.write_text(models.read_text().replace("http://127.0.0.1:8000/v1", address))
    config = tmp_path / "own/survey.yaml"
    snakemake(tmp_path, "--", "fingerprint", configfile=config, cwd=tmp_path)
    assert len(server.asked) == 4 * 6
    results = tmp_path / "results/survey"
    table = artifacts.read_table(results / "fingerprint/api/outputs/ada-1.parquet")
    assert table.num_rows == 6
    assert (results / "report/fingerprint_similarity.api.svg").exists()
    everything = [path.read_bytes() for path in results.rglob("*") if path.is_file()]
    assert not any(b"sk-test" in content for content in everything)
