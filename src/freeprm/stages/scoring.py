"""Score rollouts with an implicit process reward model: one rewards file for each way of reading the two models."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from freeprm.core.flops import ModelShape, forward_flops
from freeprm.core.rewards import check_reward
from freeprm.core.steps import TOKENS
from freeprm.core.steps import splitter as splitter_named
from freeprm.errors import DataError, SpanError
from freeprm.io.formats import OnBad, read_rollouts, rollout_row
from freeprm.io.jsonl import Row
from freeprm.io.processbench import is_processbench, read_processbench
from freeprm.io.progress import bar
from freeprm.io.runs import RunFolder, read_manifest
from freeprm.models.encoding import TooLong
from freeprm.scorers.implicit import ImplicitPRM, TokenLogProbs
from freeprm.types import Cost, ResponseScore, Rollout

BATCH = 1024
"""Responses scored before their rows are written."""


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
    prm: ImplicitPRM,
    out: Path,
    rewards: Sequence[str] = ("with-reference",),
    name: str | None = None,
    splitter: str | None = None,
    tokens: bool = False,
    too_long: TooLong = "exclude",
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "raise",
    token_budget: int | None = None,
) -> Scored:
    """Write each response's step rewards, one row a response, one file a reward; resumed by the same call.

    A row is the rollout's own with `scorer`, `step_scores` (K rewards, beta * nats), `step_spans` (characters),
    `reward` (their sum, r(y)), and with `tokens` also `token_rewards` and `token_spans`.

    Args:
        inputs: rollouts, files or run folders; a ProcessBench file brings its own steps.
        prm: see `ImplicitPRM`.
        out: run folder.
        rewards: names in `freeprm.core.rewards.REWARDS`; both models are run once, whatever is asked for.
        name: of the policy, put before the reward in the scorer's name.
        splitter: how responses are cut into steps, unless their rows bring steps; the model's own by default.
        tokens: write token rewards too.
        too_long: responses that the context does not hold.
        columns: our column name -> theirs.
        on_bad: stop at a broken record, or count it.
        token_budget: tokens in one batch, padding included; see `score_tokens`.

    Raises:
        FreePRMError: see the errors of records, settings, data and models.
    """
    for reward in rewards:
        check_reward(reward)
    if splitter is not None and splitter != TOKENS:
        splitter_named(splitter)
    settings = {
        **prm.identity(),
        "rewards": list(rewards),
        "name": name,
        "splitter": splitter or prm.config.splitter,
        "tokens": tokens,
        "too_long": too_long,
        "columns": dict(columns or {}),
        "on_bad": on_bad,
    }
    scorers = {scorer_name(name, reward): reward for reward in rewards}
    with RunFolder(out, stage="score", settings=settings, inputs=inputs) as run:
        if run.complete:
            manifest = read_manifest(out) or {}
            return Scored(folder=out, scorers=list(scorers), counts=manifest["counts"], cost=Cost(**manifest["cost"]))
        rollouts, counts = _read(inputs, columns=columns, on_bad=on_bad)
        todo = _not_yet(run, rollouts, scorers)
        counts["resumed"] = len(rollouts) - len(todo)
        scored_tokens, length = 0, 0
        with bar("score", len(rollouts), unit="responses") as advance:

            def count_tokens(n_tokens: int) -> None:
                nonlocal scored_tokens
                scored_tokens += n_tokens
                advance(0, f"{scored_tokens:,} tokens")

            advance(len(rollouts) - len(todo))
            for start in range(0, len(todo), BATCH):
                part = todo[start : start + BATCH]
                logps, left_out = prm.logprobs(part, too_long=too_long, token_budget=token_budget, advance=count_tokens)
                counts.update(left_out)
                counts["scored"] += len(logps)
                length += sum(len(item.encoded.ids) for item in logps.values())
                for scorer, reward in scorers.items():
                    run.append(
                        file_name(scorer), _rows(prm, part, logps, scorer, reward, splitter=splitter, tokens=tokens)
                    )
                advance(len(part))
        cost = run.finish(cost=_cost(prm, scored_tokens, mean_length=length / max(counts["scored"], 1)), counts=+counts)
    return Scored(folder=out, scorers=list(scorers), counts=+counts, cost=cost)


def scorer_name(name: str | None, reward: str) -> str:
    """What rows call the scorer; the reference alone is the same whatever was trained against it."""
    return reward if name is None or reward == "reference-only" else f"{name} {reward}"


def file_name(scorer: str) -> str:
    """The name of a scorer's rows file, without its ending."""
    return "".join(character if character.isalnum() or character in "-_" else "-" for character in scorer)


