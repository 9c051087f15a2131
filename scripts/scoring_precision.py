"""What precision the scores of a reward model survive: the same responses scored in several, beside float32.

    python scripts/scoring_precision.py PRM ROLLOUTS [--n 80] [--device cpu]

PRM is a folder that `freeprm train` wrote in float32; ROLLOUTS a file of responses, best others than it was trained on.
Prints a Markdown table: Spearman's rank correlation with float32 of response rewards and of least step rewards; what
steps are off by, as a standard deviation and at worst, and responses at worst (nats: rewards at beta = 1); the time.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from freeprm.io.rollouts import read_rollouts
from freeprm.models.casting import kept_of_update
from freeprm.models.loading import Dtype
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.types import Rollout

HEADER = """\
| weights, products | rank: response | rank: least step | sd: step | worst: step | worst: response | seconds |
| --- | --- | --- | --- | --- | --- | --- |"""


class Way(NamedTuple):
    """How models are read."""

    dtype: Dtype
    """Of the weights."""
    under: Callable[[], AbstractContextManager[object]]


class Scored(NamedTuple):
    """In nats."""

    responses: list[float]
    steps: list[list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prm")
    parser.add_argument("rollouts", type=Path)
    parser.add_argument("--n", type=int, default=80, help="responses")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    rollouts = read_rollouts([given.rollouts]).rollouts[: given.n]
    print(HEADER)
    exact: Scored | None = None
    for name, way in ways(given.device).items():
        prm = ImplicitPRM.from_pretrained(given.prm, dtype=way.dtype, device=given.device)
        started = time.perf_counter()
        with way.under():
            found = score(prm, rollouts)
        seconds = time.perf_counter() - started
        exact = exact or found
        print(f"| {name} | {' | '.join(compared(found, exact))} | {seconds:.0f} |", flush=True)
    assert exact is not None
    assert prm.reference is not None
    steps = np.concatenate(exact.steps)
    print(f"\n{len(rollouts)} responses, {len(steps)} steps; sd of a step's log-ratio {steps.std():.3f} nats.")
    if kept := kept_of_update(prm.policy.folder, prm.reference.folder, torch.bfloat16):
        print(f"In bfloat16 {kept.norm:.0%} of the update's norm is left, at a cosine of {kept.cosine:.2f} to it.")


def ways(device: str) -> Mapping[str, Way]:
    return {
        "float32": Way("float32", nullcontext),
        "bfloat16": Way("bfloat16", nullcontext),
        "bfloat16, and logits rounded to it": Way("bfloat16", rounded_logits),
        "float32, bfloat16 autocast": Way("float32", lambda: torch.autocast(device, torch.bfloat16)),
    }


def rounded_logits() -> AbstractContextManager[object]:
    """Logits as a product of 16-bit matrices gives them by itself."""

    def rounded(left: Tensor, right: Tensor, *, out: Tensor) -> Tensor:
        return out.copy_(torch.mm(left, right))

    return patch("freeprm.models.output_head.product", rounded)


def score(prm: ImplicitPRM, rollouts: Sequence[Rollout]) -> Scored:
    groups = [(prompt, [one.response for one in some]) for prompt, some in groupby(rollouts, lambda one: one.prompt)]
    scores = [one for prompt, responses in groups for one in prm.score(prompt, responses)]
    beta = prm.config.beta
    return Scored([one.reward / beta for one in scores], [[step / beta for step in one.step_rewards] for one in scores])


def compared(found: Scored, exact: Scored) -> list[str]:
    """The cells of a row."""
    ranks = (
        rank_correlation(found.responses, exact.responses),
        rank_correlation(list(map(min, found.steps)), list(map(min, exact.steps))),
    )
    off = np.concatenate(found.steps) - np.concatenate(exact.steps)
    worst = np.abs(np.subtract(found.responses, exact.responses)).max()
    return [*(f"{rank:.4f}" for rank in ranks), f"{off.std():.4f}", f"{np.abs(off).max():.3f}", f"{worst:.3f}"]


def rank_correlation(some: Sequence[float], others: Sequence[float]) -> float:
    """Spearman's; ties, of which sums of float32 have hardly any, stand in order."""
    one, other = (np.argsort(np.argsort(numbers, kind="stable")).astype(float) for numbers in (some, others))
    return float(np.corrcoef(one, other)[0, 1])


if __name__ == "__main__":
    main()
