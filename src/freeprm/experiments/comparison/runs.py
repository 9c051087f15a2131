"""The run folders of a comparison: rollouts, labels, and one method from training to what its scores choose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from freeprm.experiments.comparison.settings import UNTRAINED, Comparison, Split
from freeprm.io.files import read_rows
from freeprm.scorers.base import ScorerSource
from freeprm.stages.evaluation import evaluate
from freeprm.stages.grading import grade
from freeprm.stages.labeling import label
from freeprm.stages.sampling import sample
from freeprm.stages.scoring import ScoreResult, score
from freeprm.stages.selection import SelectionResult, select
from freeprm.stages.training import train
from freeprm.training.settings import TrainSettings, load_settings


@dataclass(frozen=True, slots=True)
class Folders:
    """Places of a comparison; each stage resumes from its own."""

    out: Path

    def sampled(self, split: str) -> Path:
        """Rollouts as they were drawn; `split` is train, dev, or test-GENERATOR."""
        return self.out / "rollouts" / split

    def graded(self, split: str) -> Path:
        """The same with their outcome labels."""
        return self.out / "graded" / split

    def labels(self, name: str) -> Path:
        """The training rollouts with step labels."""
        return self.out / "labels" / name

    def model(self, method: str) -> Path:
        """What a method trained."""
        return self.out / "methods" / method / "model"

    def scores(self, method: str, split: str) -> Path:
        """A split's rollouts with a method's scores."""
        return self.out / "methods" / method / f"scores-{split}"

    def selection(self, method: str, split: str) -> Path:
        """What is chosen by those scores."""
        return self.out / "methods" / method / f"selection-{split}"

    def evaluation(self, method: str, split: str) -> Path:
        """How well those scores find the first error."""
        return self.out / "methods" / method / f"evaluation-{split}"

    def baseline(self, split: str) -> Path:
        """What is chosen without scores."""
        return self.out / "baselines" / f"selection-{split}"

    @property
    def reference(self) -> Path:
        """The reference's log-probabilities, for all methods."""
        return self.out / "reference"

    def log(self, name: str) -> Path:
        """What a worker printed while it made a method or labels."""
        return self.out / "logs" / f"{name}.log"


def test_split(generator: str) -> str:
    """The split of a generator's answers to the test problems."""
    return f"test-{generator}"


def make_rollouts(comparison: Comparison, folders: Folders, *, seed: int) -> None:
    """Draw and grade all splits; the test problems are the same for all generators.

    Raises:
        FreePRMError: see the stages.
    """
    for split in ("train", "dev"):
        make_split(comparison, folders, split, getattr(comparison, split), seed=seed)
    for name, generator in comparison.generators.items():
        test = Split(n_problems=comparison.test.n_problems, n=comparison.test.n, rollouts=generator.rollouts)
        make_split(comparison, folders, test_split(name), test, seed=seed, model=generator.model)


def make_split(
    comparison: Comparison, folders: Folders, name: str, split: Split, *, seed: int, model: str | None = None
) -> None:
    """Draw and grade one split.

    Args:
        comparison: how to draw.
        folders: where.
        name: train, dev, or test-GENERATOR.
        split: how much, or what to take instead.
        seed: of problems and samples.
        model: who draws; the model that everything starts from if not given.

    Raises:
        FreePRMError: see the stages.
    """
    inputs = [Path(item) for item in split.rollouts]
    if not inputs:
        drawing = comparison.sampling
        drawer = model or comparison.model
        sampled = sample(
            drawing.problems,
            model=drawer,
            out=folders.sampled(name),
            split=name.partition("-")[0],
            n_problems=split.n_problems,
            n=split.n,
            temperature=drawing.temperature,
            top_p=drawing.top_p,
            max_new_tokens=drawing.max_new_tokens,
            seed=seed,
            problem_seed=seed,
            engine=drawing.engine,
            dataset_options=drawing.dataset_options,
            engine_options=drawing.engine_options,
            logprobs=drawing.logprobs and drawer == comparison.model,
        )
        inputs = [sampled.folder]
    grade(inputs, out=folders.graded(name))


