"""The `monte_carlo` labeler: Math-Shepherd's labels, from completions of each step's prefix."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from freeprm.core.answers import Verdict
from freeprm.core.answers.extraction import DEFAULT_EXTRACTORS, EXTRACTORS, extract, extractor
from freeprm.core.flops import Flops, ModelShape, charge, forward_flops
from freeprm.core.ledger import DECODE, PREFILL
from freeprm.core.steps import Prefix, Prefixes, prefixes
from freeprm.engines.base import Engine, Request, Sampled, SamplingParams, devices_of
from freeprm.errors import ConfigError
from freeprm.graders.base import Found, Pair, QuickGrader, extracting, judging, missing
from freeprm.graders.base import grader as find_grader
from freeprm.io.plugins import built
from freeprm.io.progress import bar
from freeprm.io.sandbox import Limits, cores
from freeprm.labelers.base import Divided, Labelled, Notebook, StepLabels
from freeprm.types import Charge, Cost, Prompt


class Completion(NamedTuple):
    """What is kept of a completion; a list in a note."""

    prefix: int
    """Which one it completes."""
    sample_idx: int
    pred: str | None
    """The answer found in prefix and completion."""
    reason: str | None
    """Why the search for one failed."""
    truncated: bool
    n_prompt: int | None
    """As `Sampled.n_prompt_tokens`, and so on."""
    n_read: int | None
    n_generated: int | None


class Tally(NamedTuple):
    """Completions of one prefix."""

    right: int = 0
    wrong: int = 0
    """Those without an answer included: they do not reach the right one."""
    without: int = 0
    """Of these, those without an answer."""
    undecided: int = 0
    """The grader or an extractor gave no verdict; they count as neither."""

    @property
    def decided(self) -> int:
        return self.right + self.wrong

    @property
    def any_right(self) -> bool | None:
        """The hard label; None where nothing was decided."""
        return self.right > 0 if self.decided else None

    @property
    def share_right(self) -> float | None:
        """The soft label; None as above."""
        return self.right / self.decided if self.decided else None


@dataclass(frozen=True, kw_only=True)
class Judges:
    """What finds and judges answers."""

    grader: str
    options: Mapping[str, Any]
    extractors: tuple[str, ...]
    n_workers: int
    limits: Limits

    def found(self, responses: Sequence[str]) -> dict[str, Found]:
        """The answer in each response; extractors of the user's own work in processes with limits."""
        different = list(dict.fromkeys(responses))
        if {*self.extractors} <= {*EXTRACTORS}:
            return {response: Found(extract(response, self.extractors), None) for response in different}
        return dict(extracting(self.extractors, n_workers=self.n_workers, limits=self.limits)(different))

    def tallies(self, completions: Sequence[Completion], golds: Sequence[str]) -> list[Tally]:
        """For each prefix.

        Args:
            completions: of all prefixes.
            golds: the gold answer of each prefix.
        """
        pairs = dict.fromkeys(
            Pair(item.pred or "", golds[item.prefix])
            for item in completions
            if missing(item.pred, golds[item.prefix]) is None
        )
        verdicts = self._verdicts(list(pairs))
        tallies = [Tally()] * len(golds)
        for item in completions:
            verdict = verdicts.get(Pair(item.pred or "", golds[item.prefix]))
            tallies[item.prefix] = _counted(tallies[item.prefix], item.reason, verdict)
        return tallies

    def _verdicts(self, pairs: Sequence[Pair]) -> dict[Pair, Verdict]:
        judge = find_grader(self.grader, self.options)
        verdicts: dict[Pair, Verdict] = {}
        for pair in pairs:
            verdict = judge.at_once(*pair) if isinstance(judge, QuickGrader) else None
            if verdict is not None:
                verdicts[pair] = verdict
        others = [pair for pair in pairs if pair not in verdicts]
        if others:
            verdicts.update(judging(self.grader, self.options, n_workers=self.n_workers, limits=self.limits)(others))
        return verdicts


def _counted(tally: Tally, reason: str | None, verdict: Verdict | None) -> Tally:
    """With one more completion.

    Args:
        tally: of those before.
        reason: why the search for its answer failed.
        verdict: None where no answer was found.
    """
    if reason is not None or (verdict is not None and verdict.correct is None):
        return tally._replace(undecided=tally.undecided + 1)
    if verdict is None:
        return tally._replace(wrong=tally.wrong + 1, without=tally.without + 1)
    return tally._replace(right=tally.right + 1) if verdict.correct else tally._replace(wrong=tally.wrong + 1)


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
    """How answers are found; see `core.answers.extraction.extractor`."""
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


