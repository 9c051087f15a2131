"""Models and tokenizers: where their files are, which hashes tell them apart, and how they are loaded."""

import hashlib
import json
import warnings
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.utils import logging

from freeprm.assets import solver_path
from freeprm.errors import ConfigError, ModelError, needs_extra
from freeprm.io.manifest import CPU
from freeprm.models.gguf import is_gguf, quantisation, read_config, read_header, read_tokenizer, read_weights
from freeprm.models.lengths import forget_lengths, last_of_kind
from freeprm.models.memory import check_room, weight_bytes
from freeprm.models.output_head import give_float32_logits
from freeprm.models.prompts import pin_date, told_date

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
_LANGUAGE_MODELS = ("CausalLM", "LMHeadModel", "ConditionalGeneration")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How models are loaded, whichever they are."""

    device: str | None = None
    """CUDA where there is one, else the CPU, if not given."""
    dtype: Dtype = "auto"
    """"auto" is the checkpoint's own."""
    attention: str | None = None
    """An attention implementation of transformers, e.g. flash_attention_2."""
    trust_remote_code: bool = False
    """Run code that the model folder brings along."""
    template_date: str | None = None
    """The day (YYYY-MM-DD) that a chat template tells which would tell the day of its use; see `prompts.pin_date`."""


DEFAULT_OPTIONS = LoadOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A causal language model with its tokenizer, and where it came from."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: str
    """As the user named it."""
    folder: Path
    """Where its files are, or its GGUF file."""

    @property
    def max_length(self) -> int:
        """Tokens that the model's context holds."""
        return context_length(self.model.config)

    def reach(self, n_tokens: int) -> int:
        """How long a text of so many tokens may become, token by token, on keys and values that are kept.

        It is bounded by the context, and by where the model would read the text's first tokens otherwise; see
        `models.lengths`. One token can always follow: it is drawn from the text as it was read.
        """
        last = last_of_kind(self.model.config, n_tokens)
        return self.max_length if last is None else min(self.max_length, max(last, n_tokens + 1))

    @property
    def dtype(self) -> Dtype:
        """What the model computes in."""
        return check_dtype(str(self.model.dtype).removeprefix("torch."))


def load_backbone(source: str, options: LoadOptions = DEFAULT_OPTIONS, *, revision: str | None = None) -> Backbone:
    """Load a model with its tokenizer, ready for inference; see `resolve` for its source.

    A folder with a LoRA adapter loads its base model too, unmerged: merging would round a small difference away in
    bfloat16.

    Raises:
        ModelError: not a causal language model, or weights are missing from the checkpoint.
        MissingExtraError: an adapter, and peft is not installed.
    """
    folder = resolve(source, revision=revision)
    tokenizer = load_tokenizer(folder, trust_remote_code=options.trust_remote_code, template_date=options.template_date)
    base = adapter_base(folder)
    if base:
        check_adapters(folder)
    model = _load_model(resolve(base.source, revision=base.revision) if base else folder, options)
    if base:
        with without_bars():
            model.load_adapter(str(folder))
    return Backbone(model=model.eval(), tokenizer=tokenizer, source=source, folder=folder)


def check_adapters(folder: Path) -> None:
    """Raises MissingExtraError where peft, which a folder's LoRA adapter needs, is not installed."""
    with needs_extra("lora", f"{folder}: a LoRA adapter"):
        import_module("peft")


def check_dtype(name: str) -> Dtype:
    """The dtype of this name.

    Raises:
        ConfigError: there is none.
    """
    for dtype in DTYPES:
        if name == dtype:
            return dtype
    raise ConfigError(f"dtype {name!r}: expected one of {', '.join(DTYPES)}")


