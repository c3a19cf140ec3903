"""Convert downloaded sources to the columns that the hub's data sets have.

Each function reads a folder of sources and writes the files that plan/datasets.yaml names.
"""

import csv
import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from pollination import ROOT
from pollination.core.artifacts import write_table

CNXML, MATHML = "{http://cnx.rice.edu/cnxml}", "{http://www.w3.org/1998/Math/MathML}"
MIN_PARAGRAPH_CHARACTERS = 80  # shorter ones are captions and instructions
PROMPTS = 100  # of deployed_outputs: the first that all models answered
DEPLOYED = ROOT / "config" / "real" / "models.csv"  # the models of deployed_outputs


def _write(target: Path, file: str, rows: list[dict]) -> None:
    write_table(target / file, pa.Table.from_pylist(rows))


def _textbooks(source: Path, target: Path) -> None:
    """One row a module: its title and its paragraphs without formulas."""
    rows = []
    for path in sorted(source.glob("*/modules/*/index.cnxml")):
        root = ET.parse(path).getroot()
        paragraphs = [
            " ".join("".join(node.itertext()).split())
            for node in root.iter(f"{CNXML}para")
            if not any(child.tag.startswith(MATHML) for child in node.iter())
        ]
        paragraphs = [text for text in paragraphs if len(text) >= MIN_PARAGRAPH_CHARACTERS]
        title = root.findtext(f"{CNXML}title")
        book, module = path.parts[-4], path.parts[-2]
        if paragraphs:
            text = "\n\n".join([title, *paragraphs] if title else paragraphs)
            rows.append({"text": text, "id": f"{book}/{module}", "source": book})
    _write(target, "openstax/train.parquet", rows)


def _lines(source: Path, target: Path) -> None:
    """One row a line, with its newline; a blank line is an empty row."""
    folder = source / "examples" / "word_language_model" / "data" / "wikitext-2"
    for split, file in {"train": "train", "validation": "valid", "test": "test"}.items():
        text = (folder / f"{file}.txt").read_text(encoding="utf-8")
        lines = text.removesuffix("\n").split("\n")
        rows = [{"text": f"{line}\n" if line.strip() else ""} for line in lines]
        _write(target, f"wikitext-2/{split}.parquet", rows)


def _mmlu(source: Path, target: Path) -> None:
    for split, short in {"dev": "dev", "validation": "val", "test": "test"}.items():
        rows = []
        for path in sorted(source.glob(f"**/{short}/*_{short}.csv")):
            subject = path.stem.removesuffix(f"_{short}")
            with open(path, encoding="utf-8", newline="") as file:
                for question, *choices, answer in csv.reader(file):
                    rows.append(
                        {
                            "question": question,
                            "subject": subject,
                            "choices": choices,
                            "answer": "ABCD".index(answer),
                        }
                    )
        _write(target, f"mmlu/{split}.parquet", rows)


def _json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _winogrande(source: Path, target: Path) -> None:
    columns = ("sentence", "option1", "option2", "answer")
    for split, file in {"train": "train_xl", "validation": "dev"}.items():
        (path,) = source.glob(f"**/{file}.jsonl")
        rows = [{name: row[name] for name in columns} for row in _json_lines(path)]
        _write(target, f"winogrande/{split}.parquet", rows)


def _mathqa(source: Path, target: Path) -> None:
    for split, file in {"train": "train", "validation": "dev", "test": "test"}.items():
        (path,) = source.glob(f"**/{file}.json")
        rows = json.loads(path.read_text(encoding="utf-8"))
        _write(target, f"mathqa/{split}.parquet", rows)


def _social_iqa(source: Path, target: Path) -> None:
    for split, file in {"train": "train", "validation": "dev"}.items():
        (path,) = source.glob(f"**/{file}.jsonl")
        labels = path.with_name(f"{file}-labels.lst").read_text(encoding="utf-8").split()
        pairs = zip(_json_lines(path), labels, strict=True)
        rows = [row | {"label": label} for row, label in pairs]
        _write(target, f"social_iqa/{split}.parquet", rows)


def _outputs(source: Path, target: Path) -> None:
    with open(DEPLOYED, encoding="utf-8", newline="") as file:
        models = [row["model"] for row in csv.DictReader(file)]
    answers: dict[str, dict[int, dict]] = {}
    for model in models:
        path = source / "slop-score" / "results" / f"{model}.json"
        (result,) = json.loads(path.read_text(encoding="utf-8")).values()
        answers[model] = {row["prompt_index"]: row for row in result["samples"] if row["output"]}
    common = sorted(set.intersection(*map(set, answers.values())))[:PROMPTS]
    rows = [
        {
            "model": model,
            "prompt_id": f"slop-score_{index}",
            "prompt": answers[model][index]["prompt"],
            "output": answers[model][index]["output"],
        }
        for model in models
        for index in common
    ]
    _write(target, "deployed_outputs/outputs.parquet", rows)


def _copy(source: Path, target: Path) -> None:
    target.mkdir()
    (path,) = source.glob("**/slop_profile_results.json")
    shutil.copyfile(path, target / path.name)


def _model(source: Path, target: Path) -> None:
    shutil.copytree(source, target / "models" / "stories15M", ignore=lambda *_: [".cache"])


CONVERSIONS: dict[str, Callable[[Path, Path], None]] = {
    "textbooks": _textbooks,
    "lines": _lines,
    "mmlu": _mmlu,
    "winogrande": _winogrande,
    "mathqa": _mathqa,
    "social_iqa": _social_iqa,
    "outputs": _outputs,
    "copy": _copy,
    "model": _model,
}
