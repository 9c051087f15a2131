"""freeprm: process rewards from right-or-wrong labels of whole responses.

Public names are loaded when they are first used, so that `import freeprm` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freeprm.core.steps import SPLITTERS
    from freeprm.io.rollouts import read_rollouts
    from freeprm.scorers.implicit import ImplicitPRM
    from freeprm.stages.converting import convert
    from freeprm.stages.evaluation import evaluate
    from freeprm.stages.grading import grade
    from freeprm.stages.pairing import pair
    from freeprm.stages.sampling import sample
    from freeprm.stages.scoring import score
    from freeprm.stages.selection import select
    from freeprm.stages.training import train
    from freeprm.stages.verifying import verify
    from freeprm.training.settings import TrainSettings, load_settings
    from freeprm.types import Group, Metric, Problem, ResponseScore, Rollout

__version__ = "0.1.0"

__all__ = [
    "SPLITTERS",
    "Group",
    "ImplicitPRM",
    "Metric",
    "Problem",
    "ResponseScore",
    "Rollout",
    "TrainSettings",
    "convert",
    "evaluate",
    "grade",
    "load_settings",
    "pair",
    "read_rollouts",
    "sample",
    "score",
    "select",
    "train",
    "verify",
]

_HOMES = {
    "SPLITTERS": "core.steps", "read_rollouts": "io.rollouts", "ImplicitPRM": "scorers.implicit",
    "convert": "stages.converting", "pair": "stages.pairing",
    "evaluate": "stages.evaluation", "grade": "stages.grading", "sample": "stages.sampling", "score": "stages.scoring",
    "select": "stages.selection", "train": "stages.training", "verify": "stages.verifying",
    "TrainSettings": "training.settings", "load_settings": "training.settings",
    "Group": "types", "Metric": "types", "Problem": "types", "ResponseScore": "types", "Rollout": "types",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'freeprm' has no attribute {name!r}")
    return getattr(import_module(f"freeprm.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
