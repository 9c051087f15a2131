"""GGUF files, llama.cpp's: quantised weights, configuration and tokenizer in one file.

transformers makes ordinary float32 weights of them (`from_pretrained(folder, gguf_file=name)`). What runs is this
dequantised model: the numbers are those that the file stands for, in more memory than it takes, and not those of the
model that was quantised. Runs and reward.json say so, see `quantisation`.
"""

from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from freeprm.errors import ModelError, needs_extra

SUFFIX = ".gguf"
_MAGIC = b"GGUF"
_FLOATS = ("F64", "F32", "F16", "BF16")
_NO_METADATA = (OSError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError)
"""What transformers raises where it misses something in a file, or cannot read what it says."""


class Header(NamedTuple):
    """What a file says of itself."""

    architecture: str
    """As llama.cpp names it: `llama`, `qwen2`."""
    quantisation: str | None
    """Such as `Q4_K_M`; None where nothing is quantised."""
    n_weights: int


def is_gguf(path: Path) -> bool:
    """Whether a model is a GGUF file, by its name; any other is a folder."""
    return path.suffix.lower() == SUFFIX


def quantisation(path: Path) -> str | None:
    """What a model's weights were dequantised from; None of a folder, and of a file with plain weights."""
    return read_header(path).quantisation if is_gguf(path) else None


def read_header(file: Path) -> Header:
    """A file's header, which is read once.

    Raises:
        ModelError: there is no such file, it is no GGUF, or it is cut off.
        MissingExtraError: `gguf` is not installed.
    """
    return _header(file, *_version(file))


def read_config(file: Path) -> PreTrainedConfig:
    """The configuration, whose weights are float32. It is read once, and not for its callers to change.

    Raises:
        ModelError: the architecture is none that transformers reads.
    """
    return _config(file, *_version(file))


def read_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    """The tokenizer, with the chat template; as for `read_config`.

    Raises:
        ModelError: the file has none, or one of an unknown kind.
    """
    return _tokenizer(file, *_version(file))


def read_weights(kind: Any, file: Path, **how: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """An ordinary model of float32 weights, and the names of those that it lacks.

    Args:
        kind: an automatic class of transformers.
        how: further arguments of its `from_pretrained`.
    """
    with needs_extra("gguf", str(file)):
        from transformers import GgufConfig
    loaded: tuple[PreTrainedModel, dict[str, Any]] = kind.from_pretrained(
        file.parent, gguf_file=_named(file), output_loading_info=True,
        quantization_config=GgufConfig(dequantize=True),  # weights in blocks could neither be trained nor saved
        **how,
    )  # fmt: skip
    return loaded


def _named(file: Path) -> str:
    """In full: a relative name is looked for in the working directory before the folder."""
    return str(file.resolve())


def _version(file: Path) -> tuple[int, int]:
    """Tells one content of a file from the next."""
    if not file.is_file():
        raise ModelError(f"{file}: no such file; expected a GGUF file, a model folder or a hub id")
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=16)
def _header(file: Path, size: int, modified: int) -> Header:
    with file.open("rb") as stream:
        start = stream.read(len(_MAGIC))
    if start != _MAGIC:
        raise ModelError(
            f"{file}: not a GGUF file: it begins with {start!r} instead of {_MAGIC!r}. Expected the file itself (with "
            "Git LFS it may be a pointer alone), or a model folder"
        )
    with needs_extra("gguf", f"{file}: a GGUF file"):
        from gguf import GGUFReader, LlamaFileType
    try:
        reader = GGUFReader(file)
        architecture = str(reader.fields["general.architecture"].contents())
        kind = reader.fields.get("general.file_type")
        stored = Counter[str]()
        for tensor in reader.tensors:
            stored[tensor.tensor_type.name] += int(tensor.n_elements)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise ModelError(
            f"{file}: cut off or damaged: its {size:,} bytes are not what its header promises ({error}); fetch it again"
        ) from error
    quantised = [name for name, _ in stored.most_common() if name not in _FLOATS]
    known = None if kind is None else {int(one): one.name for one in LlamaFileType}.get(int(kind.contents()))
    named = quantised[0] if known is None and quantised else (known or "").removeprefix("MOSTLY_")
    return Header(architecture, named if quantised else None, stored.total())


@lru_cache(maxsize=4)
def _config(file: Path, size: int, modified: int) -> PreTrainedConfig:
    architecture = _header(file, size, modified).architecture
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(file.parent, gguf_file=_named(file))
    except _NO_METADATA as error:
        raise ModelError(
            f"{file}: a GGUF of architecture {architecture!r}, which transformers {transformers.__version__} cannot "
            f"read ({type(error).__name__}: {error}). Expected one that it can, such as llama, qwen2, qwen3 or gemma3; "
            "give the model's folder instead, as it was before it was made a GGUF"
        ) from error
    config.dtype = torch.float32
    return config


@lru_cache(maxsize=4)
def _tokenizer(file: Path, size: int, modified: int) -> PreTrainedTokenizerBase:
    _config(file, size, modified)  # whose error is the clearer one
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(file.parent, gguf_file=_named(file))
    except _NO_METADATA as error:
        raise ModelError(
            f"{file}: no tokenizer could be loaded ({type(error).__name__}: {error}); expected a GGUF with its "
            "vocabulary, tokenizer.ggml.model and .tokens"
        ) from error
    tokenizer.name_or_path = str(file)
    return tokenizer
