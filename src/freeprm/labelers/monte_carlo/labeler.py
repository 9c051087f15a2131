"""Step labels by completion: a step is as good as what comes of the response up to its end.

From each prefix, the prompt with the response up to a step's end, N completions are drawn and graded:

    hard label   some completion has the right answer
    soft label   the share of completions that have it

A soft label estimates the probability of a right answer after the step, and a hard one whether it is above zero.
Neither is whether the step is right: a wrong one can be recovered from, and after a right one the model may fail.

What the last step ends is the whole response: its outcome label is the label, and nothing is drawn. Prefixes that
responses to one problem share are completed once.

Source: Wang et al. 2023, arXiv:2312.08935, section 3.2.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from freeprm.core.extraction import DEFAULT_EXTRACTORS, extractor
from freeprm.core.prefixes import Prefixes, prefixes
from freeprm.engines.base import Engine, SamplingParams, devices_of
from freeprm.errors import ConfigError
from freeprm.graders.base import grader as find_grader
from freeprm.graders.base import missing
from freeprm.io.plugins import built
from freeprm.io.sandbox import Limits, cores
from freeprm.labelers.base import Divided, Labelled, Notebook, StepLabels
from freeprm.labelers.monte_carlo.completing import complete, cost_of
from freeprm.labelers.monte_carlo.judging import Completion, Judges, Tally


@dataclass(frozen=True, kw_only=True)
class MonteCarlo:
    """Completes prefixes with any engine that goes on from a beginning, and grades as `freeprm grade` does."""

    model: str
    """As the engine takes it; the model that drew the responses, or another one."""
    engine: str = "hf"
    """Name of an engine."""
    n: int = 8
    """Completions of a prefix."""
    temperature: float = 0.8
    """See `SamplingParams`, as for the next two."""
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    max_new_tokens: int = 512
    """Of a completion, its prefix not counted."""
    extractors: tuple[str, ...] = DEFAULT_EXTRACTORS
    """How answers are found; see `core.extraction.extractor`."""
    grader: str = "math"
    """A member of `graders`, or `package.module:name`."""
    grader_options: Mapping[str, Any] = field(default_factory=dict)
    """The grader's fields."""
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    """The engine's other fields."""
    workers: int | None = None
    """Processes to draw in; the engine decides if not given."""
    timeout: float = Limits().seconds
    """Seconds for one answer to be judged in."""
    memory_mib: int = Limits().memory_mib
    """MiB for a process that judges."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"n: is {self.n}; expected 1 completion a prefix or more")
        if self._params(0).temperature == 0 and self.n > 1:
            raise ConfigError(f"n: is {self.n} at temperature 0, where all completions are the same; set n = 1")
        find_grader(self.grader, self.grader_options)
        for name in self.extractors:
            extractor(name)

    def label(self, responses: Sequence[Divided], *, seed: int, notebook: Notebook) -> Labelled:
        """See `Labeler`. A response without an outcome label or a gold answer is left out.

        Raises:
            ConfigError: the engine does not go on from the beginning of a response.
            ModelError: see the engine.
        """
        reasons = [_unfit(item) for item in responses]
        fit = [index for index, reason in enumerate(reasons) if reason is None]
        rollouts = [responses[index].rollout for index in fit]
        wanted = prefixes(
            [item.problem_id for item in rollouts], [item.response for item in rollouts],
            [responses[index].steps for index in fit],
        )  # fmt: skip
        drawer, judges = self._drawer(), self._judges()
        prompts = {item.problem_id: item.prompt for item in rollouts}
        golds = {item.problem_id: item.answer or "" for item in rollouts}
        completions = complete(
            wanted.distinct, prompts, drawer=drawer, params=self._params(seed), n=self.n, judges=judges,
            notebook=notebook,
        )  # fmt: skip
        tallies = judges.tallies(completions, [golds[prefix.problem_id] for prefix in wanted.distinct])
        labels = {
            index: _labels([tallies[place] for place in places], outcome=bool(rollout.correct))
            for index, rollout, places in zip(fit, rollouts, wanted.places, strict=True)
        }
        cost = replace(cost_of(completions, drawer.shape()), devices=devices_of(drawer))
        counts = _counts(wanted, completions, tallies) + Counter(reason for reason in reasons if reason)
        return Labelled(labels=labels, counts=counts, cost=cost)

    def identity(self) -> Mapping[str, Any]:
        """See `Labeler`."""
        return {
            "model": self.model, "engine": self.engine, **self._drawer().identity(), "n": self.n,
            "temperature": self.temperature, "top_p": self.top_p, "stop": list(self.stop),
            "max_new_tokens": self.max_new_tokens, "extractors": list(self.extractors), "grader": self.grader,
            "grader_options": dict(self.grader_options), "timeout": self.timeout, "memory_mib": self.memory_mib,
        }  # fmt: skip

    def models(self) -> Mapping[str, str]:
        """See `Labeler`."""
        return {"completer": self.model}

    def _drawer(self) -> Engine:
        asked = {"model": self.model} if self.workers is None else {"model": self.model, "workers": self.workers}
        drawer: Engine = built("engines", self.engine, [self.engine_options, asked])
        return drawer

    def _judges(self) -> Judges:
        return Judges(
            grader=self.grader, options=self.grader_options, extractors=self.extractors, n_workers=cores(),
            limits=Limits(seconds=self.timeout, memory_mib=self.memory_mib),
        )  # fmt: skip

    def _params(self, seed: int) -> SamplingParams:
        return SamplingParams(
            temperature=self.temperature, top_p=self.top_p, max_new_tokens=self.max_new_tokens, seed=seed,
            stop=self.stop,
        )  # fmt: skip


def _unfit(response: Divided) -> str | None:
    """Why a response cannot be labelled; None where it can."""
    if response.rollout.correct is None:
        return "not labelled: without an outcome label"
    return "not labelled: without a gold answer" if missing("an answer", response.rollout.answer) else None


def _labels(tallies: Sequence[Tally], *, outcome: bool) -> StepLabels:
    return StepLabels(
        labels=(*(tally.any_right for tally in tallies), outcome),
        values=(*(tally.share_right for tally in tallies), float(outcome)),
        columns={"step_completions": [*(tally.decided for tally in tallies), 0]},
    )


def _counts(wanted: Prefixes, completions: Sequence[Completion], tallies: Sequence[Tally]) -> Counter[str]:
    whole = {completion.prefix: completion.n_prompt for completion in completions}
    counts = Counter({
        "prefixes completed": len(wanted.distinct),
        "prefixes that an earlier response had": wanted.n_repeated,
        "completions": len(completions),
        "completions cut off": sum(completion.truncated for completion in completions),
        "completions without an answer": sum(tally.without for tally in tallies),
        "completions without a verdict": sum(tally.undecided for tally in tallies),
    })  # fmt: skip
    if all(length is not None for length in whole.values()):
        counts["tokens of the prefixes"] = sum(length or 0 for length in whole.values())
    return +counts
