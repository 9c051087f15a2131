"""Draw rollouts: problems in, a run folder of responses out, resumed by the same call."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from freeprm.datasets._reading import problems_hash
from freeprm.engines._rows import drawing_cost, in_order, sample_row, truncated_counts
from freeprm.engines.base import Choosing, Counting, Engine, Request, Sampled, SamplingParams
from freeprm.executors.base import Executor
from freeprm.io.plugins import built
from freeprm.io.progress import Advance, bar, tell
from freeprm.io.rows import Row
from freeprm.io.runs import RunFolder
from freeprm.settings import SampleSettings
from freeprm.stages.base import RunResult, choose_problems, problems_of, stage
from freeprm.types import Problem

ROWS = "rollouts"
BLOCK = 1024
"""Samples of a block, where the work is divided."""
_SYNC_SECONDS = 1.0
"""Between two syncs to disk, which are slow."""


@stage(SampleSettings, read=problems_of)
def sample(problems: Sequence[str | Problem], settings: SampleSettings, out: Path) -> RunResult:
    """Draw `n` responses to each problem: of a named dataset, of a file of problems, or of problems themselves.

    A row of `rollouts.jsonl` is a rollout with the problem's own columns, `n_prompt_tokens`, `n_generated_tokens` and
    `stop_reason`; with `logprobs` also the columns of `models.reference_logprobs`, so that scoring need not run the
    reference if it is the model that drew. An interrupted and an uninterrupted run end in the same file.
    """
    name, selected = choose_problems(problems, settings)
    workers = {} if settings.workers is None else {"workers": settings.workers}
    engine: Engine = built("engines", settings.engine, [settings.engine_options, {"model": settings.model, **workers}])
    executor: Executor = built("executors", settings.executor, [settings.executor_options])
    identity = {
        "problems": name, "problems_sha256": problems_hash(selected), **settings.deciding(), **engine.identity(),
    }  # fmt: skip
    with RunFolder(out, stage="sample", settings=identity) as run:
        if not run.complete:
            n_before = len(run.rows(ROWS))
            params = settings.params()
            if isinstance(engine, Choosing) and not executor.remote:
                engine = _with_choice(run, engine, params)
            _draw(run, executor, engine, params, selected, settings.n)
            rows = _finished(run, selected)
            run.finish(cost=drawing_cost(rows, engine, elsewhere=executor.remote), counts=_counts(rows, n_before))
    return RunResult.load(out)


def _with_choice(run: RunFolder, engine: Choosing, params: SamplingParams) -> Engine:
    """The engine with the choice that it made in the run's first session."""
    choice = run.choice("engine", partial(engine.choose, params))
    if "said" in choice:
        tell(f"sample: {choice['said']}")
    chosen: Any = engine.chosen(choice)
    configured: Engine = chosen
    return configured


def _sampler(
    engine: Engine, params: SamplingParams, count: Callable[[int], None] | None
) -> Callable[[Sequence[Request]], Iterator[Sampled]]:
    """A function that draws the samples of a block."""
    if count is not None and isinstance(engine, Counting):
        return partial(engine.counted, params=params, count=count)
    return partial(engine.sample, params=params)


def _draw(
    run: RunFolder, executor: Executor, engine: Engine, params: SamplingParams, problems: Sequence[Problem], n: int
) -> None:
    """Draw the missing samples, and append each as it is finished."""
    done: dict[str, set[int]] = {}
    known = run.rows(ROWS)
    for row in known:
        done.setdefault(row["problem_id"], set()).add(row["sample_idx"])
    requests = [
        Request(
            problem_id=problem.problem_id,
            prompt=problem.prompt,
            sample_idxs=tuple(range(n)),
            done=frozenset(done.get(problem.problem_id, ())),
        )
        for problem in problems
    ]
    blocks = _blocks(requests, executor.block or BLOCK) if executor.remote else [requests]
    by_id = {problem.problem_id: problem for problem in problems}
    in_tokens = isinstance(engine, Counting) and not executor.remote
    n_samples = len(problems) * n
    n_tokens = sum(row["n_generated_tokens"] or 0 for row in known)
    unit, before = ("tokens", n_tokens) if in_tokens else ("samples", len(known))
    with bar("sample", None if in_tokens else n_samples, unit=unit, done=before) as advance:
        shown = _Shown(advance, n_samples, len(known), n_tokens, params.max_new_tokens, in_tokens=in_tokens)
        make = partial(_sampler, engine, params, shown.count if in_tokens else None)
        advance(0, "loading the model")
        synced = time.perf_counter()
        for sampled in executor.run(make, [block for block in blocks if not _is_done(block)]):
            # One by one: the next one may take minutes.
            now = time.perf_counter()
            sync = now - synced > _SYNC_SECONDS
            run.append(ROWS, [sample_row(by_id[sampled.problem_id], sampled, _noted(sampled))], sync=sync)
            synced = now if sync else synced
            shown.finish(sampled)