def load_tokenizer(
    folder: Path, *, trust_remote_code: bool = False, template_date: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with a chat template that renders one day whenever it is used; see `prompts.pin_date`.

    Raises:
        ConfigError: not a day.
        ModelError: there is none, or its template renders another day already.
    """
    tokenizer: PreTrainedTokenizerBase
    if is_gguf(folder):
        tokenizer = deepcopy(read_tokenizer(folder))
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder}: no tokenizer could be loaded ({error})") from error
    pin_date(tokenizer, template_date)
    return tokenizer


def load_config(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedConfig:
    """A model's configuration, without its weights; of an adapter, its base model's.

    Raises:
        ModelError: it cannot be read.
    """
    base = adapter_base(folder)
    folder = resolve(base.source, revision=base.revision) if base else folder
    if is_gguf(folder):
        return deepcopy(read_config(folder))
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: its config.json cannot be read ({error})") from error
    return config


def context_length(config: PreTrainedConfig) -> int:
    """Tokens that a model's context holds; unbounded architectures give a very large number."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 30)


def check_same_vocabulary(policy: PreTrainedTokenizerBase, reference: PreTrainedTokenizerBase) -> None:
    """Refuse a reference that means other tokens by the same ids.

    Raises:
        ModelError: names the first token that differs.
    """
    ours, theirs = policy.get_vocab(), reference.get_vocab()
    if ours != theirs:
        token = min((token for token in {*ours, *theirs} if ours.get(token) != theirs.get(token)), key=str)
        raise ModelError(
            f"the tokenizers of policy and reference differ: {token!r} is {ours.get(token)} in "
            f"{policy.name_or_path} and {theirs.get(token)} in {reference.name_or_path}; expected a reference of "
            "the same vocabulary"
        )


def _load_model(folder: Path, options: LoadOptions) -> PreTrainedModel:
    """A whole model, checked to be a language model of which nothing is missing."""
    config = load_config(folder, trust_remote_code=options.trust_remote_code)
    if not is_language_model(config):
        raise ModelError(
            f"{folder}: a {(config.architectures or [''])[0]}, not a causal language model; an implicit process reward "
            "model needs next-token log-probabilities"
        )
    return load_weights(AutoModelForCausalLM, folder, options)


@contextmanager
def without_bars() -> Iterator[None]:
    """Without the bars that transformers draws while it reads or writes weights."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def is_language_model(config: PreTrainedConfig) -> bool:
    """Whether a checkpoint says that it is a causal language model, or says nothing."""
    names = config.architectures or []
    return not names or any(part in name for name in names for part in _LANGUAGE_MODELS)


def load_weights(
    kind: Any, folder: Path, options: LoadOptions, *, config: PreTrainedConfig | None = None,
    may_lack: Collection[str] = (), quiet: bool = False,
) -> PreTrainedModel:  # fmt: skip
    """A folder's weights as a model of some kind, on its device; its logits, if it has any, are float32 or better.

    Args:
        kind: an automatic class of transformers.
        folder: of a whole model, or its GGUF file.
        options: device, dtype and the like.
        config: instead of the folder's own.
        may_lack: names of weights that need not be there; the caller fills them.
        quiet: no warnings of weights that this kind has no place for.

    Raises:
        ModelError: it cannot be loaded as this kind, is larger than its device's memory, or lacks other weights.
    """
    config = config or load_config(folder, trust_remote_code=options.trust_remote_code)
    failures: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError, SafetensorError)
    if options.trust_remote_code:  # the folder's own code may fail in other ways
        failures += (ImportError, AttributeError)
    verbosity = logging.get_verbosity()
    if quiet:
        logging.set_verbosity_error()
    loaded: Any
    try:
        _check_room(folder, config, options)
        how = {"config": config, "dtype": options.dtype, "attn_implementation": options.attention}
        with without_bars():
            if is_gguf(folder):
                loaded = read_weights(kind, folder, **how)
            else:
                loaded = kind.from_pretrained(
                    folder, trust_remote_code=options.trust_remote_code, output_loading_info=True, **how
                )
    except failures as error:
        raise ModelError(f"{folder}: the model cannot be loaded ({type(error).__name__}: {error})") from error
    finally:
        logging.set_verbosity(verbosity)
    model, info = loaded
    missing = sorted(set(info["missing_keys"]) - set(may_lack))
    if missing:
        raise ModelError(
            f"{folder}: the checkpoint lacks {len(missing)} weights, first {missing[0]}; a wrong or incomplete "
            "checkpoint"
        )
    if stored := quantisation(folder):
        dtype = str(model.dtype).removeprefix("torch.")
        warnings.warn(f"{folder}: was dequantised, from {stored} to {dtype}", stacklevel=2)
    placed: PreTrainedModel = model.to(default_device(options.device))
    forget_lengths(placed)
    give_float32_logits(placed)
    return placed


def _check_room(folder: Path, config: PreTrainedConfig, options: LoadOptions) -> None:
    """Raises: ModelError, where the weights do not fit their device."""
    if is_deepspeed_zero3_enabled():  # no device holds all of them
        return
    dtype: Any = config.dtype if options.dtype == "auto" else getattr(torch, options.dtype)
    named = str(dtype or "the dtype that they are stored in").removeprefix("torch.")
    check_room(
        weight_bytes(folder, dtype), default_device(options.device), what=f"{folder}: its weights alone, in {named},",
        advice="choose a smaller model, another device, or 16 bits a weight (bfloat16) where it is read in float32",
    )  # fmt: skip


SOLVER = "solver:"
FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py"]


class Base(NamedTuple):
    """The model that an adapter was trained on."""

    source: str
    revision: str | None


def resolve(source: str, *, revision: str | None = None) -> Path:
    """The folder of a model: itself, a shipped solver (`solver:base`), or a download from the hub; or a GGUF file.

    Raises:
        ModelError: none of these.
        MissingExtraError: a GGUF file, and `gguf` is not installed.
    """
    if source.startswith(SOLVER):
        return solver_path(source.removeprefix(SOLVER))
    folder = Path(source).expanduser()
    if is_gguf(folder):
        read_header(folder)
        return folder
    if folder.is_dir():
        if not any((folder / name).exists() for name in ("config.json", "adapter_config.json")):
            inside = next(iter(sorted(folder.glob("*.gguf"))), None)
            meant = f", or its GGUF file: {inside}" if inside else ""
            raise ModelError(
                f"{source}: a folder without config.json; expected a model as save_pretrained writes it{meant}"
            )
        return folder
    try:
        folder = Path(snapshot_download(source, revision=revision, allow_patterns=FILES))
        if not any(folder.glob("*.safetensors")):  # an older repository: only then are its pickled weights fetched
            folder = Path(snapshot_download(source, revision=revision, allow_patterns=[*FILES, "*.bin"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"{source}: neither a folder here nor a model that the hub gives ({type(error).__name__}). Expected a "
            "path, a hub id such as meta-llama/Llama-3.1-8B-Instruct, a .gguf file, or solver:base"
        ) from error
    return folder


def portable(source: str) -> str:
    """The name under which a model is found from any working directory: the full path of its folder or GGUF file, else
    as given."""
    folder = Path(source).expanduser()
    is_here = (folder.is_dir() or is_gguf(folder)) and not source.startswith(SOLVER)
    return str(folder.resolve()) if is_here else source


def downloaded_revision(folder: Path) -> str | None:
    """The commit of a folder in the hub's cache (`.../snapshots/COMMIT`), None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None


def adapter_base(folder: Path) -> Base | None:
    """The base model of a LoRA adapter's folder, None where the folder holds a whole model.

    Raises:
        ModelError: the adapter does not name its base.
    """
    path = folder / "adapter_config.json"
    if not path.exists():
        return None
    adapter = json.loads(path.read_text(encoding="utf-8"))
    if not adapter.get("base_model_name_or_path"):
        raise ModelError(f"{path}: base_model_name_or_path: is missing; expected the model that the adapter belongs to")
    return Base(str(adapter["base_model_name_or_path"]), adapter.get("revision"))


_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")


def weights_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of the weight files in a model folder; an adapter's, with its base's.

    Of a GGUF file it is that of the file.

    Raises:
        ModelError: the folder holds no weights.
    """
    if is_gguf(folder):
        return _file_hash(folder)
    files = sorted({file for pattern in _WEIGHTS for file in folder.glob(pattern)})
    if not files:
        raise ModelError(f"{folder}: no weights; expected *.safetensors as save_pretrained writes them")
    base = adapter_base(folder)
    digest = hashlib.sha256(weights_hash(resolve(base.source, revision=base.revision)).encode() if base else b"")
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashing lets go of the interpreter's lock
        for file, one in zip(files, pool.map(_file_hash, files), strict=True):
            digest.update(f"{file.name}:{one};".encode())
    return digest.hexdigest()


def weights_identity(folder: Path | None, *, role: str) -> dict[str, str | None]:
    """What settings of a run say of a model's weights: their hash, and what they were dequantised from where they were.

    Args:
        folder: where they are; None of a model that is left out.
        role: what the model is to the run.
    """
    if folder is None:
        return {f"{role}_sha256": None}
    stored = dequantised_from(folder)
    return {f"{role}_sha256": weights_hash(folder), **({} if stored is None else {f"{role}_dequantised": stored})}


def dequantised_from(folder: Path) -> str | None:
    """What a model's weights, or those of an adapter's base, were before they were dequantised, such as `Q4_K_M`; None
    where they were not."""
    base = adapter_base(folder)
    return quantisation(resolve(base.source, revision=base.revision) if base else folder)


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


def default_device(device: torch.device | str | None = None) -> torch.device:
    """The device that models are loaded to: the one given, else CUDA where there is one, else the CPU."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else CPU))


def device_name(device: torch.device | str | None = None) -> str:
    """The name of a device in a run's cost: `NVIDIA H200` of a CUDA device, else its type; by default the default's."""
    chosen = default_device(device)
    return torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else chosen.type
