"""Sample with early stopping: problems and a reward model in; the best of n samples, drawn without finishing all, out.

    out/rollouts.jsonl   a row for each sample, as `freeprm sample` writes it, and what the reward model says of it:
                         `scorer`, `step_scores` of the steps it scored, `running_score` (the lowest of them), and
                         whether it is `selected`

A sample that was not finished has `stop_reason: "abandoned"` and its text so far.
Selected is the sample that drawing all of them, scoring all of them and taking the best by `min` would select; see
`core.early_stopping` for why. The lowest score of an abandoned one is below it, or the same with a higher index, so
`freeprm select` selects it from these rows by best-of-n, too; votes and averages need whole samples.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freeprm.core import score_kinds
from freeprm.core.flops import ModelShape, forward_charges, generation_charges
from freeprm.core.steps import check_settling
from freeprm.datasets._reading import limited, load_problems, problems_hash
from freeprm.engines.base import Request, SamplingParams
from freeprm.engines.hf.best_first import Judge, ScoredSample
from freeprm.engines.hf.engine import HFEngine
from freeprm.errors import ConfigError
from freeprm.io.manifest import read_cost
from freeprm.io.plugins import built
from freeprm.io.progress import bar
from freeprm.io.rollouts import rollout_row
from freeprm.io.rows import Row
from freeprm.io.runs import RunFolder, read_manifest
from freeprm.models.incremental import StepwiseRewards
from freeprm.models.reference_logprobs import key_of
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.types import Cost, Problem, Rollout

ROWS = "rollouts"


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlySampling:
    """What sampling with early stopping made."""

    folder: Path
    """Holds `rollouts.jsonl`."""
    counts: Mapping[str, int]
    """Problems, samples, those abandoned or cut, and those that the reward model cannot score."""
    cost: Cost


def sample_early(
    problems: str | Path | Sequence[Problem],
    *,
    model: str,
    prm: ImplicitPRM,
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
    dataset_options: Mapping[str, Any] | None = None,
    engine_options: Mapping[str, Any] | None = None,
    reward: str = "with-reference",
    splitter: str | None = None,
    batch: int = 1,
) -> EarlySampling:
    """The best of n samples by the lowest step reward, with as little drawing as finds it; resumed by the same call.

    Args:
        problems: as for `sample`, like all that follows up to `engine_options`, which are those of the `hf` engine.
        prm: see `ImplicitPRM`.
        reward: a name in `freeprm.core.rewards.REWARDS`; only the models that it takes are run. Where the reference is
            the model that draws, its log-probabilities are those noted while drawing.
        splitter: a name in `freeprm.core.steps.SETTLING`; the reward model's own by default.
        batch: samples of a problem that are written on in a round; decides what is drawn, not what is selected.

    Raises:
        ConfigError: a splitter whose steps are not known before the end, or another setting out of range.
        FreePRMError: see the errors of records, data and models.
    """
    params = SamplingParams(
        temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed, stop=tuple(stop)
    )
    name = check_settling(splitter or prm.config.splitter)
    if n < 1 or batch < 1 or (temperature == 0 and n > 1):
        raise ConfigError(f"n is {n} and batch {batch}; expected 1 or more of each, and one sample at temperature 0")
    if isinstance(problems, str | Path):
        chosen = load_problems(problems, split=split, limit=n_problems, seed=problem_seed, options=dataset_options)
    else:
        chosen = limited(problems, n_problems, problem_seed)
    engine: HFEngine = built("engines", "hf", [engine_options or {}, {"model": model}])
    rewards = StepwiseRewards(policy=prm.policy, reference=prm.reference, reward=reward, beta=prm.config.beta)
    judge = Judge(
        rewards=rewards, tokenizer=prm.policy.tokenizer, max_length=prm.policy.max_length, splitter=name,
        reference_draws=_draws(engine, prm),
    )  # fmt: skip
    settings = {
        "problems": str(problems) if isinstance(problems, str | Path) else "given",
        "problems_sha256": problems_hash(chosen),
        "model": model,
        "engine": "hf",
        **engine.identity(),
        "n": n,
        "temperature": temperature,
        "top_p": top_p,
        "max_new_tokens": max_new_tokens,
        "stop": list(stop),
        "seed": seed,
        "early_stop": {"prm": prm.identity(), "reward": reward, "splitter": name, "batch": batch},
    }
    with RunFolder(out, stage="sample", settings=settings) as run:
        if run.complete:
            manifest = read_manifest(out) or {}
            return EarlySampling(folder=out, counts=manifest["counts"], cost=read_cost(manifest["cost"]))
        _draw(run, engine, params, chosen, n=n, judge=judge, batch=batch, scorer=reward)
        rank = {problem.problem_id: index for index, problem in enumerate(chosen)}
        rows = sorted(run.rows(ROWS), key=lambda row: (rank[row["problem_id"]], row["sample_idx"]))
        run.rewrite(ROWS, rows)
        counts = _counts(rows)
        cost = _cost(rows, run.parts(), engine, prm)
        cost = run.finish(cost=cost, counts=counts, models={"policy": prm.policy.source})
    return EarlySampling(folder=out, counts=counts, cost=cost)


def _draw(
    run: RunFolder, engine: HFEngine, params: SamplingParams, problems: Sequence[Problem], *, n: int, judge: Judge,
    batch: int, scorer: str,
) -> None:  # fmt: skip
    """Decide the problems that are open, and append the rows of each as it is decided."""
    by_id = {problem.problem_id: problem for problem in problems}
    done = _done(run, n)
    requests = [
        Request(problem_id=problem.problem_id, prompt=problem.prompt, sample_idxs=tuple(range(n)))
        for problem in problems
        if problem.problem_id not in done
    ]
    before, n_tokens = Counter[str](), 0
    with bar("sample", len(problems), unit="problems", done=len(done)) as advance:
        for decided in engine.best_first(requests, params=params, judge=judge, batch=batch):
            problem = by_id[decided.problem_id]
            rows = [
                _row(problem, written, scorer=scorer, selected=place == decided.best)
                for place, written in enumerate(decided.samples)
            ]
            run.append(ROWS, rows)
            read = Counter(judge.rewards.read)
            run.log_part({"read": {what: n - before[what] for what, n in read.items()}})
            before = read
            n_tokens += sum(row["n_generated_tokens"] for row in rows)
            advance(1, note=f"{n_tokens:,} tokens")


def _done(run: RunFolder, n: int) -> set[str]:
    """Problems of an earlier session, all rows of which were written; the rows of others are made again."""
    rows = run.rows(ROWS)
    counts = Counter(row["problem_id"] for row in rows)
    whole = [row for row in rows if counts[row["problem_id"]] == n]
    if len(whole) < len(rows):
        run.rewrite(ROWS, whole)
    return {row["problem_id"] for row in whole}


def _draws(engine: HFEngine, prm: ImplicitPRM) -> bool:
    """The engine's model is the reference, in the same precision."""
    if prm.reference is None:
        return False
    model = prm.reference
    return engine.key() == key_of(model.folder, model.tokenizer, dtype=model.dtype)