class _Shown:
    """Progress in tokens, with an estimated total; in samples, if the engine does not count tokens."""

    def __init__(
        self, advance: Advance, n_samples: int, n_done: int, n_tokens: int, longest: int, *, in_tokens: bool
    ):  # fmt: skip
        self._advance, self._in_tokens = advance, in_tokens
        self._n_samples, self._n_finished, self._longest = n_samples, n_done, longest
        self._n_tokens = self._n_within = n_tokens  # of all samples; of those that are finished
        self._started, self._before = time.perf_counter(), n_tokens

    def count(self, n_tokens: int) -> None:
        """Note tokens of any samples."""
        self._n_tokens += n_tokens
        n_left = self._n_samples - self._n_finished
        begun = (self._n_tokens - self._n_within) / max(1, n_left)  # tokens that a sample has already, on average
        left = n_left * _tokens_left(self._n_finished, self._n_tokens, self._longest - begun)
        note = f"{self._n_finished:,} of {self._n_samples:,} samples"
        self._advance(n_tokens, note, round(self._n_tokens + left))

    def finish(self, sampled: Sampled) -> None:
        """Note a sample that is on disk."""
        self._n_finished += 1
        self._n_within += sampled.n_generated_tokens or 0
        if self._in_tokens:
            self.count(0)
            return
        rate = (self._n_within - self._before) / (time.perf_counter() - self._started)
        self._advance(1, f"{rate:,.0f} tokens/s" if self._n_within else "")


def _tokens_left(n_ended: int, n_tokens: int, most: float) -> float:
    """Expected tokens of a sample that may have `most` more, if each is the last with chance h: (1 - (1 - h)^most) / h.

    h is estimated from finished and unfinished samples, so that long samples under way do not bias it; with it what
    is left does not depend on what a sample has already.
    """
    if not n_ended:
        return most
    chance = min(1.0, n_ended / max(1, n_tokens))
    return (1 - float((1 - chance) ** most)) / chance


def _blocks(requests: Sequence[Request], size: int) -> list[list[Request]]:
    """All samples of the run in blocks of about this size, the same whatever is done already."""
    blocks: list[list[Request]] = []
    room = 0
    for request in requests:
        for start in range(0, len(request.sample_idxs), size):
            part = request.sample_idxs[start : start + size]
            if len(part) > room:
                blocks.append([])
                room = size
            blocks[-1].append(replace(request, sample_idxs=part, done=request.done.intersection(part)))
            room -= len(part)
    return blocks


def _is_done(block: Sequence[Request]) -> bool:
    return all(len(request.done) == len(request.sample_idxs) for request in block)


def _noted(sampled: Sampled) -> Row:
    """The columns of `models.reference_logprobs`, if the engine knows them."""
    if sampled.token_logprobs is None or sampled.token_ids is None:
        return {}
    logprobs = [round(value, 6) for value in sampled.token_logprobs]
    return {"token_ids": list(sampled.token_ids), "token_logprobs": logprobs, "logprobs_of": sampled.logprobs_of}


def _finished(run: RunFolder, problems: Sequence[Problem]) -> list[Row]:
    """All rows in order, after rewriting the file if need be."""
    drawn = run.rows(ROWS)
    rows = in_order(drawn, problems)
    if rows != drawn:
        run.rewrite(ROWS, rows)
    return rows


def _counts(rows: Sequence[Row], n_before: int) -> dict[str, int]:
    counts = {"problems": len({row["problem_id"] for row in rows}), "samples": len(rows), "resumed": n_before}
    uncounted = sum(row["n_generated_tokens"] is None for row in rows)
    return {**counts, **truncated_counts(rows), **({"without a count of tokens": uncounted} if uncounted else {})}
