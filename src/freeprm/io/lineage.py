"""Lineage of a run: the run folders of its inputs and models, back to the first.

A manifest names inputs and models as its command did. They are looked up there, and near the run folder and the
folders above it, so that folders that were moved together are found. Rows that were deleted are not missed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freeprm.errors import RecordError
from freeprm.io.files import MANIFEST
from freeprm.io.manifest import read_cost
from freeprm.io.runs import read_manifest
from freeprm.types import Cost

TRAIN, LABEL = "train", "label"
_TAKES_MODELS = ("sample", TRAIN)
"""Stages whose settings name models."""
_NEAR = 4
"""Folders above a run folder that are searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished run and its lineage."""

    folder: Path
    stage: str
    settings: Mapping[str, Any]
    counts: Mapping[str, Any]
    cost: Cost
    parents: tuple[Path, ...]
    """Run folders of its inputs and models."""
    lost: tuple[str, ...]
    """Inputs that were not found."""
    names_models: bool
    """The manifest names the models used."""


def runs_in(folders: Sequence[Path]) -> list[Run]:
    """The finished runs in folders and their subfolders, without runs that only hold others, such as a demo's.

    Raises:
        RecordError: no such folder, or one without a finished run.
        RunFolderError: a manifest that is none of freeprm's.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        if not folder.exists():
            raise RecordError(f"{folder}: no such file or folder; expected a run folder")
        holding = _holding(folder)
        below = [holding] if holding else [file.parent for file in sorted(folder.rglob(MANIFEST))]
        made = [run for run in map(_read, _leaves(below)) if run is not None]
        if not made:
            raise RecordError(f"{folder}: holds no finished run of freeprm, no {MANIFEST} that says complete")
        found.update({run.folder: run for run in made})
    return list(found.values())


def with_ancestors(runs: Iterable[Run]) -> list[Run]:
    """The runs and all of their ancestors, each once, ancestors first."""
    found: dict[Path, Run] = {}
    for run in runs:
        _visit(run, found, frozenset())
    return list(found.values())


def descent(runs: Iterable[Run]) -> set[Path]:
    """Folders of the training runs among these, and of all of their ancestors."""
    return {run.folder for run in with_ancestors(run for run in runs if run.stage == TRAIN)}


def _visit(run: Run, found: dict[Path, Run], below: frozenset[Path]) -> None:
    if run.folder in found or run.folder in below:
        return
    for parent in run.parents:
        made = _read(parent)
        if made is not None:
            _visit(made, found, below | {run.folder})
    found[run.folder] = run


def _holding(path: Path) -> Path | None:
    """The run folder that a path is, or lies in as a file; None for others, and for a folder of several runs."""
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    if not (folder / MANIFEST).exists() or any(file.parent != folder for file in folder.rglob(MANIFEST)):
        return None
    return folder


def _leaves(folders: Iterable[Path]) -> list[Path]:
    """The folders that contain none of the others."""
    resolved = [folder.resolve() for folder in folders]
    holders = {parent for folder in resolved for parent in folder.parents}
    return [folder for folder in resolved if folder not in holders]


def _read(folder: Path) -> Run | None:
    manifest = read_manifest(folder)
    if manifest is None or manifest.get("status") != "complete":
        return None
    parents, lost = [], []
    for name in _named(manifest):
        is_input, path = name in manifest.get("inputs", {}), Path(name)
        # A model's relative name may be a hub's, whose last part is no folder that happens to be near.
        places = [*_places(path, folder, moved=is_input or path.is_absolute())]
        home = next((home for home in map(_holding, places) if home is not None and home != folder), None)
        if home is not None:
            parents.append(home)
        elif is_input and not any(place.exists() for place in places):
            lost.append(name)
    return Run(
        folder=folder,
        stage=manifest["stage"],
        settings=manifest.get("settings", {}),
        counts=manifest.get("counts", {}),
        cost=read_cost(manifest.get("cost", {})),
        parents=tuple(dict.fromkeys(parents)),
        lost=tuple(lost),
        names_models=bool(manifest.get("models")),
    )


def _named(manifest: Mapping[str, Any]) -> Iterator[str]:
    """The paths and ids in a manifest that may lead to run folders of inputs and models."""
    settings = manifest.get("settings", {})
    model_roles = ("model", "reference") if manifest["stage"] in _TAKES_MODELS else ()
    models = [*manifest.get("models", {}).values(), *(settings.get(role) for role in model_roles)]
    compared = settings.get("reference") if manifest["stage"] == LABEL else None  # the labels are measured by it
    names = [*manifest.get("inputs", {}), *models]
    yield from (name for name in names if isinstance(name, str) and name != compared)


def _places(path: Path, folder: Path, *, moved: bool) -> Iterator[Path]:
    """Candidate locations of a path in a run folder's manifest: as written, below a folder above, or moved with it."""
    yield path
    for above in folder.parents[:_NEAR]:
        if moved:
            yield from (above.joinpath(*path.parts[-n:]) for n in range(min(_NEAR, len(path.parts)), 0, -1))
        elif not path.is_absolute():
            yield above / path
