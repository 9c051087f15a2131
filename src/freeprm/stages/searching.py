"""Search: problems and a reward model in; the solutions that a guided search ends with out.

out/rollouts.jsonl   n / width rows a problem, the best first, with `scorer` and `step_scores`: to be graded, and
                     chosen among by `freeprm select`
out/metrics.json     tokens drawn a problem, those of dropped beams included, with an interval over problems
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from freeprm.core import score_kinds
from freeprm.core.flops import ModelShape, forward_charges, generation_charges
from freeprm.core.intervals import bootstrap
from freeprm.core.rewards import aggregator
from freeprm.datasets._reading import problems_hash
from freeprm.engines._rows import in_order, sample_row, truncated_counts
from freeprm.engines.base import Request
from freeprm.engines.hf.engine import HFEngine
from freeprm.engines.hf.judging import Judge
from freeprm.engines.hf.tree_search import Search
from freeprm.io.progress import bar
from freeprm.io.rows import Row
from freeprm.io.runs import RunFolder
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.settings import SearchSettings
from freeprm.stages.base import RunResult, choose_problems, guided, problems_of, stage
from freeprm.types import Cost, Metric, Problem

ROWS = "rollouts"
_OF_PRM = ("prm", "reward", "reference", "splitter", "logprobs")


@stage(SearchSettings, read=problems_of)
def search(problems: Sequence[str | Problem], settings: SearchSettings, out: Path) -> RunResult:
    """Beam search or diverse verifier tree search by step rewards; resumed by the same call, problem by problem.

    If the model that draws is the reference, its log-probabilities are those noted while drawing.

    Raises:
        ConfigError: a splitter whose steps are not known before the end, or another setting out of range.
    """
    how = Search(
        n=settings.n, width=settings.width, trees=settings.method == "dvts", lookahead=settings.lookahead,
        aggregator=aggregator(settings.aggregator), max_steps=settings.max_steps,
    )  # fmt: skip
    prm, engine, judge = guided(settings, drops_changed=True)
    name, selected = choose_problems(problems, settings)
    identity = {
        "problems": name, "problems_sha256": problems_hash(selected), "engine": "hf", **engine.identity(),
        **{key: value for key, value in settings.deciding().items() if key not in _OF_PRM},
        "led by": {"prm": prm.identity(), "reward": settings.reward, "splitter": judge.splitter},
    }  # fmt: skip
    with RunFolder(out, stage="search", settings=identity) as run:
        if not run.complete:
            _search(run, engine, settings, selected, judge=judge, how=how)
            rows = in_order(run.rows(ROWS), selected)
            run.rewrite(ROWS, rows)
            parts = run.parts()
            run.write_metrics(_metrics(parts, settings))
            cost = _cost(rows, parts, engine, prm)
            run.finish(cost=cost, counts=_counts(rows, parts, how), models={"policy": prm.policy.source})
    return RunResult.load(out)


def _search(
    run: RunFolder, engine: HFEngine, settings: SearchSettings, problems: Sequence[Problem], *, judge: Judge,
    how: Search,
) -> None:  # fmt: skip
    """Search the problems that are left, and append the rows of each when it is done."""
    by_id = {problem.problem_id: problem for problem in problems}
    done = {part["problem_id"] for part in run.parts()}
    _forget_others(run, done)
    requests = [
        Request(problem_id=problem.problem_id, prompt=problem.prompt, sample_idxs=tuple(range(how.n)))
        for problem in problems
        if problem.problem_id not in done
    ]
    before, n_tokens = Counter[str](), 0
    with bar("search", len(problems), unit="problems", done=len(done)) as advance:
        for found in engine.search(requests, params=settings.params(), judge=judge, how=how):
            problem = by_id[found.problem_id]
            columns = {score_kinds.COLUMN: "log_odds"}
            run.append(
                ROWS,
                [
                    sample_row(problem, sampled, columns, scorer=settings.reward, step_scores=scores)
                    for sampled, scores in found.solutions
                ],
            )
            read = Counter(judge.rewards.read)
            run.log_part({
                "problem_id": found.problem_id, "n_generated": found.n_generated, "n_beams": found.n_beams,
                "n_out": found.n_out,
                "read": {what: n - before[what] for what, n in read.items()},
            })  # fmt: skip
            before = read
            n_tokens += found.n_generated
            advance(1, note=f"{n_tokens:,} tokens")


def _forget_others(run: RunFolder, done: set[str]) -> None:
    """Remove rows of a problem that was not noted as done: it is searched again."""
    rows = run.rows(ROWS)
    kept = [row for row in rows if row["problem_id"] in done]
    if len(kept) < len(rows):
        run.rewrite(ROWS, kept)


def _metrics(parts: Sequence[Row], settings: SearchSettings) -> list[Metric]:
    mean, low, high = bootstrap([part["n_generated"] for part in parts], seed=settings.seed)
    return [
        Metric(
            metric="generated_tokens", value=mean, low=low, high=high, count=len(parts), n=settings.n,
            selector=f"{settings.method}/{settings.aggregator}", scorer=settings.reward, seed=settings.seed,
        )
    ]  # fmt: skip


def _counts(rows: Sequence[Row], parts: Sequence[Row], how: Search) -> dict[str, int]:
    counts = Counter({
        "problems": len(parts),
        "beams": sum(part["n_beams"] for part in parts),
        "beams dropped: empty, too long, or read as other tokens by the reward model": sum(
            part["n_out"] for part in parts
        ),
        "solutions": len(rows),
        **truncated_counts(rows),
        "solutions missing: beams empty, or too long for the reward model": how.n_kept * len(parts) - len(rows),
    })  # fmt: skip
    return dict(+counts)


def _cost(rows: Sequence[Row], parts: Sequence[Row], engine: HFEngine, prm: ImplicitPRM) -> Cost:
    """The cost of drawing all beams and of scoring, of all sessions."""
    prompts = {row["problem_id"]: row["n_prompt_tokens"] or 0 for row in rows}
    n_prompt, n_generated = sum(prompts.values()), sum(part["n_generated"] for part in parts)
    n_beams = sum(part["n_beams"] for part in parts)
    read = Counter[str]()
    for part in parts:
        read.update(part["read"])
    drawing = generation_charges(
        engine.shape(), n_prompts=len(prompts), prompt_tokens=n_prompt, n_samples=n_beams, generated_tokens=n_generated
    )
    length = n_prompt / max(1, len(prompts)) + sum(row["n_generated_tokens"] for row in rows) / max(1, len(rows))
    shape = ModelShape.of(prm.policy.model.config.get_text_config())
    charges = (*drawing, *forward_charges(shape, read, mean_length=length))
    cost = Cost(prompt_tokens=n_prompt, generated_tokens=n_generated, charges=charges, devices=engine.devices())
    return replace(cost, scored_tokens=read.total())