def make_method(comparison: Comparison, folders: Folders, name: str, *, seed: int) -> None:
    """Train a method's model, score dev and test with it, choose and evaluate; all that is finished stays as it is.

    Raises:
        FreePRMError: see the stages.
    """
    method = comparison.methods[name]
    if method.train is not None:
        train_method(comparison, folders, name, method.train, seed=seed)
    dev = score_split(comparison, folders, name, "dev").folder
    for split in map(test_split, comparison.generators):
        scored = score_split(comparison, folders, name, split).folder
        choose(comparison, folders, name, split, n=comparison.sizes, seed=seed)
        evaluate(
            [scored], out=folders.evaluation(name, split), dev=[dev] if _has_step_truth(scored) else [],
            aggregators=[method.aggregator], seed=seed,
        )  # fmt: skip


def choose(
    comparison: Comparison, folders: Folders, name: str, split: str, *, n: Sequence[int], seed: int
) -> SelectionResult:
    """Choose among a split's responses by a method's scores.

    Raises:
        FreePRMError: see the stage.
    """
    method = comparison.methods[name]
    return select(
        [folders.scores(name, split)], out=folders.selection(name, split), n=n, aggregators=[method.aggregator],
        weighting=method.weighting, seed=seed,
    )  # fmt: skip


def make_labels(comparison: Comparison, folders: Folders, name: str, *, seed: int) -> None:
    """Label the steps of the training rollouts.

    Raises:
        FreePRMError: see the stage.
    """
    labels = comparison.labels[name]
    options = dict(labels.options)
    if labels.model_of is not None:
        options["model"] = str(folders.model(labels.model_of))
    label([folders.graded("train")], labeler=labels.labeler, out=folders.labels(name), options=options, seed=seed)


def train_method(
    comparison: Comparison, folders: Folders, name: str, settings: Mapping[str, Any], *, seed: int
) -> None:
    """Train a method's model on the training rollouts, or on those with the step labels that it asks for.

    Raises:
        FreePRMError: see the stage.
    """
    labels = comparison.methods[name].labels
    train(
        [folders.labels(labels) if labels else folders.graded("train")],
        settings=training_settings(comparison, folders, name, settings, seed=seed),
        out=folders.model(name),
        cache=folders.reference,
    )


def training_settings(
    comparison: Comparison, folders: Folders, name: str, settings: Mapping[str, Any], *, seed: int
) -> TrainSettings:
    """What a method is trained with: its own settings over those that all methods share.

    Raises:
        ConfigError: an unknown setting or a bad value.
    """
    merged = overlaid(comparison.training, settings)
    start = comparison.methods[name].start
    model = str(folders.model(start)) if start else comparison.model
    return load_settings(options={**merged, "model": model, "seed": seed})


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of training over others; their `trainer` tables are merged too."""
    trainer = {**below.get("trainer", {}), **above.get("trainer", {})}
    return {**below, **above, **({"trainer": trainer} if trainer else {})}


def score_split(comparison: Comparison, folders: Folders, name: str, split: str) -> ScoreResult:
    """Score a split's rollouts.

    Raises:
        FreePRMError: see the stage.
    """
    scored = partial(score, [folders.graded(split)], out=folders.scores(name, split), name=name)
    method = comparison.methods[name]
    if method.scorer is not None and method.model is not None:
        return scored(prm=ScorerSource(source=method.model, scorer=method.scorer, reference=method.scorer_reference))
    if method.train is None and method.of is None:
        untrained = ScorerSource(source=comparison.model, scorer="untrained", beta=comparison.training.get("beta"))
        return scored(prm=untrained, rewards=[UNTRAINED], splitter=comparison.training.get("splitter"))
    source = str(folders.model(method.of or name))
    rewards = [method.reward] if method.reward else []
    return scored(prm=ScorerSource(source=source, load_reference=rewards != ["without-reference"]), rewards=rewards)


def _has_step_truth(scored: Path) -> bool:
    """Whether scores are of steps, and it is known which steps are right; then there is a threshold to fit on dev."""
    row = next((row for _, row in read_rows(scored) if isinstance(row, Mapping)), {})
    return row.get("step_scores") is not None and "first_error" in row
