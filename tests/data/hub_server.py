"""A data set on a local server that answers as the Hugging Face hub does, with faults on order."""

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

NAME = "somebody/texts"


class Hub(BaseHTTPRequestHandler):
    """Serves `server.commits` {sha: {file: bytes}}; `server.head` is the commit of "main".

    `server.fault(sha, file, number)` may answer the `number`th request for the bytes of a file:
    an HTTP status, "break" (the connection ends in the middle), or None.
    """

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code: str) -> None:
        self.answer(404, b"{}", X_Error_Code=code)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        words = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        kind = self.headers.get("Content-Type", "")
        asked = json.loads(words) if "json" in kind else parse_qs(words)
        self.route(asked.get("paths", []))

    def do_GET(self) -> None:
        self.route([])

    def route(self, paths: list[str]) -> None:
        place = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(rf"/datasets/{NAME}/resolve/([^/]+)/(.+)", place):
            return self.file(*match.groups())
        match = re.fullmatch(rf"/api/datasets/{NAME}(?:/(\w[\w-]*)/([^/]+)(?:/(.*))?)?", place)
        if not match:
            return self.missing("RepoNotFound")
        kind, revision, under = match.groups()
        sha = self.sha(revision or "main")
        if sha is None:
            return self.missing("RevisionNotFound")
        if kind not in (None, "revision", "tree", "paths-info") or under:  # there is no folder
            return self.missing("EntryNotFound")
        files = self.server.commits[sha]
        entries = [
            {"type": "file", "path": name, "size": len(content), "oid": f"{hash(content):x}"}
            for name, content in files.items()
            if not paths or name in paths
        ]
        if kind in ("tree", "paths-info"):
            body: object = entries
        else:
            body = {"id": NAME, "sha": sha, "siblings": [{"rfilename": name} for name in files]}
        return self.answer(200, json.dumps(body).encode(), Content_Type="application/json")

    def sha(self, revision: str) -> str | None:
        sha = self.server.head if revision == "main" else revision
        return sha if sha in self.server.commits else None

    def file(self, revision: str, name: str) -> None:
        sha = self.sha(revision)
        if sha is None:
            return self.missing("RevisionNotFound")
        content = self.server.commits[sha].get(name)
        if content is None:
            return self.missing("EntryNotFound")
        about = {"X_Repo_Commit": sha, "ETag": f'"{hash(content):x}"', "Accept_Ranges": "bytes"}
        if self.command == "HEAD":
            return self.answer(200, content, **about)
        with self.server.lock:
            self.server.asked.append((sha, name))
            number = self.server.asked.count((sha, name))
        fault = self.server.fault(sha, name, number)
        if isinstance(fault, int):
            return self.answer(fault, b"busy")
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        end = int(asked[2]) + 1 if asked and asked[2] else len(content)
        body = content[first:end]
        if asked:
            about["Content_Range"] = f"bytes {first}-{first + len(body) - 1}/{len(content)}"
        if fault == "break":
            about["Content_Length"] = str(len(body))
            self.answer(206 if asked else 200, body[: len(body) // 2], **about)
            self.close_connection = True
            return None
        return self.answer(206 if asked else 200, body, **about)


def state(commits: dict[str, dict[str, bytes]], head: str, fault: Callable | None = None) -> dict:
    """The attributes of the server, for tests.conftest.serving."""
    return {
        "commits": commits,
        "head": head,
        "fault": fault or (lambda *_: None),
        "asked": [],
        "lock": threading.Lock(),
    }
