"""Draw rollouts: problems in, a run folder of responses out, resumed by the same call."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from freeprm.core.flops import generation_charges
from freeprm.datasets._reading import limited, load_problems, problems_hash
from freeprm.engines.base import Choosing, Counting, Engine, Request, Sampled, SamplingParams, devices_of
from freeprm.errors import ConfigError
from freeprm.executors.base import Executor
from freeprm.io.manifest import read_cost
from freeprm.io.plugins import built
from freeprm.io.progress import Advance, bar, tell
from freeprm.io.rollouts import rollout_row
from freeprm.io.rows import Row
from freeprm.io.runs import RunFolder, read_manifest
from freeprm.types import Cost, Problem, Rollout

ROWS = "rollouts"
BLOCK = 1024
"""Samples of a block, where the work is divided."""
_SYNC_SECONDS = 1.0
"""Between two times that rows are forced to disk, which is slow beside writing them."""
_TRUNCATED = {"length": "truncated: max_new_tokens", "context": "truncated: context"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingResult:
    """What sampling made."""

    folder: Path
    """Holds `rollouts.jsonl`."""
    counts: Mapping[str, int]
    """Problems, samples, those found from an earlier session, those truncated by reason."""
    cost: Cost


def sample(
    problems: str | Path | Sequence[Problem],
    *,
    model: str,
    out: Path,
    split: str = "train",
    n_problems: int | None = None,
    n: int = 8,
    temperature: float = 0.8,
    top_p: float = 1.0,
    max_new_tokens: int = 512,
    stop: Sequence[str] = (),
    seed: int = 0,
    problem_seed: int = 0,
    engine: str = "hf",
    workers: int | None = None,
    dataset_options: Mapping[str, Any] | None = None,
    engine_options: Mapping[str, Any] | None = None,
    logprobs: bool = False,
    executor: str = "local",
    executor_options: Mapping[str, Any] | None = None,
) -> SamplingResult:
    """Draw `n` responses to each problem.

    A row of `rollouts.jsonl` is a rollout with the problem's own columns, `n_prompt_tokens`, `n_generated_tokens` and
    `stop_reason`; with `logprobs` also the columns of `models.reference_logprobs`, by which the reference costs nothing
    later where it is the model that drew. An interrupted and an uninterrupted run end in the same file.

    Args:
        problems: see `load_problems`, or problems themselves.
        model: as the engine takes it; for `hf` a folder, a hub id, or `solver:base`.
        out: run folder.
        split: of a dataset.
        n_problems: how many to take; all if not given.
        n: samples a problem.
        temperature: 0 takes the most likely token, and allows one sample a problem.
        top_p: see `SamplingParams`, as for `stop`.
        max_new_tokens: responses are cut there, and marked truncated.
        stop: texts that end a response.
        seed: of the sampling.
        problem_seed: of the choice of problems.
        engine: name of an engine.
        workers: processes to draw in; the engine decides if not given.
        dataset_options: the dataset's other fields, e.g. `difficulty` of `arithmetic`.
        engine_options: the engine's other fields, e.g. `dtype` of `hf`.
        logprobs: note each token's log-probability under the model.
        executor: name of an executor: where engines work, `local` or `ray`.
        executor_options: the executor's fields.

    Raises:
        FreePRMError: see the errors of records, settings, data and models.
    """
    params = SamplingParams(
        temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed, stop=tuple(stop),
        logprobs=logprobs,
    )  # fmt: skip
    _check(n, params)
    if isinstance(problems, str | Path):
        name = str(problems)
        chosen = load_problems(problems, split=split, limit=n_problems, seed=problem_seed, options=dataset_options)
    else:
        name, chosen = "given", limited(problems, n_problems, problem_seed)
    asked = {"model": model} if workers is None else {"model": model, "workers": workers}
    drawer: Engine = built("engines", engine, [engine_options or {}, asked])
    place: Executor = built("executors", executor, [executor_options or {}])
    settings = {
        "problems": name,
        "problems_sha256": problems_hash(chosen),
        "model": model,
        "engine": engine,
        **drawer.identity(),
        "n": n,
        "temperature": temperature,
        "top_p": top_p,
        "max_new_tokens": max_new_tokens,
        "stop": list(stop),
        "seed": seed,
        "logprobs": logprobs,
    }
    with RunFolder(out, stage="sample", settings=settings) as run:
        if run.complete:
            manifest = read_manifest(out) or {}
            return SamplingResult(folder=out, counts=manifest["counts"], cost=read_cost(manifest["cost"]))
        n_before = len(run.rows(ROWS))
        if isinstance(drawer, Choosing) and not place.remote:
            drawer = _chosen(run, drawer, params)
        _draw(run, place, drawer, params, chosen, n)
        rows = _finished(run, chosen)
        counts = _counts(rows, n_before)
        cost = run.finish(cost=_cost(rows, drawer, place), counts=counts)
    return SamplingResult(folder=out, counts=counts, cost=cost)


def _check(n: int, params: SamplingParams) -> None:
    if n < 1:
        raise ConfigError(f"n: is {n}; expected 1 sample a problem or more")
    if params.temperature == 0 and n > 1:
        raise ConfigError(
            f"n: is {n} at temperature 0, where all samples of a problem are the same; set n = 1, or a temperature"
        )


def _chosen(run: RunFolder, engine: Choosing, params: SamplingParams) -> Engine:
    """The engine with what the run chose for it when it began."""
    choice = run.choice("engine", partial(engine.choose, params))
    if "said" in choice:
        tell(f"sample: {choice['said']}")
    settled: Any = engine.chosen(choice)
    drawer: Engine = settled
    return drawer


def _sampler(
    engine: Engine, params: SamplingParams, count: Callable[[int], None] | None
) -> Callable[[Sequence[Request]], Iterator[Sampled]]:
    """A worker that draws the samples of a block."""
    if count is not None and isinstance(engine, Counting):
        return partial(engine.counted, params=params, count=count)
    return partial(engine.sample, params=params)


def _draw(
    run: RunFolder, place: Executor, engine: Engine, params: SamplingParams, problems: Sequence[Problem], n: int
) -> None:
    """Draw what is missing, and append it as it is finished."""
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
    blocks = _blocks(requests, place.block or BLOCK) if place.remote else [requests]
    by_id = {problem.problem_id: problem for problem in problems}
    in_tokens = isinstance(engine, Counting) and not place.remote
    n_samples = len(problems) * n
    n_tokens = sum(row["n_generated_tokens"] or 0 for row in known)
    unit, before = ("tokens", n_tokens) if in_tokens else ("samples", len(known))
    with bar("sample", None if in_tokens else n_samples, unit=unit, done=before) as advance:
        shown = _Shown(advance, n_samples, len(known), n_tokens, params.max_new_tokens, in_tokens=in_tokens)
        make = partial(_sampler, engine, params, shown.count if in_tokens else None)
        advance(0, "loading the model")
        synced = time.perf_counter()
        for sampled in place.run(make, [block for block in blocks if not _is_done(block)]):
            # One by one: whoever draws may be busy for minutes before the next one comes.
            now = time.perf_counter()
            sync = now - synced > _SYNC_SECONDS
            run.append(ROWS, [_row(by_id[sampled.problem_id], sampled)], sync=sync)
            synced = now if sync else synced
            shown.finish(sampled)


class _Shown:
    """Progress in tokens, of which all but the last one's number is guessed; in samples, where they are not told."""

    def __init__(
        self, advance: Advance, n_samples: int, n_done: int, n_tokens: int, longest: int, *, in_tokens: bool
    ):  # fmt: skip
        self._advance, self._in_tokens = advance, in_tokens
        self._n_samples, self._n_finished, self._longest = n_samples, n_done, longest
        self._n_tokens = self._n_within = n_tokens  # of all samples; of those that are finished
        self._started, self._before = time.perf_counter(), n_tokens

    def count(self, n_tokens: int) -> None:
        """Of any samples."""
        self._n_tokens += n_tokens
        left = (self._n_samples - self._n_finished) * _expected_length(self._n_finished, self._n_tokens, self._longest)
        note = f"{self._n_finished:,} of {self._n_samples:,} samples"
        self._advance(n_tokens, note, max(self._n_tokens, round(self._n_within + left)))

    def finish(self, sampled: Sampled) -> None:
        """A sample is on disk."""
        self._n_finished += 1
        self._n_within += sampled.n_generated_tokens or 0
        if self._in_tokens:
            self.count(0)
            return
        rate = (self._n_within - self._before) / (time.perf_counter() - self._started)
        self._advance(1, f"{rate:,.0f} tokens/s" if self._n_within else "")


