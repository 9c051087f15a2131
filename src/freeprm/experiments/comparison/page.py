"""The page of one comparison, compare.md: what was compared on what, by which command, and the tables."""

from collections.abc import Iterator, Sequence

from freeprm.experiments.comparison.rendering import markdown
from freeprm.experiments.comparison.settings import Comparison, Generator
from freeprm.experiments.comparison.tables import TextTable
from freeprm.types import Cost


def page(comparison: Comparison, tables: Sequence[TextTable], cost: Cost, *, seed: int, command: str) -> str:
    """The whole text, in Markdown."""
    parts = [f"# {comparison.title}", f"    {command}", "\n".join(_described(comparison, cost, seed))]
    return "\n\n".join([*parts, *map(markdown, tables)]) + "\n"


def _described(comparison: Comparison, cost: Cost, seed: int) -> Iterator[str]:
    train, dev, test = comparison.train, comparison.dev, comparison.test
    generators = ", ".join(f"{name} ({_source(item)})" for name, item in comparison.generators.items())
    yield f"- start and reference of everything that is trained: {comparison.model}"
    yield f"- training: {_amount(train.n_problems, train.n, train.rollouts)}"
    yield f"- dev, for thresholds: {_amount(dev.n_problems, dev.n, dev.rollouts)}"
    yield f"- test: {_amount(test.n_problems, test.n, ())}; answered by {generators}"
    yield f"- temperature {comparison.sampling.temperature:g}, seed {seed}"
    yield f"- {cost.seconds:,.0f} seconds from start to end"


def _amount(n_problems: int | None, n: int, rollouts: Sequence[str]) -> str:
    if rollouts:
        return f"rollouts of {', '.join(rollouts)}"
    return f"{n_problems:,} problems, {n} responses each" if n_problems else f"all problems, {n} responses each"


def _source(generator: Generator) -> str:
    return generator.model or f"rollouts of {', '.join(generator.rollouts)}"
