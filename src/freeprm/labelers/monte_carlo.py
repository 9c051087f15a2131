"""Step labels by completion: a step is judged by completions of the response up to its end.

From each prefix, the prompt with the response up to a step's end, N completions are drawn, and graded as by
`freeprm grade`:

    hard label   some completion has the right answer
    soft label   the share of completions that have it

A soft label estimates the probability of a right answer after the step, and a hard one whether it is above zero.
Neither is whether the step is right: the model can recover from a wrong one, and may fail after a right one.

The label of the last step is the response's outcome label, and nothing is drawn. Prefixes that responses to one problem
share are completed once.

Source: Wang et al. 2023 (Math-Shepherd), arXiv:2312.08935, section 3.2.
"""

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
from freeprm.graders.base import AnswerPair, ExtractedAnswer, QuickGrader, extracting, grader, judging, missing
from freeprm.io.plugins import built
from freeprm.io.progress import bar
from freeprm.io.sandbox import Limits, cores
from freeprm.labelers.base import Divided, Labelled, Notebook, StepLabels
from freeprm.types import Charge, Cost, Prompt

_NOTE_ROWS, _NOTE_SECONDS = 1024, 1.0
_KEY = "completions"


class Completion(NamedTuple):
    """A completion as it is kept; a list in a note."""

    prefix: int
    """Its index."""
    sample_idx: int
    pred: str | None
    """The answer in prefix and completion."""
    reason: str | None
    """Why the extractor failed."""
    truncated: bool
    n_prompt: int | None
    """See `Sampled.n_prompt_tokens`, and so on."""
    n_read: int | None
    n_generated: int | None


class Tally(NamedTuple):
    """Counts of one prefix's completions."""

    right: int = 0
    wrong: int = 0
    """Including those without an answer."""
    without: int = 0
    """Without an answer."""
    undecided: int = 0
    """Without a verdict of the grader or an extractor; neither right nor wrong."""

    @property
    def decided(self) -> int:
        return self.right + self.wrong