def _row(problem: Problem, written: ScoredSample, *, scorer: str, selected: bool) -> Row:
    sampled, scores = written
    columns = {
        "n_prompt_tokens": sampled.n_prompt_tokens,
        "n_generated_tokens": sampled.n_generated_tokens,
        "stop_reason": sampled.stop_reason,
        **({} if scores is None else {score_kinds.COLUMN: "log_odds"}),
        "running_score": None if scores is None else min(scores),
        "selected": selected,
    }
    return rollout_row(
        Rollout(
            problem_id=problem.problem_id,
            sample_idx=sampled.sample_idx,
            prompt=problem.prompt,
            response=sampled.text,
            answer=problem.answer,
            truncated=sampled.truncated,
            scorer=None if scores is None else scorer,
            step_scores=scores,
            extra={**problem.extra, **columns},
        )
    )


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    problems = {row["problem_id"] for row in rows}
    reasons = Counter(row["stop_reason"] for row in rows)
    counts = Counter({
        "finished": len(rows) - reasons["abandoned"],
        "abandoned": reasons["abandoned"],
        "truncated: max_new_tokens": reasons["length"],
        "truncated: context": reasons["context"],
        "not scored: empty, or too long for the reward model": sum(row["running_score"] is None for row in rows),
        "problems without a sample that can be scored": len(problems) - sum(row["selected"] for row in rows),
    })  # fmt: skip
    return {"problems": len(problems), "samples": len(rows), **+counts}


def _cost(rows: Sequence[Row], parts: Sequence[Row], engine: HFEngine, prm: ImplicitPRM) -> Cost:
    """Drawing and scoring, of all sessions; a prompt's tokens once."""
    prompts = {row["problem_id"]: row["n_prompt_tokens"] for row in rows}
    prompt_tokens, generated_tokens = sum(prompts.values()), sum(row["n_generated_tokens"] for row in rows)
    drawing = generation_charges(
        engine.shape(), n_prompts=len(prompts), prompt_tokens=prompt_tokens, n_samples=len(rows),
        generated_tokens=generated_tokens,
    )  # fmt: skip
    read = Counter[str]()
    for part in parts:
        read.update(part["read"])
    shape = ModelShape.of(prm.policy.model.config.get_text_config())
    length = prompt_tokens / max(1, len(prompts)) + generated_tokens / max(1, len(rows))
    return Cost(
        prompt_tokens=prompt_tokens, generated_tokens=generated_tokens, scored_tokens=read.total(),
        charges=(*drawing, *forward_charges(shape, read, mean_length=length)), devices=engine.devices(),
    )  # fmt: skip
