"""Scoring and sampling with a log-ratio of two embedded solvers, nothing trained: exact early stopping, free reference.

Early stopping is best-of-n by the lowest step reward, found without scoring, or without drawing, everything; the peer
is complete scoring, or complete sampling and scoring, of the same samples as users run it. Both must choose the same
sample of every problem. The free reference is scoring against the solver that drew the responses, with the
log-probabilities that it noted; the peers are the policy's pass alone and both models computed.
"""

import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.rows import BenchmarkError, Row, cheaper, faster
from benchmarks.timing import Rate, interleaved
from freeprm.core.rewards import aggregator
from freeprm.io.files import read_rows
from freeprm.io.rollouts import read_rollouts
from freeprm.models.encoding import encode
from freeprm.models.loading import LoadOptions, load_backbone, template_hash, weights_hash
from freeprm.models.reward_config import Reference, RewardConfig
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.stages.early_sampling import sample_early
from freeprm.stages.early_selection import select_early
from freeprm.stages.sampling import sample
from freeprm.stages.scoring import score
from freeprm.types import Rollout

POLICY, REFERENCE = "solver:large", "solver:base"
BATCH = 8
"""Samples of a problem advanced in a round."""
MOST_TOKENS, MOST_SECONDS = 0.45, 0.7
"""Of the complete way's, for which targets are stated."""
MOST_DEARER = 1.1
"""Than one model alone, scoring with a stored reference."""
UNDECIDED = 1e-4
"""Two lowest step rewards that are closer, in beta * nats, may be told apart either way by rounding."""


def log_ratio(*, with_reference: bool = True, stored_reference: bool = True) -> ImplicitPRM:
    """beta * log(solver:large / solver:base), both in float32 on the CPU.

    Args:
        with_reference: load the reference too.
        stored_reference: see `ImplicitPRM`.
    """
    options = LoadOptions(device="cpu")
    policy, reference = load_backbone(POLICY, options), load_backbone(REFERENCE, options)
    config = RewardConfig(
        beta=0.5, base=REFERENCE, objective="none", splitter="step_markers",
        reference=Reference(source=REFERENCE, weights_sha256=weights_hash(reference.folder)),
        template_sha256=template_hash(policy.tokenizer),
    )  # fmt: skip
    return ImplicitPRM(
        config, policy=policy, reference=reference if with_reference else None, stored_reference=stored_reference
    )


def early_stopping(*, quick: bool) -> Iterator[Row]:
    """Rows of scoring and of drawing, each in tokens and in seconds."""
    yield from measure_early(n_problems=6 if quick else 60, n=16 if quick else 64, rounds=1 if quick else 2)


def measure_early(*, n_problems: int, n: int, rounds: int) -> Iterator[Row]:
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
        lowest = _lowest(read_rollouts([made["scored"]]).rollouts)
        size = f"{n_problems} problems, N={n}, {BATCH} at a time"
        details = {"problems": n_problems, "n": n, "batch": BATCH}

        def rows(what: str, way: str, tokens: Sequence[int]) -> Iterator[Row]:
            yield cheaper(
                f"early_stopping/{what}, tokens: {size}", ours=tokens[0], peer=tokens[1], target=1 / MOST_TOKENS,
                unit="tokens", details=details,
            )  # fmt: skip
            both = {"ours_seconds": seconds[f"{way} early"], "peer_seconds": seconds[way]}
            ours, peer = (1 / Rate(amount=1, seconds=taken).median for taken in both.values())
            yield cheaper(
                f"early_stopping/{what}, seconds: {size}", ours=ours, peer=peer, target=1 / MOST_SECONDS, unit="s",
                details={**details, **both},
            )  # fmt: skip

        chosen = [row for _, row in read_rows(made["scored early"]) if isinstance(row, dict)]
        _check({row["problem_id"]: row["sample_idx"] for row in chosen}, lowest)
        yield from rows(
            "scoring", "scored", [sum(row[column] for row in chosen) for column in ("tokens_scored", "tokens")]
        )
        drafts, complete = (read_rollouts([given]).rollouts for given in (made["drawn early"], rollouts))
        _check({draft.problem_id: draft.sample_idx for draft in drafts if draft.extra["selected"]}, lowest)
        yield from rows(
            "drawing", "drawn", [sum(row.extra["n_generated_tokens"] for row in given) for given in (drafts, complete)]
        )


def _lowest(rollouts: list[Rollout]) -> dict[str, dict[int, float]]:
    """By problem and sample, the lowest step reward."""
    lowest: dict[str, dict[int, float]] = {}
    for rollout in rollouts:
        if rollout.step_scores is not None:
            lowest.setdefault(rollout.problem_id, {})[rollout.sample_idx] = aggregator("min")(rollout.step_scores)
    return lowest


def _check(chosen: dict[str, int], lowest: dict[str, dict[int, float]]) -> None:
    """Args: `chosen` has the sample by problem."""
    for problem_id, scores in lowest.items():
        best = max(scores.values())
        if not scores[chosen[problem_id]] >= best - UNDECIDED:
            raise BenchmarkError(
                f"early_stopping: problem {problem_id!r}: sample {chosen[problem_id]} was chosen, with "
                f"{scores[chosen[problem_id]]:.6f}, but the best has {best:.6f}"
            )


def stored_reference(*, quick: bool) -> Iterator[Row]:
    """Rows beside one model alone and beside both."""
    yield from measure_stored(n_problems=48 if quick else 200, n=16, rounds=2 if quick else 5)


def measure_stored(*, n_problems: int, n: int, rounds: int) -> Iterator[Row]:
    """The rows of so many problems with n responses each."""
    with tempfile.TemporaryDirectory() as folder:
        made = sample(
            "arithmetic", model=REFERENCE, out=Path(folder) / "rollouts", split="test", n_problems=n_problems, n=n,
            max_new_tokens=200, logprobs=True,
        )  # fmt: skip
        rollouts = read_rollouts([made.folder]).rollouts
    stored, computed = log_ratio(), log_ratio(stored_reference=False)
    alone = log_ratio(with_reference=False)
    ways = {
        "ours": lambda: stored.logprobs(rollouts),
        "policy alone": lambda: alone.logprobs(rollouts),
        "both models": lambda: computed.logprobs(rollouts),
    }
    seconds = interleaved(ways, rounds=rounds, warm_up=True)
    n_tokens = sum(len(item.ids) for item in encode(stored.policy.tokenizer, rollouts))
    rates = {name: Rate(amount=n_tokens, seconds=taken) for name, taken in seconds.items()}
    for peer, target in (("policy alone", 1 / MOST_DEARER), ("both models", None)):
        yield faster(
            f"stored_reference/{peer}: {len(rollouts)} responses of the solver", ours=rates["ours"], peer=rates[peer],
            target=target, details={"responses": len(rollouts), "tokens": n_tokens},
        )  # fmt: skip
