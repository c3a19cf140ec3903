"""Read which tensors a local model folder holds, from the headers of its safetensors files alone.

Format: https://huggingface.co/docs/safetensors (8 bytes with the length of a JSON header, the
header, the tensors). Nothing here imports torch.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

HEADER_BYTES = 100_000_000  # the format's own limit
FLOATS = ("F", "BF")  # a dtype of floating-point numbers begins so
# GPT-2 and its kin say n_positions, MPT and Whisper have names of their own (models/limits.py).
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions")
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True)
class Tensor:
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_floating(self) -> bool:
        return self.dtype.startswith(FLOATS)


def tensors(folder: Path) -> dict[str, Tensor]:
    """Return name -> tensor of the files that transformers would load from a folder.

    ValueError: there are none, or a file is missing, truncated or not readable.
    """
    found: dict[str, Tensor] = {}
    for path in _files(folder):
        found |= _header(path)
    return found


def read_config(folder: Path) -> dict:
    """Return the config.json of a folder. ValueError: it is absent or not a JSON object."""
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file; name the folder of a model") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); restore the file") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a JSON object; restore the file")
    return content


def positions(content: dict) -> int | None:
    """Return the positions that a config.json states; None leaves the question to the job."""
    inner = content.get("text_config")
    for part in (content, inner if isinstance(inner, dict) else {}):
        for name in POSITIONS:
            if isinstance(part.get(name), int) and part[name] > 0:
                return part[name]
    return None


def _files(folder: Path) -> list[Path]:
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    index = folder / INDEX
    if not index.is_file():
        raise ValueError(
            f"{folder}: there is no {SINGLE} and no {INDEX}; name a folder with weights as "
            "safetensors (pickles are not opened)"
        )
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [folder / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{index}: not the index of a model's files; restore the file") from None
    if absent := [path for path in files if not path.is_file()]:
        raise ValueError(
            f"{absent[0]}: there is no such file, but {INDEX} lists it; complete the folder"
        )
    return files


def _header(path: Path) -> dict[str, Tensor]:
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 2 <= length <= min(HEADER_BYTES, size - 8):
                raise ValueError("its header is damaged or truncated")
            entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        stop = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        found = {
            name: Tensor(str(entry["dtype"]), tuple(map(int, entry["shape"])))
            for name, entry in entries.items()
        }
    except (OSError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not a readable safetensors file ({error}); copy or download it again"
        ) from None
    if size != 8 + length + stop:
        raise ValueError(
            f"{path}: {size:,} bytes, but its header describes {8 + length + stop:,}; copy or "
            "download it again"
        )
    return found