def _expected_length(n_ended: int, n_tokens: int, longest: int) -> float:
    """Tokens of a sample, if each of them is as likely to be the last: with chance h, (1 - (1 - h)^longest) / h.

    h is taken from what was drawn, whole or not, so that the guess is no lower for long samples being unfinished.
    """
    if not n_ended:
        return longest
    chance = min(1.0, n_ended / max(1, n_tokens))
    return (1 - (1 - chance) ** longest) / chance


def _blocks(requests: Sequence[Request], size: int) -> list[list[Request]]:
    """All samples of the run in blocks of about this many, the same whatever is done already and whoever does them."""
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


def _row(problem: Problem, sampled: Sampled) -> Row:
    columns = {
        "n_prompt_tokens": sampled.n_prompt_tokens,
        "n_generated_tokens": sampled.n_generated_tokens,
        "stop_reason": sampled.stop_reason,
        **_noted(sampled),
    }
    return rollout_row(
        Rollout(
            problem_id=problem.problem_id,
            sample_idx=sampled.sample_idx,
            prompt=problem.prompt,
            response=sampled.text,
            answer=problem.answer,
            truncated=sampled.truncated,
            extra={**problem.extra, **columns},
        )
    )


def _noted(sampled: Sampled) -> Row:
    """The columns of `models.reference_logprobs`; none where they are not known."""
    if sampled.token_logprobs is None or sampled.token_ids is None:
        return {}
    logprobs = [round(value, 6) for value in sampled.token_logprobs]
    return {"token_ids": list(sampled.token_ids), "token_logprobs": logprobs, "logprobs_of": sampled.logprobs_of}


