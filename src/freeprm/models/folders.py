"""Where a model's files are: a folder, a hub id, or a shipped solver; and what a LoRA adapter's folder builds on."""

import json
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from freeprm.assets import solver_path
from freeprm.errors import ModelError

SOLVER = "solver:"
_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py"]


class Base(NamedTuple):
    """The model that an adapter was trained on."""

    source: str
    revision: str | None


def resolve(source: str, *, revision: str | None = None) -> Path:
    """The local folder of a model: itself, a shipped solver (`solver:base`), or a download from the hub.

    Raises:
        ModelError: none of these.
    """
    if source.startswith(SOLVER):
        return solver_path(source.removeprefix(SOLVER))
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not any((folder / name).exists() for name in ("config.json", "adapter_config.json")):
            raise ModelError(f"{source}: a folder without config.json; expected a model as save_pretrained writes it")
        return folder
    try:
        folder = Path(snapshot_download(source, revision=revision, allow_patterns=_FILES))
        if not any(folder.glob("*.safetensors")):  # an older repository: only then are its pickled weights fetched
            folder = Path(snapshot_download(source, revision=revision, allow_patterns=[*_FILES, "*.bin"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"{source}: neither a folder here nor a model that the hub gives ({type(error).__name__}). Expected a "
            "path, a hub id such as meta-llama/Llama-3.1-8B-Instruct, or solver:base"
        ) from error
    return folder


def portable(source: str) -> str:
    """The name under which a model is found from any working directory: a folder's full path, else as given."""
    folder = Path(source).expanduser()
    return str(folder.resolve()) if folder.is_dir() and not source.startswith(SOLVER) else source


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
