"""Whether a model fits where it is to be, known before it is loaded.

What is counted is the least that it takes: weights, and what training keeps of each. Activations and keys and values
come on top. What is refused would therefore fail in any case, half-way, or be killed without a word, and there is no
setting to go on all the same.
"""

import json
import re
from pathlib import Path

import torch
from safetensors import safe_open

from freeprm.errors import ConfigError, ModelError
from freeprm.models.gguf import is_gguf, read_header

_CAST = ("F64", "F32", "F16", "BF16")
"""Types of weights that are cast on loading; others (integers, 8 bits) are kept as they are stored."""
_MEMORY = Path("/proc/meminfo")
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Of a container: control groups of version 2 and of version 1."""


def weight_bytes(folder: Path, dtype: torch.dtype | None) -> int:
    """The bytes that a model's weights take once they are loaded, from the headers of its files; 0 without files.

    Args:
        folder: of a whole model, or its GGUF file.
        dtype: that they are loaded in; None for the one they are stored in.
    """
    if is_gguf(folder):
        return read_header(folder).n_weights * (dtype or torch.float32).itemsize
    total = 0
    for path in _safetensors(folder):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                kept = file.get_slice(name)
                bits = 8 * dtype.itemsize if dtype and kept.get_dtype() in _CAST else _stored_bits(kept.get_dtype())
                total += torch.Size(kept.get_shape()).numel() * bits // 8
    return total or sum(path.stat().st_size for path in folder.glob("pytorch_model*.bin"))


def room(device: torch.device) -> int | None:
    """Bytes that a device has for a model: all that is free of a GPU's; of a machine's, all that it has, since what
    others hold of that may be free by the time, or swapped out. None where that is not known."""
    if device.type == "cuda":
        ours = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + ours
    if device.type != "cpu" or not _MEMORY.exists():
        return None
    known = dict(line.split(":", 1) for line in _MEMORY.read_text(encoding="ascii").splitlines())
    whole = sum(int(known[name].split()[0]) << 10 for name in ("MemTotal", "SwapTotal") if name in known)  # of kB
    limits = (path.read_text(encoding="ascii").strip() for path in _LIMITS if path.exists())
    return min([whole, *(int(limit) for limit in limits if limit.isdigit())])


def read_size(text: str) -> int:
    """Bytes of a text such as `8GiB`, `500MB` or `1073741824`.

    Raises:
        ConfigError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip())
    if not found or not float(found[1]):
        raise ConfigError(f"max_memory: is {text!r}; expected bytes above 0, such as 8GiB, 500MB or 1073741824")
    unit = 1024 if found[3] else 1000
    return int(float(found[1]) * unit ** " KMGT".index(found[2] or " "))


def check_room(n_bytes: int, device: torch.device, *, what: str, advice: str) -> None:
    """Refuse what a device cannot hold.

    Args:
        n_bytes: that it takes.
        device: where.
        what: it is, for the message: the model, and what takes so much.
        advice: what to do instead.

    Raises:
        ModelError: names both sizes.
    """
    there = room(device)
    if there is not None and n_bytes > there:
        has = "free" if device.type == "cuda" else "in all"
        raise ModelError(f"{what} takes {n_bytes / 1e9:.3g} GB, but {device} has {there / 1e9:.3g} GB {has}; {advice}")


def _stored_bits(name: str) -> int:
    """Of a type of safetensors: `BF16`, `I64`, `F8_E4M3`, `BOOL`."""
    bits = re.search(r"\d+", name)
    return int(bits[0]) if bits else 8


def _safetensors(folder: Path) -> list[Path]:
    """The files that transformers loads; a folder may hold the same weights in another cut besides."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return [path for path in (folder / "model.safetensors",) if path.exists()]
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [folder / name for name in sorted(set(names))]
