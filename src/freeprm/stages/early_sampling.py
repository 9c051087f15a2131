"""Sample with early stopping: problems and a reward model in; the best of n samples, drawn without finishing all, out.

    out/rollouts.jsonl   a row for each sample as of `freeprm sample`, with `scorer`, `step_scores` of the steps that
                         were scored, `running_score` (the lowest of them), and whether it is `selected`

An unfinished sample has `stop_reason: "abandoned"` and its text so far. Selected is the sample that drawing and scoring
all of them would select by `min`; see `core.early_stopping` for the proof. An abandoned one has a lower lowest score,
or the same and a higher index, so best-of-n of `freeprm select` selects the same from these rows; votes and averages
need whole samples.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from freeprm.core import score_kinds
from freeprm.core.flops import ModelShape, forward_charges
from freeprm.datasets._reading import problems_hash
from freeprm.engines._rows import drawing_cost, in_order, sample_row, truncated_counts
from freeprm.engines.base import Request
from freeprm.engines.hf.engine import HFEngine
from freeprm.engines.hf.judging import Judge, ScoredSample
from freeprm.errors import ConfigError
from freeprm.io.progress import bar
from freeprm.io.rows import Row
from freeprm.io.runs import RunFolder
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.settings import SampleEarlySettings
from freeprm.stages.base import RunResult, choose_problems, guided, problems_of, stage
from freeprm.types import Cost, Problem

ROWS = "rollouts"
_OF_EARLY = ("prm", "reward", "reference", "splitter", "batch", "logprobs")


@stage(SampleEarlySettings, read=problems_of)
def sample_early(problems: Sequence[str | Problem], settings: SampleEarlySettings, out: Path) -> RunResult:
    """The best of n samples by the lowest step reward, with as little drawing as possible; resumed by the same call.

    If the model that draws is the reference, its log-probabilities are those noted while drawing.

    Raises:
        ConfigError: a splitter whose steps are not known before the end, or another setting out of range.
    """
    if settings.batch < 1:
        raise ConfigError(f"batch: is {settings.batch}; expected 1 or more")
    prm, engine, judge = guided(settings)
    name, selected = choose_problems(problems, settings)
    early = {"prm": prm.identity(), "reward": settings.reward, "splitter": judge.splitter, "batch": settings.batch}
    identity = {
        "problems": name, "problems_sha256": problems_hash(selected), "engine": "hf", **engine.identity(),
        **{key: value for key, value in settings.deciding().items() if key not in _OF_EARLY}, "early_stop": early,
    }  # fmt: skip
    with RunFolder(out, stage="sample", settings=identity) as run:
        if not run.complete:
            _draw(run, engine, settings, selected, judge=judge)
            rows = in_order(run.rows(ROWS), selected)
            run.rewrite(ROWS, rows)
            cost = _cost(rows, run.parts(), engine, prm)
            run.finish(cost=cost, counts=_counts(rows), models={"policy": prm.policy.source})
    return RunResult.load(out)


def _draw(
    run: RunFolder, engine: HFEngine, settings: SampleEarlySettings, problems: Sequence[Problem], *, judge: Judge
) -> None:
    """Decide the open problems, and append the rows of each when it is decided."""
    n = settings.n
    by_id = {problem.problem_id: problem for problem in problems}
    done = _done(run, n)
    requests = [
        Request(problem_id=problem.problem_id, prompt=problem.prompt, sample_idxs=tuple(range(n)))
        for problem in problems
        if problem.problem_id not in done
    ]
    before, n_tokens = Counter[str](), 0
    with bar("sample", len(problems), unit="problems", done=len(done)) as advance:
        for decided in engine.best_first(requests, params=settings.params(), judge=judge, batch=settings.batch):
            problem = by_id[decided.problem_id]
            rows = [
                _row(problem, scored, scorer=settings.reward, selected=index == decided.best)
                for index, scored in enumerate(decided.samples)
            ]
            run.append(ROWS, rows)
            read = Counter(judge.rewards.read)
            run.log_part({"read": {what: n - before[what] for what, n in read.items()}})
            before = read
            n_tokens += sum(row["n_generated_tokens"] for row in rows)
            advance(1, note=f"{n_tokens:,} tokens")


def _done(run: RunFolder, n: int) -> set[str]:
    """Problems whose rows were all written in earlier sessions; the rows of others are removed."""
    rows = run.rows(ROWS)
    counts = Counter(row["problem_id"] for row in rows)
    whole = [row for row in rows if counts[row["problem_id"]] == n]
    if len(whole) < len(rows):
        run.rewrite(ROWS, whole)
    return {row["problem_id"] for row in whole}


def _row(problem: Problem, scored: ScoredSample, *, scorer: str, selected: bool) -> Row:
    sampled, scores = scored
    if scores is None:
        return sample_row(problem, sampled, {"running_score": None, "selected": selected})
    columns = {score_kinds.COLUMN: "log_odds", "running_score": min(scores), "selected": selected}
    return sample_row(problem, sampled, columns, scorer=scorer, step_scores=scores)


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    problems = {row["problem_id"] for row in rows}
    n_abandoned = sum(row["stop_reason"] == "abandoned" for row in rows)
    counts = Counter({
        "finished": len(rows) - n_abandoned,
        "abandoned": n_abandoned,
        **truncated_counts(rows),
        "not scored: empty, or too long for the reward model": sum(row["running_score"] is None for row in rows),
        "problems without a sample that can be scored": len(problems) - sum(row["selected"] for row in rows),
    })  # fmt: skip
    return {"problems": len(problems), "samples": len(rows), **+counts}


def _cost(rows: Sequence[Row], parts: Sequence[Row], engine: HFEngine, prm: ImplicitPRM) -> Cost:
    """The cost of drawing and scoring, of all sessions."""
    drawing = drawing_cost(rows, engine)
    read = Counter[str]()
    for part in parts:
        read.update(part["read"])  # a sum of counters would lose a model that was not read
    n_problems = len({row["problem_id"] for row in rows})
    length = drawing.prompt_tokens / max(1, n_problems) + drawing.generated_tokens / max(1, len(rows))
    shape = ModelShape.of(prm.policy.model.config.get_text_config())
    charges = (*drawing.charges, *forward_charges(shape, read, mean_length=length))
    return replace(drawing, scored_tokens=read.total(), charges=charges)
