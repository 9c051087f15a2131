"""The commands of the stages, with their settings and functions."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter
from typing import Annotated, Any

import typer

from freeprm.cli import output
from freeprm.cli.builder import INPUTS, Command, Invocation
from freeprm.errors import needs_extra
from freeprm.settings import (
    ConvertSettings,
    EvaluateSettings,
    GradeSettings,
    LabelSettings,
    PairSettings,
    RLSettings,
    SampleEarlySettings,
    SampleSettings,
    ScoreSettings,
    SearchSettings,
    SelectEarlySettings,
    SelectSettings,
    TrainSettings,
)

PROBLEMS = (
    "problems",
    Annotated[str, typer.Argument(help="A dataset (arithmetic, see `freeprm list datasets`) or a file of problems.")],
    Parameter.empty,
)


def stage_of(path: str) -> Any:
    """The stage at `module:name` of `freeprm.stages`."""
    module, _, name = path.partition(":")
    return getattr(import_module(f"freeprm.stages.{module}"), name)


def runs(path: str, *, early: str = "") -> Callable[[Invocation], None]:
    """A function that runs a stage, or the one for `--early-stop`, and shows its result."""

    def work(call: Invocation) -> None:
        with output.working():
            stage = stage_of(early if call.switch else path)
            made = stage.run(call.inputs, call.settings(call.kind))
        output.show(made, as_json=call.as_json)

    return work


@dataclass(frozen=True, kw_only=True)
class TrainFlags(TrainSettings):
    """Train an implicit process reward model on right-or-wrong labels, or a baseline."""

    preset: str | None = None
    """embedded or small: settings for the shipped solver, or for models of its kind."""
    dry_run: bool = False
    """Show every setting, where it comes from and what would be trained; stop."""


def _train(call: Invocation) -> None:
    from freeprm.training.settings import given_by, load_settings

    options = dict(call.layers["option"])
    preset, is_dry = options.pop("preset", None), options.pop("dry_run", False)
    layers: dict[str, Any] = {"preset": preset, "file": call.config, "assignments": call.assignments}
    settings = load_settings(options={"out": "runs/prm", **options}, **layers)
    with output.working():
        from freeprm.stages.training import TrainingPlan, plan, train

        made = plan(call.inputs, settings) if is_dry else train.run(call.inputs, settings)
    if os.environ.get("RANK", "0") != "0":  # of several processes, only the first prints
        return
    if isinstance(made, TrainingPlan):
        output.show_plan(made, given_by(options=options, **layers), as_json=call.as_json)
    else:
        output.show(made, as_json=call.as_json)


def _rl(call: Invocation) -> None:
    with output.working(), needs_extra("rl", "freeprm rl"):
        from freeprm.rl.running import rl
    with output.working():
        made = rl.run(call.inputs, call.settings(RLSettings))
    if os.environ.get("RANK", "0") == "0":  # of several processes, only the first prints
        output.show(made, as_json=call.as_json)


STAGES = (
    Command(
        name="sample", settings={"": SampleSettings, "--early-stop": SampleEarlySettings}, inputs=PROBLEMS,
        work=runs("sampling:sample", early="early_sampling:sample_early"), out="runs/rollouts",
        apart={
            "": "goes with --early-stop; to score whole samples: freeprm score ROLLOUTS --prm FOLDER",
            "--early-stop": "is for samples that are all finished; --early-stop draws with the hf engine, in one "
            "process",
        },
    ),
    Command(
        name="search", settings={"": SearchSettings}, work=runs("searching:search"), out="runs/search", inputs=PROBLEMS
    ),
    Command(name="grade", settings={"": GradeSettings}, work=runs("grading:grade"), out="runs/graded", inputs=INPUTS),
    Command(
        name="label", settings={"": LabelSettings}, work=runs("labeling:label"), out="runs/labels", inputs=INPUTS,
        set_help="name=value, a field of the labeler: model=solver:base, n=8, threshold=-0.5; or any setting.",
    ),
    Command(name="train", settings={"": TrainFlags}, work=_train, out="runs/prm", inputs=INPUTS, is_open=True),
    Command(name="rl", settings={"": RLSettings}, work=_rl, out="runs/rl", inputs=PROBLEMS),
    Command(name="score", settings={"": ScoreSettings}, work=runs("scoring:score"), out="runs/scores", inputs=INPUTS),
    Command(
        name="select", settings={"": SelectSettings, "--early-stop": SelectEarlySettings}, inputs=INPUTS,
        work=runs("selection:select", early="early_selection:select_early"), out="runs/selection",
        apart={
            "": "goes with --early-stop; without it the rows bring their scores: freeprm score ROLLOUTS --prm FOLDER",
            "--early-stop": "is for rows with scores; --early-stop takes the first n samples, and votes on nothing",
        },
    ),
    Command(
        name="evaluate", settings={"": EvaluateSettings}, work=runs("evaluation:evaluate"), out="runs/evaluation",
        inputs=INPUTS,
    ),
    Command(
        name="convert", settings={"": ConvertSettings}, work=runs("converting:convert"), out="runs/converted",
        inputs=INPUTS,
    ),
    Command(name="pair", settings={"": PairSettings}, work=runs("pairing:pair"), out="runs/pairs", inputs=INPUTS),
)  # fmt: skip