def _finished(run: RunFolder, problems: Sequence[Problem]) -> list[Row]:
    """All rows, in order, as the file holds them from now on."""
    drawn = run.rows(ROWS)
    rank = {problem.problem_id: index for index, problem in enumerate(problems)}
    rows = sorted(drawn, key=lambda row: (rank[row["problem_id"]], row["sample_idx"]))
    if rows != drawn:
        run.rewrite(ROWS, rows)
    return rows


def _counts(rows: Sequence[Row], n_before: int) -> dict[str, int]:
    reasons = Counter(row["stop_reason"] for row in rows)
    counts = {"problems": len({row["problem_id"] for row in rows}), "samples": len(rows), "resumed": n_before}
    truncated = {name: reasons[reason] for reason, name in _TRUNCATED.items() if reasons[reason]}
    uncounted = sum(row["n_generated_tokens"] is None for row in rows)
    return {**counts, **truncated, **({"without a count of tokens": uncounted} if uncounted else {})}


def _cost(rows: Sequence[Row], engine: Engine, place: Executor) -> Cost:
    """Tokens and FLOPs of all rows that have a count, whenever they were drawn; a prompt's tokens once."""
    prompts = {row["problem_id"]: row["n_prompt_tokens"] or 0 for row in rows}
    prompt_tokens, generated_tokens = sum(prompts.values()), sum(row["n_generated_tokens"] or 0 for row in rows)
    charges = generation_charges(
        engine.shape(),
        n_prompts=len(prompts),
        prompt_tokens=prompt_tokens,
        n_samples=len(rows),
        generated_tokens=generated_tokens,
    )
    return Cost(
        prompt_tokens=prompt_tokens,
        generated_tokens=generated_tokens,
        charges=charges,
        devices=() if place.remote else devices_of(engine),
    )