def _read(
    inputs: Sequence[Path], *, columns: Mapping[str, str] | None, on_bad: OnBad
) -> tuple[list[Rollout], Counter[str]]:
    rollouts: list[Rollout] = []
    counts: Counter[str] = Counter()
    plain = [path for path in inputs if not is_processbench(path)]
    for path in inputs:
        if path not in plain:
            rollouts += read_processbench(path)
    if plain:
        rows = read_rollouts(plain, columns=columns, on_bad=on_bad)
        rollouts += rows.rollouts
        counts.update({f"skipped: {reason}": n for reason, n in rows.skipped.items()})
    if not rollouts:
        raise DataError("nothing to score")
    once = _once(rollouts)
    counts["skipped: again, with the scores of another scorer"] = len(rollouts) - len(once)
    return once, counts


def _once(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Each response once, where the input holds it with the scores of several scorers."""
    first: dict[tuple[str, int], Rollout] = {}
    for rollout in rollouts:
        seen = first.setdefault((rollout.problem_id, rollout.sample_idx), rollout)
        if seen.response != rollout.response:
            raise DataError(
                f"problem {rollout.problem_id!r}, sample {rollout.sample_idx}: stands for two different responses in "
                "the input; score files that share problem_ids into separate folders"
            )
    return list(first.values())


def _not_yet(run: RunFolder, rollouts: Sequence[Rollout], scorers: Mapping[str, str]) -> list[Rollout]:
    """Rollouts that some scorer's file lacks; rows of an unfinished batch are taken back first."""
    done: list[set[tuple[str, int]]] = []
    for scorer in scorers:
        done.append({(row["problem_id"], row["sample_idx"]) for row in run.rows(file_name(scorer))})
    everywhere = set.intersection(*done)
    for scorer, seen in zip(scorers, done, strict=True):
        if seen != everywhere:
            kept = [row for row in run.rows(file_name(scorer)) if (row["problem_id"], row["sample_idx"]) in everywhere]
            run.rewrite(file_name(scorer), kept)
    return [rollout for rollout in rollouts if (rollout.problem_id, rollout.sample_idx) not in everywhere]


def _rows(
    prm: ImplicitPRM, rollouts: Sequence[Rollout], logps: Mapping[int, TokenLogProbs], scorer: str, reward: str,
    *, splitter: str | None, tokens: bool,
) -> Iterator[Row]:  # fmt: skip
    for index, item in logps.items():
        rollout = rollouts[index]
        try:
            result = prm.read(
                item, rollout.response, splitter=splitter, steps=rollout.extra.get("steps"), reward=reward
            )
        except SpanError as error:
            raise SpanError(f"{item.encoded.name}: {error}") from error
        yield {**rollout_row(_scored(rollout, scorer, result)), **(_token_columns(result) if tokens else {})}


def _scored(rollout: Rollout, scorer: str, result: ResponseScore) -> Rollout:
    columns = {"reward": result.reward, "step_spans": [list(span) for span in result.steps]}
    return replace(
        rollout, scorer=scorer, score=None, step_scores=result.step_rewards, extra={**rollout.extra, **columns}
    )


def _token_columns(result: ResponseScore) -> dict[str, Any]:
    return {"token_rewards": list(result.token_rewards), "token_spans": [list(span) for span in result.tokens]}


def _cost(prm: ImplicitPRM, scored_tokens: int, *, mean_length: float) -> Cost:
    shape = ModelShape.of(prm.policy.model.config.get_text_config())
    return Cost(scored_tokens=scored_tokens, flops=forward_flops(shape, scored_tokens, mean_length).total)