@dataclass(frozen=True, kw_only=True)
class MonteCarlo:
    """Completes prefixes with any engine that continues a prefix, and grades as `freeprm grade` does."""

    model: str
    """Of the engine; the model that drew the responses, or another one."""
    engine: str = "hf"
    """Name of an engine."""
    n: int = 8
    """Completions of a prefix."""
    temperature: float = 0.8
    """See `SamplingParams`, as for the next two."""
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    max_new_tokens: int = 512
    """Of a completion, without its prefix."""
    extractors: tuple[str, ...] = DEFAULT_EXTRACTORS
    """See `core.answers.extraction.extractor`."""
    grader: str = "math"
    """A member of `graders`, or `package.module:name`."""
    grader_options: Mapping[str, Any] = field(default_factory=dict)
    """The grader's fields."""
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    """The engine's other fields."""
    workers: int | None = None
    """Processes of the engine; by default it decides."""
    timeout: float = Limits().seconds
    """Seconds to judge one answer."""
    memory_mib: int = Limits().memory_mib
    """MiB of a process that judges."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"n: is {self.n}; expected 1 completion a prefix or more")
        if self._params(0).temperature == 0 and self.n > 1:
            raise ConfigError(f"n: is {self.n} at temperature 0, where all completions are the same; set n = 1")
        grader(self.grader, self.grader_options)
        for name in self.extractors:
            extractor(name)

    def label(self, responses: Sequence[Divided], *, seed: int, notebook: Notebook) -> Labelled:
        """See `Labeler`. A response without an outcome label or a gold answer is left out.

        Raises:
            ConfigError: the engine cannot continue the beginning of a response.
            ModelError: the engine cannot use the model.
        """
        reasons = [_unfit(item) for item in responses]
        fit = [index for index, reason in enumerate(reasons) if reason is None]
        rollouts = [responses[index].rollout for index in fit]
        wanted = prefixes(
            [item.problem_id for item in rollouts], [item.response for item in rollouts],
            [responses[index].steps for index in fit],
        )  # fmt: skip
        engine, prompts = self._engine(), {item.problem_id: item.prompt for item in rollouts}
        completions = self._complete(wanted.distinct, prompts, engine, self._params(seed), notebook)
        golds = {item.problem_id: item.answer or "" for item in rollouts}
        tallies = self._tallies(completions, [golds[prefix.problem_id] for prefix in wanted.distinct])
        labels = {
            index: _labels([tallies[number] for number in numbers], outcome=bool(rollout.correct))
            for index, rollout, numbers in zip(fit, rollouts, wanted.indices, strict=True)
        }
        cost = replace(cost_of(completions, engine.shape()), devices=devices_of(engine))
        counts = _counts(wanted, completions, tallies) + Counter(reason for reason in reasons if reason)
        return Labelled(labels=labels, counts=counts, cost=cost)

    def identity(self) -> Mapping[str, Any]:
        """See `Labeler`."""
        return {
            "model": self.model, "engine": self.engine, **self._engine().identity(), "n": self.n,
            "temperature": self.temperature, "top_p": self.top_p, "stop": list(self.stop),
            "max_new_tokens": self.max_new_tokens, "extractors": list(self.extractors), "grader": self.grader,
            "grader_options": dict(self.grader_options), "timeout": self.timeout, "memory_mib": self.memory_mib,
        }  # fmt: skip

    def models(self) -> Mapping[str, str]:
        """See `Labeler`."""
        return {"completer": self.model}

    def _engine(self) -> Engine:
        own = {"model": self.model} if self.workers is None else {"model": self.model, "workers": self.workers}
        engine: Engine = built("engines", self.engine, [self.engine_options, own])
        return engine

    def _params(self, seed: int) -> SamplingParams:
        return SamplingParams(
            temperature=self.temperature, top_p=self.top_p, max_new_tokens=self.max_new_tokens, seed=seed,
            stop=self.stop,
        )  # fmt: skip

    @property
    def _limits(self) -> Limits:
        return Limits(seconds=self.timeout, memory_mib=self.memory_mib)

    def _complete(
        self, wanted: Sequence[Prefix], prompts: Mapping[str, Prompt], engine: Engine, params: SamplingParams,
        notebook: Notebook,
    ) -> list[Completion]:  # fmt: skip
        """`n` completions of each prefix, in order, of earlier sessions and drawn now; new ones are noted."""
        known = [Completion(*row) for note in notebook.known for row in note.get(_KEY, ())]
        done: dict[int, set[int]] = {}
        for completion in known:
            done.setdefault(completion.prefix, set()).add(completion.sample_idx)
        names = {f"{prefix.problem_id}#{index}": index for index, prefix in enumerate(wanted)}
        requests = [
            Request(
                problem_id=name, prompt=prompts[wanted[index].problem_id], prefix=wanted[index].text,
                sample_idxs=tuple(range(self.n)), done=frozenset(done.get(index, ())),
            )
            for name, index in names.items()
        ]  # fmt: skip
        with bar("label", len(wanted) * self.n, unit="completions", done=len(known)) as advance:
            block: list[Sampled] = []
            started = noted = time.perf_counter()
            n_tokens = 0

            def note() -> None:
                found = self._found([item.text for item in block])
                new = [_kept(item, names[item.problem_id], found[item.text]) for item in block]
                notebook.note({_KEY: new})
                known.extend(new)
                block.clear()

            if any(len(request.done) < self.n for request in requests):  # else no engine has to start
                for sampled in engine.sample(requests, params=params):
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

    def _found(self, responses: Sequence[str]) -> dict[str, ExtractedAnswer]:
        """The answer in each response; the user's own extractors run in processes with limits."""
        different = list(dict.fromkeys(responses))
        if {*self.extractors} <= {*EXTRACTORS}:
            return {response: ExtractedAnswer(extract(response, self.extractors), None) for response in different}
        return dict(extracting(self.extractors, n_workers=cores(), limits=self._limits)(different))

    def _tallies(self, completions: Sequence[Completion], golds: Sequence[str]) -> list[Tally]:
        """Tally of each prefix, from all completions and the prefixes' gold answers; equal answers are judged once."""
        pairs = [AnswerPair(item.pred or "", golds[item.prefix]) for item in completions]
        answered = [missing(item.pred, golds[item.prefix]) is None for item in completions]
        verdicts = self._verdicts(dict.fromkeys(pair for pair, has in zip(pairs, answered, strict=True) if has))
        tallies = [Tally()] * len(golds)
        for item, pair in zip(completions, pairs, strict=True):
            tally, verdict = tallies[item.prefix], verdicts.get(pair)  # None without an answer
            if item.reason is not None or (verdict is not None and verdict.correct is None):
                tally = tally._replace(undecided=tally.undecided + 1)
            elif verdict is not None and verdict.correct:
                tally = tally._replace(right=tally.right + 1)
            else:
                tally = tally._replace(wrong=tally.wrong + 1, without=tally.without + (verdict is None))
            tallies[item.prefix] = tally
        return tallies

    def _verdicts(self, pairs: Mapping[AnswerPair, None]) -> dict[AnswerPair, Verdict]:
        judge = grader(self.grader, self.grader_options)
        quick = {pair: judge.at_once(*pair) if isinstance(judge, QuickGrader) else None for pair in pairs}
        verdicts = {pair: verdict for pair, verdict in quick.items() if verdict is not None}
        others = [pair for pair in pairs if pair not in verdicts]
        if others:
            verdicts |= judging(self.grader, self.grader_options, n_workers=cores(), limits=self._limits)(others)
        return verdicts


