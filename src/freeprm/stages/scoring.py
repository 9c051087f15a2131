"""Score rollouts with an implicit process reward model: one rewards file for each way of reading the two models."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from freeprm.core.flops import ModelShape
from freeprm.core.rewards import check_reward
from freeprm.core.steps import TOKENS
from freeprm.core.steps import splitter as splitter_named
from freeprm.errors import ConfigError
from freeprm.executors.base import Executor
from freeprm.formats._reading import read_responses
from freeprm.io.manifest import read_cost
from freeprm.io.plugins import built
from freeprm.io.progress import Advance, bar
from freeprm.io.rows import OnBad, Row
from freeprm.io.runs import RunFolder, behind, read_manifest
from freeprm.models.encoding import TooLong
from freeprm.scorers._jobs import ScorerJob, ScorerSource
from freeprm.scorers._reading import PRMSource
from freeprm.scorers._tally import ModelUsage, scoring_cost
from freeprm.scorers._working import Job, Part, ScoredPart
from freeprm.scorers.base import Scorer
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.types import Cost, Rollout

BATCH = 1024
"""Responses scored before their rows are written."""
_LEFT_OUT = "left_out"
_Written = Mapping[str, set[tuple[str, int]]]  # problem and sample of each row, by scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What scoring made."""

    folder: Path
    """Holds `<scorer>.jsonl` for each reward."""
    scorers: list[str]
    counts: Mapping[str, int]
    """Responses scored, and those left out by reason."""
    cost: Cost


def score(
    inputs: Sequence[Path],
    *,
    prm: ImplicitPRM | PRMSource,
    out: Path,
    rewards: Sequence[str] = ("with-reference",),
    name: str | None = None,
    splitter: str | None = None,
    tokens: bool = False,
    too_long: TooLong = "exclude",
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "raise",
    token_budget: int | None = None,
    executor: str = "local",
    executor_options: Mapping[str, Any] | None = None,
) -> Scored:
    """Write each response's step rewards, one row a response, one file a reward; resumed by the same call.

    A row is the rollout's own with `scorer`, `step_scores` (K rewards, beta * nats), `step_spans` (characters),
    `reward` (their sum, r(y)), and with `tokens` also `token_rewards` and `token_spans`.

    Args:
        inputs: rollouts, files or run folders; a ProcessBench file brings its own steps.
        prm: a loaded model, or where it is, for executors whose workers load it themselves.
        out: run folder.
        rewards: names in `freeprm.core.rewards.REWARDS`; both models are run once, whatever is asked for.
        name: of the policy, put before the reward in the scorer's name.
        splitter: how responses are cut into steps, unless their rows bring steps; the model's own by default.
        tokens: write token rewards too.
        too_long: responses that the context does not hold.
        columns: our column name -> theirs.
        on_bad: stop at a broken record, or count it.
        token_budget: tokens in one batch; see `score_tokens`.
        executor: name of an executor: where the models run, `local` or `ray`.
        executor_options: the executor's fields.

    Raises:
        FreePRMError: see the errors of records, settings, data and models.
    """
    for reward in rewards:
        check_reward(reward)
    if splitter is not None and splitter != TOKENS:
        splitter_named(splitter)
    place: Executor = built("executors", executor, [executor_options or {}])
    if place.remote and not isinstance(prm, PRMSource):
        raise ConfigError("prm: is a loaded model, which stays in this process; give workers elsewhere a PRMSource")
    settings = {
        **prm.identity(),
        "rewards": list(rewards),
        "name": name,
        "splitter": splitter or _splitter(prm),
        "tokens": tokens,
        "too_long": too_long,
        "columns": dict(columns or {}),
        "on_bad": on_bad,
        "batch": place.block or BATCH,
    }
    scorers = {scorer_name(name, reward): reward for reward in rewards}

    def prepare() -> _Work:
        known = prm.load() if isinstance(prm, PRMSource) and not place.remote else prm
        job = Job(
            prm=known, scorers=scorers, splitter=splitter, tokens=tokens, too_long=too_long, token_budget=token_budget
        )
        return _Work(job, partial(_shape, known))

    models = {"policy": prm.source if isinstance(prm, PRMSource) else prm.policy.source}
    return _scored(inputs, list(scorers), prepare, out=out, settings=settings, place=place, models=models)


def score_released(
    inputs: Sequence[Path],
    *,
    scorer: Scorer | ScorerSource,
    out: Path,
    name: str | None = None,
    splitter: str | None = None,
    too_long: TooLong = "exclude",
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "raise",
    token_budget: int | None = None,
    executor: str = "local",
    executor_options: Mapping[str, Any] | None = None,
) -> Scored:
    """Write each response's scores by somebody else's reward model, one row a response; resumed by the same call.

    A row is the rollout's own with `scorer`, and `step_scores` with `step_spans`, or `score`, as the model gives them.

    Args:
        inputs: see `score`, as for all but the next.
        scorer: a loaded one, or where it is; see `freeprm.scorers`.

    Raises:
        FreePRMError: see the errors of records, settings, data and models.
    """
    place: Executor = built("executors", executor, [executor_options or {}])
    if place.remote and not isinstance(scorer, ScorerSource):
        raise ConfigError("scorer: is a loaded model, which stays in this process; give a ScorerSource")
    settings = {
        **scorer.identity(),
        "name": name,
        "splitter": splitter or scorer.splitter,
        "too_long": too_long,
        "columns": dict(columns or {}),
        "on_bad": on_bad,
        "batch": place.block or BATCH,
    }

    def prepare() -> _Work:
        known = scorer.load() if isinstance(scorer, ScorerSource) and not place.remote else scorer
        job = ScorerJob(scorer=known, name=name, splitter=splitter, too_long=too_long, token_budget=token_budget)
        return _Work(job, known.shape)

    models = {"scorer": scorer.model} if isinstance(scorer, ScorerSource) else {}
    return _scored(inputs, [name or scorer.name], prepare, out=out, settings=settings, place=place, models=models)


