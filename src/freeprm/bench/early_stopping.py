"""Exact early stopping: best-of-n by the lowest step reward, found without scoring, or without drawing, everything.

The rewards are a log-ratio of two embedded solvers; the peer is complete scoring, or complete sampling and scoring, of
the same samples as users run it. Both must choose the same sample of every problem. Rows come in tokens and in seconds.
"""

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from freeprm.bench.base import Row
from freeprm.core.aggregate import aggregator
from freeprm.errors import BenchmarkError
from freeprm.io.formats import read_rollouts
from freeprm.io.jsonl import read_rows
from freeprm.measurement.embedded import REFERENCE, log_ratio
from freeprm.measurement.timing import Rate, interleaved
from freeprm.stages.early_sampling import sample_early
from freeprm.stages.early_selection import select_early
from freeprm.stages.sampling import sample
from freeprm.stages.scoring import score
from freeprm.types import Rollout

BATCH = 8
"""Samples of a problem advanced in a round."""
MOST_TOKENS, MOST_SECONDS = 0.45, 0.7
"""Of the complete way's, for which targets are stated."""
UNDECIDED = 1e-4
"""Two lowest step rewards that are closer, in beta * nats, may be told apart either way by rounding."""
_Chosen = dict[str, int]  # sample by problem


def benchmark(*, quick: bool) -> Iterator[Row]:
    """See `Benchmark`."""
    yield from measure(n_problems=6 if quick else 60, n=16 if quick else 64, rounds=1 if quick else 2)


def measure(*, n_problems: int, n: int, rounds: int) -> Iterator[Row]:
    """The rows of so many problems with n samples each.

    Raises:
        BenchmarkError: early stopping chooses another sample than the complete way.
    """
    prm, numbers = log_ratio(stored_reference=False), count()
    what: dict[str, Any] = {
        "model": REFERENCE, "split": "test", "n_problems": n_problems, "n": n, "max_new_tokens": 200
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:

        def folder() -> Path:
            return Path(scratch) / str(next(numbers))

        rollouts = sample("arithmetic", out=folder(), **what).folder
        made: dict[str, Path] = {}

        def scored_early() -> None:
            made["scored early"] = select_early([rollouts], prm=prm, out=folder(), n=[n], batch=BATCH).folder

        def scored() -> None:
            made["scored"] = score([rollouts], prm=prm, out=folder()).folder

        def drawn_early() -> None:
            made["drawn early"] = sample_early("arithmetic", prm=prm, out=folder(), batch=BATCH, **what).folder

        def drawn() -> None:
            made["drawn"] = score([sample("arithmetic", out=folder(), **what).folder], prm=prm, out=folder()).folder

        ways = {"scored early": scored_early, "scored": scored, "drawn early": drawn_early, "drawn": drawn}
        for way in (scored_early, scored):
            way()
        seconds = interleaved(ways, rounds=rounds)
        size = f"{n_problems} problems, N={n}, {BATCH} at a time"
        lowest = _lowest(read_rollouts([made["scored"]]).rollouts)
        details = {"problems": n_problems, "n": n, "batch": BATCH}

        chosen = [row for _, row in read_rows(made["scored early"]) if isinstance(row, dict)]
        _check({row["problem_id"]: row["sample_idx"] for row in chosen}, lowest)
        tokens = [sum(row[column] for row in chosen) for column in ("tokens_scored", "tokens")]
        yield _row(
            f"early_stopping/scoring, tokens: {size}", *tokens, target=1 / MOST_TOKENS, unit="tokens", of=details
        )
        yield _timed(f"early_stopping/scoring, seconds: {size}", seconds, "scored", of=details)

        drafts = read_rollouts([made["drawn early"]]).rollouts
        _check({draft.problem_id: draft.sample_idx for draft in drafts if draft.extra["selected"]}, lowest)
        tokens = [_generated(given) for given in (drafts, read_rollouts([rollouts]).rollouts)]
        yield _row(
            f"early_stopping/drawing, tokens: {size}", *tokens, target=1 / MOST_TOKENS, unit="tokens", of=details
        )
        yield _timed(f"early_stopping/drawing, seconds: {size}", seconds, "drawn", of=details)


def _lowest(rollouts: list[Rollout]) -> dict[str, dict[int, float]]:
    """By problem and sample, the lowest step reward."""
    lowest: dict[str, dict[int, float]] = {}
    for rollout in rollouts:
        if rollout.step_scores is not None:
            lowest.setdefault(rollout.problem_id, {})[rollout.sample_idx] = aggregator("min")(rollout.step_scores)
    return lowest


def _check(chosen: _Chosen, lowest: dict[str, dict[int, float]]) -> None:
    for problem_id, scores in lowest.items():
        best = max(scores.values())
        if not scores[chosen[problem_id]] >= best - UNDECIDED:
            raise BenchmarkError(
                f"early_stopping: problem {problem_id!r}: sample {chosen[problem_id]} was chosen, with "
                f"{scores[chosen[problem_id]]:.6f}, but the best has {best:.6f}"
            )


def _generated(rollouts: list[Rollout]) -> int:
    return sum(rollout.extra["n_generated_tokens"] for rollout in rollouts)


def _timed(name: str, seconds: dict[str, tuple[float, ...]], way: str, *, of: dict[str, Any]) -> Row:
    ours, peer = (1 / Rate(amount=1, seconds=seconds[key]).median for key in (f"{way} early", way))
    spread = {"ours_seconds": seconds[f"{way} early"], "peer_seconds": seconds[way]}
    return _row(name, ours, peer, target=1 / MOST_SECONDS, unit="s", of={**of, **spread})


def _row(name: str, ours: float, peer: float, *, target: float, unit: str, of: dict[str, Any]) -> Row:
    return Row(name=name, ours=ours, peer=peer, ratio=peer / ours, target=target, unit=unit, details=of)


PLUGIN = benchmark
