"""A local endpoint whose replies a test chooses, and collecting jobs that ask it."""

import json
import signal
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

from snakemake.iocontainers import InputFiles, Log, OutputFiles, Params, Wildcards

from pollination.analysis.fingerprint.collect import collect
from pollination.core import artifacts
from pollination.core.job import Job

KEY = "sk-very-secret-9731"
Reply = tuple[int, dict[str, str], bytes]
"""Status, headers beside content-length, body."""


def chat(text: object, finish: object = "stop", **message) -> Reply:
    """A reply in OpenAI's form."""
    said = {"role": "assistant", "content": text} | message
    choice = {"index": 0, "finish_reason": finish, "message": said}
    usage = {"prompt_tokens": 10, "completion_tokens": 80, "total_tokens": 90}
    return as_json({"id": "1", "model": "served-1", "choices": [choice], "usage": usage})


def as_json(value: object, status: int = 200, **headers: str) -> Reply:
    headers = {name.replace("_", "-"): text for name, text in headers.items()}
    return status, {"content-type": "application/json"} | headers, json.dumps(value).encode()


def prompt_of(asked: dict) -> str:
    return asked["messages"][-1]["content"].split("\n")[0]


def story(asked: dict) -> Reply:
    return chat(f"{prompt_of(asked)} lantern " * 40)


class Endpoint(BaseHTTPRequestHandler):
    """Replies with what `server.reply(request)` returns, and notes requests and their headers.

    A header `content-length` of the reply replaces the true one.
    """

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        self.server.headers.append(dict(self.headers))
        status, headers, body = self.server.reply(asked)
        self.send_response(status)
        for name, value in (
            {"content-length": str(len(body)), "connection": "close"} | headers
        ).items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # the job may have given up
            self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_words) -> None:
        pass


def list_models(path: Path, address: str, key: str = "TEST_API_KEY") -> None:
    rows = [
        f"{name},{name[0]},2024-0{i},{address},vendor/{name},{key}"
        for i, name in enumerate(("ada", "abe", "bob"), 1)
    ]
    path.write_text("\n".join(["model,family,release,base_url,name,key", *rows]) + "\n")


SETTINGS = {
    "prompts": "",
    "max_prompts": 100,
    "system": "",
    "instruction": "",
    "temperature": 0.7,
    "max_tokens": 50,
}


def start(folder: Path, **settings) -> list[dict] | str:
    """Run a collecting job in `folder` (models.csv, prompts.jsonl); its rows, or its last error."""
    where = {"catalogue": str(folder / "models.csv"), "model": "ada", "name": "vendor/ada"}
    where["base_url"] = (folder / "models.csv").read_text().splitlines()[1].split(",")[3]
    parts = {
        "input": InputFiles(fromdict={"prompts": str(folder / "prompts.jsonl")}),
        "output": OutputFiles(
            fromdict={
                "outputs": str(folder / "out/ada.parquet"),
                "run": str(folder / "out/ada.run.json"),
            }
        ),
        "params": Params(fromdict={"recipe": 1, "served": where, "collect": SETTINGS | settings}),
        "wildcards": Wildcards(fromdict={"survey": "api", "part": "ada"}),
        "log": Log(toclone=[str(folder / "ada.log")]),
    }
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    }
    try:
        with Job(
            SimpleNamespace(rule="collect_outputs", threads=1, config={}, **parts), online=True
        ) as job:
            collect(job)
        return artifacts.read_table(folder / "out/ada.parquet").to_pylist()
    except SystemExit:
        return (folder / "ada.log").read_text().splitlines()[-1]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    found = start(Path(sys.argv[1]))
    sys.exit(isinstance(found, str) and found)