class _Work(NamedTuple):
    """What is to be done, with the models loaded where they work here."""

    job: Job | ScorerJob
    shape: Callable[[], ModelShape]


def _scored(
    inputs: Sequence[Path], scorers: Sequence[str], prepare: Callable[[], _Work], *, out: Path,
    settings: Mapping[str, Any], place: Executor, models: Mapping[str, str],
) -> Scored:  # fmt: skip
    """Do what is left of a job, and put the rows of all of it into order; what is finished loads no model."""
    with RunFolder(out, stage="score", settings=settings, inputs=inputs) as run:
        if run.complete:
            manifest = read_manifest(out) or {}
            cost = read_cost(manifest["cost"])
            return Scored(folder=out, scorers=list(scorers), counts=manifest["counts"], cost=cost)
        rollouts, counts = read_responses(inputs, columns=settings["columns"], on_bad=settings["on_bad"])
        parts = _parts(rollouts, settings["batch"])
        written = {scorer: {_key(row) for row in run.rows(file_name(scorer))} for scorer in scorers}
        done = _done(run, parts, written)
        counts["resumed"] = sum(len(parts[number].rollouts) for number in done)
        todo = [part for part in parts if part.number not in done]
        job, shape = prepare()
        with bar("score", len(rollouts), unit="responses", done=counts["resumed"]) as advance:
            told = job if place.remote else replace(job, passed=_token_rate(advance))
            with behind(partial(_append, run, written=written)) as append:
                for scored in place.run(told.worker, [[part] for part in todo]):
                    append(scored)
                    advance(len(parts[scored.part].rollouts))
        counts["scored"] = _finish_rows(run, rollouts, scorers)
        cost = run.finish(cost=_cost(run, shape(), counts), counts=+counts, models=models)
    return Scored(folder=out, scorers=list(scorers), counts=+counts, cost=cost)


def scorer_name(name: str | None, reward: str) -> str:
    """What rows call the scorer; the reference alone is the same whatever was trained against it."""
    return reward if name is None or reward == "reference-only" else f"{name} {reward}"


def file_name(scorer: str) -> str:
    """The name of a scorer's rows file, without its ending."""
    return "".join(character if character.isalnum() or character in "-_" else "-" for character in scorer)


def _splitter(prm: ImplicitPRM | PRMSource) -> str:
    return prm.splitter if isinstance(prm, PRMSource) else prm.config.splitter


def _shape(prm: ImplicitPRM | PRMSource) -> ModelShape:
    return prm.shape() if isinstance(prm, PRMSource) else ModelShape.of(prm.policy.model.config.get_text_config())


def _token_rate(advance: Advance) -> Callable[[int], None]:
    """Shows tokens a second, as batches pass."""
    started, passed = time.perf_counter(), 0

    def count(n_tokens: int) -> None:
        nonlocal passed
        passed += n_tokens
        advance(0, f"{passed / (time.perf_counter() - started):,.0f} tokens/s")

    return count


def _parts(rollouts: Sequence[Rollout], size: int) -> list[Part]:
    starts = range(0, len(rollouts), size)
    return [Part(number=number, rollouts=tuple(rollouts[start : start + size])) for number, start in enumerate(starts)]


def _done(run: RunFolder, parts: Sequence[Part], written: _Written) -> set[int]:
    """Numbers of the parts that were noted as finished and whose rows are all there."""
    noted = {part["part"]: part for part in run.parts()}
    everywhere = set.intersection(*written.values())
    return {
        part.number
        for part in parts
        if part.number in noted
        and all(
            (rollout.problem_id, rollout.sample_idx) in everywhere
            for index, rollout in enumerate(part.rollouts)
            if index not in noted[part.number][_LEFT_OUT]
        )
    }


def _append(run: RunFolder, scored: ScoredPart, *, written: _Written) -> None:
    """Write what was not there yet of a part's rows, and then that it is finished."""
    for scorer, rows in scored.rows.items():
        run.append(file_name(scorer), [row for row in rows if _key(row) not in written[scorer]])
    run.log_part({
        "part": scored.part, _LEFT_OUT: scored.left_out, "counts": dict(scored.counts),
        "sequence_tokens": scored.sequence_tokens,
        "readings": {what: asdict(reading) for what, reading in scored.readings.items()},
    })  # fmt: skip


def _key(row: Row) -> tuple[str, int]:
    return row["problem_id"], row["sample_idx"]


def _finish_rows(run: RunFolder, rollouts: Sequence[Rollout], scorers: Sequence[str]) -> int:
    """Put each file into the order of the rollouts; the number of rows of one."""
    rank = {(rollout.problem_id, rollout.sample_idx): index for index, rollout in enumerate(rollouts)}
    n_rows = 0
    for scorer in scorers:
        written = run.rows(file_name(scorer))
        rows = sorted(written, key=lambda row: rank[_key(row)])
        if rows != written:
            run.rewrite(file_name(scorer), rows)
        n_rows = len(rows)
    return n_rows


def _cost(run: RunFolder, shape: ModelShape, counts: Counter[str]) -> Cost:
    """The cost of all rows, whenever they were made; adds to `counts` what was left out or cut."""
    parts = {part["part"]: part for part in run.parts()}.values()
    for part in parts:
        counts.update(part["counts"])
    tallies = [{what: ModelUsage(**reading) for what, reading in part["readings"].items()} for part in parts]
    mean_length = sum(part["sequence_tokens"] for part in parts) / max(counts["scored"], 1)
    return scoring_cost(tallies, shape, mean_length=mean_length)
