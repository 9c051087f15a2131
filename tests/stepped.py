"""The toy task of `tiny` with labels of its steps: each step of a right response says `yes`, of a wrong one `no`."""

from collections.abc import Sequence
from dataclasses import replace

import tiny
from freeprm.core.steps import auto
from freeprm.types import Rollout


def rollouts(n_problems: int, *, seed: int = 0) -> list[Rollout]:
    """Rollouts with `steps`, `step_labels` and `step_values`; a wrong response's first of several steps is right.

    So the labels of steps are not those of the response.
    """
    return [_labelled(rollout) for rollout in tiny.rollouts(n_problems, seed=seed)]


def with_columns(made: Sequence[Rollout], **columns: object) -> list[Rollout]:
    """The same with columns set in all of them; None takes one away."""
    changed = []
    for rollout in made:
        extra = {**rollout.extra, **columns}
        changed.append(replace(rollout, extra={name: value for name, value in extra.items() if value is not None}))
    return changed


def _labelled(rollout: Rollout) -> Rollout:
    response = rollout.response
    if not rollout.correct and rollout.sample_idx % 3:
        response = response.replace("Step 1: no", "Step 1: yes", 1)
    steps = [response[span.start : span.stop] for span in auto(response)]
    labels = ["yes" in step for step in steps]
    columns = {"steps": steps, "step_labels": labels, "step_values": [0.9 if label else 0.1 for label in labels]}
    return replace(rollout, response=response, extra=columns)
