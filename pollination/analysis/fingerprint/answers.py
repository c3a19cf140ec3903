"""Keep the answers of a collecting job on disk, and write them as a table.

`answers.jsonl` in the work folder only grows: one line per answer, and one per prompt that got
none. A line that a crash cut short is passed over, and its prompt is asked again.
"""

import hashlib
import json
import logging
import os
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from pollination.analysis.fingerprint.replies import flaw
from pollination.core import artifacts

FILE = "answers.jsonl"
REFUSAL = "refusal"
TEXTS = ("output", "finish_reason", "reasoning", "refusal", "missing", "served_model")


def asked(served: dict, messages: list[dict], temperature: float) -> str:
    """Return the digest of all that decides an answer but max_tokens."""
    parts = [served["base_url"], served["name"], messages, temperature]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def is_text(text: object) -> bool:
    """Return whether a value can be an answer (replies.flaw)."""
    return isinstance(text, str) and flaw(text) is None


class Answers:
    """The answers to `wanted` ({prompt_id: its digest}), by prompt_id in `found`.

    A record has the fields of TEXTS, `tokens`, `asked` and `max_tokens`. Without output, `missing`
    says why; a refusal is final, other reasons count as asked but without an answer (`tried`).
    """

    def __init__(self, work: Path, wanted: dict[str, str], max_tokens: int, keep_missing: bool):
        self.path, self.wanted, self.max_tokens = work / FILE, wanted, max_tokens
        self.keep_missing = keep_missing
        self.found: dict[str, dict] = {}
        self.tried: dict[str, dict] = {}
        self.damaged = self._read(self.path, own=True)
        self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        # Whether the last line was cut short.
        self.torn = self.file.tell() > 0 and not self.path.read_bytes().endswith(b"\n")
        with suppress(OSError):  # some file systems cannot do this for a folder
            folder = os.open(work, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)

    def adopt(self, log: logging.Logger) -> None:
        """Take over answers of unfinished attempts with other settings that apply unchanged.

        A text that ended by itself would have ended at the same place under a higher max_tokens.
        """
        before = len(self.found)
        for path in sorted(self.path.parent.parent.glob(f"*/{FILE}")):
            if path != self.path:
                others = set(self.found)
                self._read(path, own=False)
                for prompt_id in [name for name in self.found if name not in others]:
                    self._append(_line(prompt_id, self.found[prompt_id]))
        if len(self.found) > before:
            log.info(
                "%d answers of an earlier attempt with other settings apply and were taken over",
                len(self.found) - before,
            )

    def _read(self, path: Path, own: bool) -> int:
        """Add the records of a file; return the number of unreadable lines."""
        damaged = 0
        for text in path.read_bytes().split(b"\n") if path.is_file() else ():
            if not text.strip():
                continue
            try:
                record = json.loads(text)
                read, written = record.get("tokens") or (None, None)
                record |= {"tokens": (read, written)}
                prompt_id = record.pop("prompt_id")
                applies = prompt_id in self.wanted and self._applies(prompt_id, record, own)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                damaged += 1
                continue
            if applies:
                self.put(prompt_id, record)
        return damaged

    def _applies(self, prompt_id: str, record: dict, own: bool) -> bool:
        if "asked" not in record:  # lines of earlier versions: own settings, output may be null
            return own
        if record["asked"] != self.wanted[prompt_id]:
            return False
        limit, ended = record["max_tokens"], str(record.get("finish_reason")).lower()
        return limit == self.max_tokens or (limit < self.max_tokens and ended == "stop")

    def put(self, prompt_id: str, record: dict) -> None:
        """Take one record into memory. The first answer of a prompt stays."""
        if is_text(record.get("output")) or record.get("missing") == REFUSAL:
            self.tried.pop(prompt_id, None)
            self.found.setdefault(prompt_id, record)
        elif record.get("missing") and self.keep_missing:
            self.found.setdefault(prompt_id, record)
        elif prompt_id not in self.found:
            self.tried[prompt_id] = record

    def save(self, prompt_id: str, columns: dict) -> None:
        """Write one record to the disk, then take it into memory. Raises OSError."""
        limits = {"asked": self.wanted[prompt_id], "max_tokens": self.max_tokens}
        record = dict.fromkeys(TEXTS) | {"tokens": (None, None)} | columns | limits
        self._append(_line(prompt_id, record))
        self.put(prompt_id, record)

    def _append(self, line: bytes) -> None:
        # One call per line, so that lines of two writers cannot mix.
        line = b"\n" * self.torn + line
        self.torn = True
        try:
            written = self.file.write(line)
            while written < len(line):  # the next write says why this one was cut
                written += self.file.write(line[written:])
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self.torn = False
        os.fsync(self.file.fileno())

    def texts(self) -> int:
        """Return the number of prompts with an answer."""
        return sum(record.get("output") is not None for record in self.found.values())


def _line(prompt_id: str, record: dict) -> bytes:
    return (json.dumps({"prompt_id": prompt_id} | record) + "\n").encode()


def write_answers(path: str, model: str, prompts: list[tuple[str, str]], found: dict) -> None:
    """Write the table of a finished collection, in the order of the prompts."""
    records = [found[prompt_id] for prompt_id, _ in prompts]
    columns = {
        "model": pa.array([model] * len(prompts), pa.string()),
        "prompt_id": pa.array([prompt_id for prompt_id, _ in prompts], pa.string()),
        "prompt": pa.array([prompt for _, prompt in prompts], pa.string()),
    }
    columns |= {
        name: pa.array([record.get(name) for record in records], pa.string()) for name in TEXTS
    }
    for place, name in enumerate(("prompt_tokens", "completion_tokens")):
        columns[name] = pa.array([record["tokens"][place] for record in records], pa.int64())
    artifacts.write_table(path, pa.table(columns))


def unexplained(path: str | Path) -> list[int]:
    """Return the rows (from 1) of a collected table that have neither an output nor a reason.

    Earlier versions kept replies without text as such rows.
    """
    table = artifacts.read_table(path)
    names = table.schema.names
    reasons = table["missing"].to_pylist() if "missing" in names else [None] * len(table)
    rows = enumerate(zip(table["output"].to_pylist(), reasons, strict=True), 1)
    return [number for number, (output, why) in rows if not (is_text(output) or why)]


def check_collected(path: str | Path) -> None:
    """Raise ValueError if a collected table has rows with neither an output nor a reason."""
    if rows := unexplained(path):
        shown = ", ".join(map(str, rows[:5])) + (", ..." if rows[5:] else "")
        raise ValueError(
            f"{path}: {len(rows)} outputs are empty without a reason (rows {shown}), because an "
            "earlier version kept replies without text as answers. Type: snakemake --force "
            f"{path} (this asks only these prompts again if the folder "
            f".{Path(path).stem}.collect.work is still beside the file)"
        )


def reopen(table: Path, work: Path) -> None:
    """Turn a collected table back into answers.jsonl, so that a job resumes from its answers."""
    columns = artifacts.read_table(table, ["prompt_id", "output"]).to_pylist()
    texts = [row for row in columns if is_text(row["output"])]
    with artifacts.atomic(work / FILE) as temporary:
        temporary.write_bytes(
            b"".join(_line(row["prompt_id"], {"output": row["output"]}) for row in texts)
        )
