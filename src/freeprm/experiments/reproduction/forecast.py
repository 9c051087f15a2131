"""What the runs will take, from a preset's expectations: FLOPs of 2 P a token forward and 6 P in training, and time.

An estimate of the order of magnitude, from the sizes that the settings name; shared prefixes, cached log-probabilities
and attention are not in it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from freeprm.errors import ConfigError
from freeprm.experiments.comparison.settings import Comparison
from freeprm.experiments.graph import PlannedRun
from freeprm.experiments.reproduction.claims import Claim
from freeprm.experiments.reproduction.presets import Expected, Preset, check_data, narrowed
from freeprm.experiments.reproduction.running import all_runs
from freeprm.io.files import read_rows, row_files
from freeprm.io.runs import read_manifest
from freeprm.report.metrics import quantity
from freeprm.report.table import NONE, Cell, Table, texts


class Step(NamedTuple):
    """One run and what it will take."""

    run: PlannedRun
    responses: float | None
    """Read or drawn; None where its inputs are not there yet, and their size is not known."""
    flops: float | None


@dataclass
class Forecaster:
    """Follows the sizes from run to run."""

    comparison: Comparison
    expected: Expected
    _sizes: dict[Path, float | None]

    @classmethod
    def of(cls, comparison: Comparison, expected: Expected) -> "Forecaster":
        """A forecaster that has seen no run yet."""
        return cls(comparison, expected, {})

    def steps(self, runs: Iterable[PlannedRun]) -> list[Step]:
        """The runs in their order, each with what it will take; runs come behind those that they read."""
        return [self._step(run) for run in runs]

    def _step(self, run: PlannedRun) -> Step:
        stage, settings = (run.stage.func, run.stage.keywords) if isinstance(run.stage, partial) else (run.stage, {})
        name = str(getattr(stage, "__name__", ""))
        read = [self._size(path) for path in run.inputs]
        responses = None if None in read else float(sum(size or 0 for size in read))
        estimate = _STAGES.get(name)
        if name == "sample":
            n_problems = settings["n_problems"]
            responses = None if n_problems is None else float(n_problems * settings["n"])
        self._sizes[run.folder] = responses
        flops = 0.0 if estimate is None else None if responses is None else estimate(self, settings, responses)
        return Step(run, responses, flops)

    def _size(self, path: Path) -> float | None:
        if path in self._sizes:
            return self._sizes[path]
        if path.exists():
            files = [path] if path.is_file() else row_files(path)
            return float(sum(1 for file in files for _ in read_rows(file)))
        return self.expected.rows.get(str(path))

    def _forward(self, model: str, tokens: float) -> float:
        """2 P a token; a model that the preset does not name has the size of the one that everything starts from."""
        sizes = self.expected.parameters
        return 2 * sizes.get(model, sizes[self.comparison.model]) * tokens

    def sample(self, settings: Mapping[str, Any], responses: float) -> float:
        tokens = responses * self.expected.response_tokens + responses / settings["n"] * self.expected.prompt_tokens
        return self._forward(settings["model"], tokens)

    def label(self, settings: Mapping[str, Any], responses: float) -> float:
        options = settings["options"]
        tokens = responses * self.expected.response_tokens
        if "n" in options:  # so many completions of each beginning, on average half a response
            tokens *= self.expected.steps * options["n"] / 2
        return self._forward(str(options.get("model", self.comparison.model)), tokens)

    def train(self, settings: Mapping[str, Any], responses: float) -> float:
        kept = responses * settings["instructions"]
        if settings["responses"] is not None:
            kept *= min(1.0, settings["responses"] / self.comparison.train.n)
        epochs = float(settings["trainer"].get("num_train_epochs", 1.0))
        tokens = kept * self.expected.response_tokens
        return (3 * epochs + (1 if settings["with_reference"] else 0)) * self._forward("", tokens)

    def score(self, settings: Mapping[str, Any], responses: float) -> float:
        tokens = responses * self.expected.response_tokens
        one_model = list(settings["rewards"]) in (["without-reference"], ["reference-only"])
        return (1 if one_model else 2) * self._forward("", tokens)


_STAGES: Mapping[str, Callable[[Forecaster, Mapping[str, Any], float], float]] = {
    "sample": Forecaster.sample, "label": Forecaster.label, "train": Forecaster.train, "score": Forecaster.score,
}  # fmt: skip


def forecast(preset: Preset, claims: Sequence[Claim], *, out: Path, seeds: Sequence[int]) -> Table:
    """A row a run, and their sum; runs that are finished already are named so, and take nothing.

    Raises:
        ConfigError: the preset has no table `expected`, or none of the claims can be tested on it.
    """
    expected = preset.expected
    if expected is None:
        raise ConfigError(
            f"preset {preset.name}: has no table [expected]; give it prompt_tokens, response_tokens, steps, parameters "
            "and flops_per_second"
        )
    comparison = narrowed(preset.comparison, claims)
    if any(generator.rollouts for generator in comparison.generators.values()):
        check_data(preset)  # what is to be run depends on what they hold
    rows = []
    total, unknown = 0.0, 0
    for step in Forecaster.of(comparison, expected).steps(all_runs(comparison, out, seeds)):
        name = step.run.folder.relative_to(out).as_posix()
        size = NONE if step.responses is None else f"{step.responses:,.0f}"
        if (read_manifest(step.run.folder) or {}).get("status") == "complete":
            rows.append(texts(name, size, "", "done"))
            continue
        total += step.flops or 0.0
        unknown += step.flops is None
        cells = (NONE, NONE) if step.flops is None else (quantity(step.flops), _time(step.flops, expected))
        rows.append(texts(name, size, *(cells if step.flops != 0 else ("", ""))))
    rows.append((*texts(f"all {len(rows)} runs", "", quantity(total)), Cell(_time(total, expected))))
    more = f" Not known yet, for want of their inputs: {unknown} runs." if unknown else ""
    return Table(
        title="Runs",
        note=f"Estimates: 2 FLOPs a parameter and token, three times as many in training; time on {expected.devices} x "
        f"{expected.unit}.{more}",
        header=("run", "responses", "FLOPs", "time"),
        rows=tuple(rows), align="lrrr", has_total=True,
    )  # fmt: skip


def _time(flops: float, expected: Expected) -> str:
    seconds = flops / expected.flops_per_second / expected.devices
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