def _unfit(response: Divided) -> str | None:
    """Why a response cannot be labelled, or None."""
    if response.rollout.correct is None:
        return "not labelled: without an outcome label"
    return "not labelled: without a gold answer" if missing("an answer", response.rollout.answer) else None


def _kept(sampled: Sampled, prefix: int, found: ExtractedAnswer) -> Completion:
    return Completion(
        prefix, sampled.sample_idx, *found, sampled.truncated, sampled.n_prompt_tokens, sampled.n_read_tokens,
        sampled.n_generated_tokens,
    )  # fmt: skip


def _labels(tallies: Sequence[Tally], *, outcome: bool) -> StepLabels:
    return StepLabels(
        labels=(*(tally.right > 0 if tally.decided else None for tally in tallies), outcome),
        values=(*(tally.right / tally.decided if tally.decided else None for tally in tallies), float(outcome)),
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


def cost_of(completions: Sequence[Completion], shape: ModelShape | None) -> Cost:
    """The cost of reading and drawing; an engine that does not count what it reads is assumed to read a prefix once."""
    read, drawn = [], []  # tokens in a row, and the number before them
    seen: set[int] = set()
    for item in completions:
        length = item.n_prompt or 0
        n_read = (0 if item.prefix in seen else length) if item.n_read is None else item.n_read
        seen.add(item.prefix)
        read.append((n_read, length - n_read))
        drawn.append((item.n_generated or 0, length))
    charges = (_charge(PREFILL, read, shape), _charge(DECODE, drawn, shape))
    return Cost(prompt_tokens=charges[0].tokens, generated_tokens=charges[1].tokens, charges=charges)


def _charge(what: str, rows: Sequence[tuple[int, int]], shape: ModelShape | None) -> Charge:
    n_tokens = sum(n for n, _ in rows)
    if shape is None or not n_tokens:
        return charge(what, n_tokens, None if shape is None else Flops(0.0, 0.0))
    attended = sum(n * before + n * (n + 1) // 2 for n, before in rows)  # tokens attend to themselves too
    mean_length = 2 * attended / n_tokens - 1  # of causal sequences with this mean context
    return charge(what, n_tokens, forward_flops(shape, n_tokens, mean_length))


PLUGIN = MonteCarlo
