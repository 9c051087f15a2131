"""A reward model's files for others: weights, tokenizer, reward.json and model card, in a folder or on the hub.

What is read elsewhere must name its reference so that it is found there. The weights' hash stays in reward.json, so
another model under that name is refused as ever.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from httpx2 import TransportError
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from freeprm.errors import ConfigError, ModelError
from freeprm.io.files import MANIFEST
from freeprm.models.loading import FILES, adapter_base, portable
from freeprm.models.reward_config import REWARD_FILE, RewardConfig

CARD = "README.md"
ADAPTER = "adapter_config.json"


def model_files(folder: Path, config: RewardConfig, *, reference: str | None = None) -> dict[str, Path | bytes]:
    """The files of a reward model by name, each where it is, or as it is to be written.

    Args:
        folder: of the model: weights, tokenizer, configuration, and what training wrote beside them but its manifest,
            which names the files that it read.
        config: becomes reward.json.
        reference: the reference's location from now on, in reward.json, in the card, and as an adapter's base if that
            is the same model; by default the recorded one.

    Raises:
        ModelError: a single file, such as GGUF, which has no place for reward.json.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: one file, not a folder, so reward.json has no place; save the model in a folder")
    named = [*FILES, CARD]
    found = {path.name: path for name in named for path in sorted(folder.glob(name))}
    files: dict[str, Path | bytes] = {name: path for name, path in found.items() if name != MANIFEST}
    if reference is not None and config.reference is not None:
        before = config.reference.source
        base = reference if config.base == before else config.base
        config = replace(config, base=base, reference=replace(config.reference, source=reference, revision=None))
        if CARD in files:
            files[CARD] = (folder / CARD).read_text(encoding="utf-8").replace(before, reference).encode()
        adapted = adapter_base(folder)
        if adapted is not None and portable(adapted.source) == portable(before):
            adapter = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
            files[ADAPTER] = json.dumps({**adapter, "base_model_name_or_path": reference, "revision": None}).encode()
    files[REWARD_FILE] = json.dumps(asdict(config), indent=2).encode()
    return files


def save_files(files: Mapping[str, Path | bytes], out: Path) -> None:
    """Write them into a folder, which is made if need be.

    Raises:
        ConfigError: it is the model's own folder.
    """
    if any(isinstance(file, Path) and file.parent.resolve() == out.resolve() for file in files.values()):
        raise ConfigError(f"{out}: is where the model is; give another folder")
    out.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        if isinstance(file, Path):
            shutil.copyfile(file, out / name)
        else:
            (out / name).write_bytes(file)


def push_files(
    files: Mapping[str, Path | bytes], repo_id: str, *, private: bool | None, token: str | None, revision: str | None,
    commit_message: str,
) -> str:  # fmt: skip
    """Put them on the hub in one commit, in a repository that is made if need be.

    Args:
        files: of `model_files`.
        repo_id, private, token, revision, commit_message: see `huggingface_hub.HfApi`.

    Returns:
        The URL of the commit.

    Raises:
        ConfigError: the reference, or an adapter's base, is a folder of this machine.
        ModelError: the hub refuses, or cannot be reached.
    """
    for name, source in _needed(files).items():
        if Path(portable(source)).is_absolute():
            raise ConfigError(
                f"{repo_id}: {name} names {source}, which only this machine has; put that model on the hub first, and "
                "say reference='OWNER/NAME'"
            )
    api = HfApi(token=token)
    operations = [
        CommitOperationAdd(name, file if isinstance(file, bytes) else str(file)) for name, file in files.items()
    ]
    try:
        repo = api.create_repo(repo_id, private=private, exist_ok=True)
        done = api.create_commit(repo.repo_id, operations, commit_message=commit_message, revision=revision)
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, TransportError) as error:
        raise ModelError(
            f"{repo_id}: not put on the hub ({type(error).__name__}: {error}); log in with `hf auth login`, or give a "
            "token that may write there"
        ) from error
    return str(done.commit_url)


def _needed(files: Mapping[str, Path | bytes]) -> dict[str, str]:
    """The other models that these files name, by the file that does."""
    reference = _read(files[REWARD_FILE])["reference"]
    needed = {} if reference is None else {REWARD_FILE: str(reference["source"])}
    return (
        needed if ADAPTER not in files else {**needed, ADAPTER: str(_read(files[ADAPTER])["base_model_name_or_path"])}
    )


def _read(file: Path | bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file if isinstance(file, bytes) else file.read_bytes())
    return found
