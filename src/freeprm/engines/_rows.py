"""Samples as rows of rollouts, and their cost, whatever drew them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from freeprm.core.flops import generation_charges
from freeprm.engines.base import Engine, Sampled, devices_of
from freeprm.io.rollouts import rollout_row
from freeprm.io.rows import Row
from freeprm.types import Cost, Problem, Rollout

_TRUNCATED = {"length": "truncated: max_new_tokens", "context": "truncated: context"}


def sample_row(
    problem: Problem, sampled: Sampled, columns: Mapping[str, Any], *, scorer: str | None = None,
    step_scores: tuple[float, ...] | None = None,
) -> Row:  # fmt: skip
    """The row of a sample: its problem's columns, token counts, stop reason, and further columns."""
    own = {
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
            scorer=scorer,
            step_scores=step_scores,
            extra={**problem.extra, **own, **columns},
        )
    )


def in_order(rows: Sequence[Row], problems: Sequence[Problem]) -> list[Row]:
    """Rows by problem and sample, as in a finished file."""
    rank = {problem.problem_id: index for index, problem in enumerate(problems)}
    return sorted(rows, key=lambda row: (rank[row["problem_id"]], row["sample_idx"]))


def truncated_counts(rows: Sequence[Row]) -> dict[str, int]:
    """Samples that were cut, by reason."""
    reasons = Counter(row["stop_reason"] for row in rows)
    return {name: reasons[reason] for reason, name in _TRUNCATED.items() if reasons[reason]}


def drawing_cost(rows: Sequence[Row], engine: Engine, *, elsewhere: bool = False) -> Cost:
    """Tokens and FLOPs of all rows with counts, in any session; a prompt's tokens count once."""
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
        devices=() if elsewhere else devices_of(engine),
    )
