"""The free reference: scoring with the reference's log-probabilities from sampling, beside the policy's pass alone.

A policy is scored against the embedded solver that drew the responses. What is left of the reference's cost is reading
the noted numbers and computing some of them again; both models computed is what it would cost otherwise.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from freeprm.bench.base import Row, faster
from freeprm.io.formats import read_rollouts
from freeprm.measurement.embedded import log_ratio
from freeprm.measurement.timing import Rate, interleaved
from freeprm.models.encoding import encode
from freeprm.stages.sampling import sample

TARGET = 1 / 1.1
"""At most a tenth dearer than one model alone."""


def benchmark(*, quick: bool) -> Iterator[Row]:
    """See `Benchmark`."""
    yield from measure(n_problems=48 if quick else 200, n=16, rounds=2 if quick else 5)


def measure(*, n_problems: int, n: int, rounds: int) -> Iterator[Row]:
    """The rows of so many problems with n responses each."""
    with tempfile.TemporaryDirectory() as folder:
        made = sample(
            "arithmetic", model="solver:base", out=Path(folder) / "rollouts", split="test", n_problems=n_problems, n=n,
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
    for way in ways.values():
        way()
    seconds = interleaved(ways, rounds=rounds)
    n_tokens = sum(len(item.ids) for item in encode(stored.policy.tokenizer, rollouts))
    rates = {name: Rate(amount=n_tokens, seconds=taken) for name, taken in seconds.items()}
    details = {"responses": len(rollouts), "tokens": n_tokens}
    for peer, target in (("policy alone", TARGET), ("both models", None)):
        yield faster(
            f"stored_reference/{peer}: {len(rollouts)} responses of the solver", ours=rates["ours"], peer=rates[peer],
            target=target, details=details,
        )  # fmt: skip


PLUGIN = benchmark
