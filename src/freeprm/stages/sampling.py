"""Draw rollouts: problems in, a run folder of responses out, resumed by the same call."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from freeprm.core.flops import generation_flops
from freeprm.datasets.base import Dataset, choose
from freeprm.engines.base import Engine, Request, Sampled, SamplingParams
from freeprm.errors import ConfigError, DataError, PluginError
from freeprm.io.config import build
from freeprm.io.formats import problem_row, rollout_row
from freeprm.io.jsonl import Row
from freeprm.io.plugins import load, names
from freeprm.io.progress import bar
from freeprm.io.runs import RunFolder, read_manifest
from freeprm.types import Cost, Problem, Rollout

ROWS = "rollouts"
_FLUSH_SECONDS = 1.0
_TRUNCATED = {"length": "truncated: max_new_tokens", "context": "truncated: context"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingResult:
    """What sampling made."""

    folder: Path
    """Holds `rollouts.jsonl`."""
    counts: Mapping[str, int]
    """Problems, samples, those found from an earlier sitting, those truncated by reason."""
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
) -> SamplingResult:
    """Draw `n` responses to each problem.

    A row of `rollouts.jsonl` is a rollout with the problem's own columns, `n_prompt_tokens`, `n_generated_tokens` and
    `stop_reason`. An interrupted and an uninterrupted run end in the same file.

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

    Raises:
        FreePRMError: see the errors of records, settings, data and models.
    """
    params = SamplingParams(
        temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed, stop=tuple(stop)
    )
    _check(n, params)
    if isinstance(problems, str | Path):
        name = str(problems)
        chosen = load_problems(problems, split=split, limit=n_problems, seed=problem_seed, options=dataset_options)
    else:
        name, chosen = "given", _limited(problems, n_problems, problem_seed)
    asked = {"model": model} if workers is None else {"model": model, "workers": workers}
    drawer: Engine = _member("engines", engine, [engine_options or {}, asked])
    settings = {
        "problems": name,
        "problems_sha256": _hash(chosen),
        "model": model,
        "engine": engine,
        **drawer.identity(),
        "n": n,
        "temperature": temperature,
        "top_p": top_p,
        "max_new_tokens": max_new_tokens,
        "stop": list(stop),
        "seed": seed,
    }
    with RunFolder(out, stage="sample", settings=settings) as run:
        if run.complete:
            manifest = read_manifest(out) or {}
            return SamplingResult(folder=out, counts=manifest["counts"], cost=Cost(**manifest["cost"]))
        n_before = len(run.rows(ROWS))
        _draw(run, drawer, chosen, n, params)
        rows = _sorted(run.rows(ROWS), chosen)
        run.rewrite(ROWS, rows)
        counts = _counts(rows, n_before)
        cost = run.finish(cost=_cost(rows, drawer), counts=counts)
    return SamplingResult(folder=out, counts=counts, cost=cost)


def load_problems(
    source: str | Path,
    *,
    split: str = "train",
    limit: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> list[Problem]:
    """Problems of a dataset, or of rows with `prompt` and, where there are, `problem_id` and `answer`.

    Args:
        source: a dataset's name, or a .jsonl or .json file or a folder of them.
        split: of the dataset; rows have none.
        limit: how many, chosen by the seed; all if not given.
        seed: of the choice.
        options: the dataset's other fields.

    Raises:
        RecordError: a row is broken; names the file and the line.
        DataError: there are fewer problems than asked for, or none.
        PluginError: neither a path nor a dataset.
    """
    path = Path(source)
    named = source in names("datasets") or ":" in str(source)
    if not named and (path.exists() or path.suffix in (".json", ".jsonl")):
        dataset: Dataset = _member("datasets", "rows", [options or {}, {"path": path}])
    else:
        dataset = _member("datasets", str(source), [options or {}])
    return _limited(list(dataset.problems(split, limit=limit, seed=seed)), limit, seed)


def _member(family: str, name: str, layers: Sequence[Mapping[str, Any]]) -> Any:
    """A dataset or engine with its options."""
    kind = load(family, name)
    if not isinstance(kind, type) or not is_dataclass(kind):
        raise PluginError(f"{family}: {name!r} is {kind!r}; expected a dataclass whose fields are its options")
    return build(kind, layers)


def _check(n: int, params: SamplingParams) -> None:
    if n < 1:
        raise ConfigError(f"n: is {n}; expected 1 sample a problem or more")
    if params.temperature == 0 and n > 1:
        raise ConfigError(
            f"n: is {n} at temperature 0, where all samples of a problem are the same; set n = 1, or a temperature"
        )


def _limited(problems: Sequence[Problem], limit: int | None, seed: int) -> list[Problem]:
    if limit is not None and limit < 1:
        raise ConfigError(f"n_problems: is {limit}; expected 1 or more")
    if len(problems) < (limit or 1):
        raise DataError(f"{limit or 1} problems were asked for, but there are {len(problems)}")
    twice = [problem_id for problem_id, count in Counter(item.problem_id for item in problems).items() if count > 1]
    if twice:
        raise DataError(f"problem_id: {twice[0]!r} is there more than once; expected each problem once")
    return list(choose(problems, limit=limit, seed=seed))


def _hash(problems: Sequence[Problem]) -> str:
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(json.dumps(problem_row(problem), sort_keys=True).encode())
    return digest.hexdigest()


def _draw(run: RunFolder, engine: Engine, problems: Sequence[Problem], n: int, params: SamplingParams) -> None:
    """Draw what is missing, and append it as it is finished."""
    done: dict[str, set[int]] = {}
    for row in run.rows(ROWS):
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
    by_id = {problem.problem_id: problem for problem in problems}
    with bar("sample", len(problems) * n, unit="samples") as advance:
        advance(sum(map(len, done.values())))
        started, n_tokens = time.perf_counter(), 0
        for part in _by_time(engine.sample(requests, params=params)):
            run.append(ROWS, [_row(by_id[sampled.problem_id], sampled) for sampled in part])
            n_tokens += sum(sampled.n_generated_tokens or 0 for sampled in part)
            advance(len(part), note=f"{n_tokens / (time.perf_counter() - started):,.0f} tokens/s")


def _by_time(samples: Iterable[Sampled]) -> Iterator[list[Sampled]]:
    """Samples in parts, one a second, so that an interruption costs little and writing costs little."""
    part: list[Sampled] = []
    flushed = time.perf_counter()
    for sampled in samples:
        part.append(sampled)
        if time.perf_counter() - flushed > _FLUSH_SECONDS:
            yield part
            part, flushed = [], time.perf_counter()
    if part:
        yield part


def _row(problem: Problem, sampled: Sampled) -> Row:
    columns = {
        "n_prompt_tokens": sampled.n_prompt_tokens,
        "n_generated_tokens": sampled.n_generated_tokens,
        "stop_reason": sampled.stop_reason,
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


def _sorted(rows: Sequence[Row], problems: Sequence[Problem]) -> list[Row]:
    rank = {problem.problem_id: index for index, problem in enumerate(problems)}
    return sorted(rows, key=lambda row: (rank[row["problem_id"]], row["sample_idx"]))


def _counts(rows: Sequence[Row], n_before: int) -> dict[str, int]:
    reasons = Counter(row["stop_reason"] for row in rows)
    counts = {"problems": len({row["problem_id"] for row in rows}), "samples": len(rows), "resumed": n_before}
    return {**counts, **{name: reasons[reason] for reason, name in _TRUNCATED.items() if reasons[reason]}}


def _cost(rows: Sequence[Row], engine: Engine) -> Cost:
    """Tokens and FLOPs of all rows, whenever they were drawn."""
    prompts = {row["problem_id"]: row["n_prompt_tokens"] for row in rows}
    prompt_tokens, generated_tokens = sum(prompts.values()), sum(row["n_generated_tokens"] for row in rows)
    shape = engine.shape()
    flops = shape and generation_flops(
        shape,
        n_prompts=len(prompts),
        prompt_tokens=prompt_tokens,
        n_samples=len(rows),
        generated_tokens=generated_tokens,
    )
    return Cost(prompt_tokens=prompt_tokens, generated_tokens=generated_tokens, flops=flops.total if flops else 0.0)