_NOTE_ROWS, _NOTE_SECONDS = 1024, 1.0


_KEY = "completions"


def complete(
    wanted: Sequence[Prefix], prompts: Mapping[str, Prompt], *, drawer: Engine, params: SamplingParams, n: int,
    judges: Judges, notebook: Notebook,
) -> list[Completion]:  # fmt: skip
    """`n` completions of each prefix, in order.

    Args:
        wanted: prefixes.
        prompts: by problem.
        drawer: draws.
        params: how.
        n: completions of a prefix.
        judges: find the answers.
        notebook: completions of earlier sessions; those of this one are added.
    """
    known = [Completion(*row) for note in notebook.known for row in note.get(_KEY, ())]
    done: dict[int, set[int]] = {}
    for completion in known:
        done.setdefault(completion.prefix, set()).add(completion.sample_idx)
    names = {f"{prefix.problem_id}#{index}": index for index, prefix in enumerate(wanted)}
    requests = [
        Request(
            problem_id=name, prompt=prompts[wanted[index].problem_id], prefix=wanted[index].text,
            sample_idxs=tuple(range(n)), done=frozenset(done.get(index, ())),
        )
        for name, index in names.items()
    ]  # fmt: skip
    with bar("label", len(wanted) * n, unit="completions", done=len(known)) as advance:
        block: list[Sampled] = []
        started = noted = time.perf_counter()
        n_tokens = 0

        def note() -> None:
            found = judges.found([item.text for item in block])
            new = [_kept(item, names[item.problem_id], *found[item.text]) for item in block]
            notebook.note({_KEY: new})
            known.extend(new)
            block.clear()

        if any(len(request.done) < n for request in requests):
            for sampled in drawer.sample(requests, params=params):
                block.append(sampled)
                now = time.perf_counter()
                n_tokens += sampled.n_generated_tokens or 0
                advance(1, f"{n_tokens / (now - started):,.0f} tokens/s" if n_tokens else "")
                if len(block) >= _NOTE_ROWS or now - noted > _NOTE_SECONDS:
                    note()
                    noted = now
        if block:
            note()
    return sorted(known, key=lambda completion: completion[:2])


def cost_of(completions: Sequence[Completion], shape: ModelShape | None) -> Cost:
    """What was read and drawn; an engine that does not say what it read is taken to read each prefix once."""
    read, drawn = _Sum(), _Sum()
    seen: set[int] = set()
    for item in completions:
        length, n_generated = item.n_prompt or 0, item.n_generated or 0
        n_read = (0 if item.prefix in seen else length) if item.n_read is None else item.n_read
        seen.add(item.prefix)
        read.add(n_read, before=length - n_read)
        drawn.add(n_generated, before=length)
    return Cost(
        prompt_tokens=read.n_tokens, generated_tokens=drawn.n_tokens,
        charges=(read.charge(PREFILL, shape), drawn.charge(DECODE, shape)),
    )  # fmt: skip


class _Sum:
    """Tokens, and how many each of them attends to, itself included."""

    def __init__(self) -> None:
        self.n_tokens = self._attended = 0

    def add(self, n: int, *, before: int) -> None:
        """Tokens in a row behind so many."""
        self.n_tokens += n
        self._attended += n * before + n * (n + 1) // 2

    def charge(self, what: str, shape: ModelShape | None) -> Charge:
        if shape is None or not self.n_tokens:
            return charge(what, self.n_tokens, None if shape is None else Flops(0.0, 0.0))
        mean_length = 2 * self._attended / self.n_tokens - 1  # of causal sequences with this mean context
        return charge(what, self.n_tokens, forward_flops(shape, self.n_tokens, mean_length))


def _kept(sampled: Sampled, prefix: int, pred: str | None, reason: str | None) -> Completion:
    return Completion(
        prefix=prefix, sample_idx=sampled.sample_idx, pred=pred, reason=reason, truncated=sampled.truncated,
        n_prompt=sampled.n_prompt_tokens, n_read=sampled.n_read_tokens, n_generated=sampled.n_generated_tokens,
    )  # fmt: skip


PLUGIN = MonteCarlo
