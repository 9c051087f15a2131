"""What a model and its template are, as hashes: kept in reward.json, manifests and cache keys."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from freeprm.errors import ModelError
from freeprm.models.folders import adapter_base, resolve
from freeprm.models.prompts import told_date

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")


def weights_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of the weight files in a model folder; an adapter's, with its base's.

    Raises:
        ModelError: the folder holds no weights.
    """
    files = sorted({file for pattern in _WEIGHTS for file in folder.glob(pattern)})
    if not files:
        raise ModelError(f"{folder}: no weights; expected *.safetensors as save_pretrained writes them")
    base = adapter_base(folder)
    digest = hashlib.sha256(weights_hash(resolve(base.source, revision=base.revision)).encode() if base else b"")
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashing lets go of the interpreter's lock
        for file, one in zip(files, pool.map(_file_hash, files), strict=True):
            digest.update(f"{file.name}:{one};".encode())
    return digest.hexdigest()


def template_hash(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """SHA-256 of the chat template, with the day that it tells, see `prompts.pin_date`; None where there is none."""
    template = tokenizer.chat_template
    return hashlib.sha256(str(template).encode()).hexdigest() if template else None


def template_identity(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What settings of a run say of the template: its hash, and the day that it tells where it tells one."""
    day = told_date(tokenizer)
    return {"template_sha256": template_hash(tokenizer), **({"template_date": day} if day else {})}


def _file_hash(file: Path) -> str:
    stat = file.stat()
    return _hashed(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _hashed(file: Path, size: int, modified: int) -> str:
    """Args: `size` and `modified` tell one content of the file from the next."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
