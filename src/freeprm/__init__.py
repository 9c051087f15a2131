"""freeprm: process rewards from right-or-wrong labels of whole responses.

Public names are loaded when they are first used, so that `import freeprm` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freeprm.core.steps import SPLITTERS
    from freeprm.core.voting import best_of_n
    from freeprm.experiments.comparison.running import compare
    from freeprm.experiments.comparison.settings import load_comparison
    from freeprm.io.rollouts import read_rollouts
    from freeprm.scorers.base import load_scorer
    from freeprm.scorers.implicit import ImplicitPRM
    from freeprm.serving.client import AsyncClient, Client
    from freeprm.settings import TrainSettings
    from freeprm.stages.base import RunResult
    from freeprm.stages.converting import convert
    from freeprm.stages.early_sampling import sample_early
    from freeprm.stages.early_selection import select_early
    from freeprm.stages.evaluation import evaluate
    from freeprm.stages.grading import grade
    from freeprm.stages.labeling import label
    from freeprm.stages.pairing import pair
    from freeprm.stages.sampling import sample
    from freeprm.stages.scoring import score
    from freeprm.stages.searching import search
    from freeprm.stages.selection import select
    from freeprm.stages.training import train
    from freeprm.stages.verifying import verify
    from freeprm.training.batches import collate_groups, reward_batch
    from freeprm.training.examples import GroupPreparer
    from freeprm.training.groups import read_groups
    from freeprm.training.settings import load_settings
    from freeprm.training.setup import set_up_training
    from freeprm.training.trainer import GroupTrainer
    from freeprm.types import Group, Metric, Problem, Ranked, ResponseScore, Rollout, group_rollouts

__version__ = "0.1.0"

__all__ = [
    "SPLITTERS",
    "AsyncClient",
    "Client",
    "Group",
    "GroupPreparer",
    "GroupTrainer",
    "ImplicitPRM",
    "Metric",
    "Problem",
    "Ranked",
    "ResponseScore",
    "Rollout",
    "RunResult",
    "TrainSettings",
    "best_of_n",
    "collate_groups",
    "compare",
    "convert",
    "evaluate",
    "grade",
    "group_rollouts",
    "label",
    "load_comparison",
    "load_scorer",
    "load_settings",
    "pair",
    "read_groups",
    "read_rollouts",
    "reward_batch",
    "sample",
    "sample_early",
    "score",
    "search",
    "select",
    "select_early",
    "set_up_training",
    "train",
    "verify",
]

_HOMES = {
    "SPLITTERS": "core.steps", "read_rollouts": "io.rollouts", "ImplicitPRM": "scorers.implicit",
    "AsyncClient": "serving.client", "Client": "serving.client",
    "best_of_n": "core.voting", "load_scorer": "scorers.base", "RunResult": "stages.base",
    "compare": "experiments.comparison.running", "load_comparison": "experiments.comparison.settings",
    "convert": "stages.converting", "pair": "stages.pairing", "label": "stages.labeling",
    "sample_early": "stages.early_sampling", "select_early": "stages.early_selection",
    "evaluate": "stages.evaluation", "grade": "stages.grading", "sample": "stages.sampling", "score": "stages.scoring",
    "search": "stages.searching",
    "select": "stages.selection", "train": "stages.training", "verify": "stages.verifying",
    "TrainSettings": "settings", "load_settings": "training.settings",
    "GroupPreparer": "training.examples", "GroupTrainer": "training.trainer", "collate_groups": "training.batches",
    "read_groups": "training.groups", "reward_batch": "training.batches", "set_up_training": "training.setup",
    "group_rollouts": "types",
    "Group": "types", "Metric": "types", "Problem": "types", "Ranked": "types",
    "ResponseScore": "types", "Rollout": "types",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'freeprm' has no attribute {name!r}")
    return getattr(import_module(f"freeprm.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({name for name in globals() if name.startswith("__")} | {*__all__})
