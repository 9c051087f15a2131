"""The rollouts of a comparison: drawn or given, graded, and labelled step by step where a method asks for it."""

from pathlib import Path

from freeprm.experiments.comparison.folders import Folders, test_split
from freeprm.experiments.comparison.settings import Comparison, Split
from freeprm.stages.grading import grade
from freeprm.stages.sampling import sample


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
