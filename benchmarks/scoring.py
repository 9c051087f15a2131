"""Scoring: one model's token log-probabilities, from texts, ours beside the released scorer's and transformers' way.

`growth` varies N responses a prompt, T tokens a response, V in the vocabulary and P in the prompt, one at a time; each
of its rows tells its `axis` and `x`, from which the plots are drawn.

A rate counts every response with its prompt, whoever encodes the prompt how often, so a ratio of rates is one of times.
All sides get texts and tokenise them. A reward takes two such passes, one for each model. The limit of naive tokens is
what a perfect engine would reach that encodes each prompt with each response: the speed of a bare matrix product,
measured in the same rounds, over 2 P FLOPs a token.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.peers import ScorerText, plain_logprobs, released_scores, scorer_text
from benchmarks.rows import Row, cheaper, check_agreement, faster
from benchmarks.timing import Rate, interleaved, matmul_work
from benchmarks.workloads import Work, Workload, different, random_model, random_rollouts, word_tokenizer
from freeprm.models.encoding import encode
from freeprm.models.logprobs import score_tokens
from freeprm.types import Rollout

TOLERANCE = 1e-4
"""Nats that a token's log-probability may differ by between two ways in float32."""
MEANINGS = {
    "N": "responses a prompt", "T": "tokens of a response", "V": "tokens in the vocabulary",
    "P": "tokens of the prompt",
}  # fmt: skip
_CPU_INFO = Path("/proc/cpuinfo")
_COMPARED = 8  # responses


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is measured in one go."""

    work: Workload
    rounds: int
    peer_responses: int
    """At most so many responses go through the peers, whose rate does not depend on their number."""
    targets: Mapping[str, float] = field(default_factory=dict)
    """By peer: `released scorer`, `matmul limit`, `bfloat16`; those without are only reported."""


def scoring(*, quick: bool) -> Iterator[Row]:
    """Rows of each case."""
    for case in _quick() if quick else full():
        yield from measure(case)


def measure(case: Case) -> Iterator[Row]:
    """The rows of one case.

    Raises:
        BenchmarkError: the ways differ in their numbers.
    """
    work = case.work
    model, theirs = random_model(work), random_model(work)  # ours adapts the model that it is given
    tokenizer = word_tokenizer(work.vocabulary)
    rollouts = random_rollouts(work)
    some = rollouts[: case.peer_responses]
    texts = [scorer_text(tokenizer, rollout) for rollout in some]
    details = {"largest_difference": _check(model, theirs, tokenizer, some, texts)}
    products, flops = matmul_work(work.dtype)
    products()
    ways = {
        "ours": lambda: score_tokens(model, encode(tokenizer, rollouts)),
        "released scorer": lambda: released_scores(theirs, tokenizer, texts),
        "plain Hugging Face": lambda: plain_logprobs(theirs, encode(tokenizer, some)),
        "matmul": products,
    }
    with_bf16 = "bfloat16" in case.targets and has_bf16(processor_flags())
    if with_bf16:
        half = random_model(replace(work, dtype="bfloat16"))
        encoded = encode(tokenizer, some)
        details |= {"bfloat16_mean_difference": mean_difference(*(score_tokens(one, encoded) for one in (model, half)))}
        ways["bfloat16"] = lambda: score_tokens(half, encode(tokenizer, rollouts))
    seconds = interleaved(ways, rounds=case.rounds)
    total, part = (Work.of(encode(tokenizer, given), model.config) for given in (rollouts, some))
    peak = Rate(amount=flops, seconds=seconds["matmul"])
    ours = Rate(amount=total.naive_tokens, seconds=seconds["ours"])
    details |= _details(total, ours, peak)
    for name in ("released scorer", "plain Hugging Face"):
        peer = Rate(amount=part.naive_tokens, seconds=seconds[name])
        yield faster(
            f"scoring/{name}: {work}", ours=ours, peer=peer, target=case.targets.get(name),
            details={**details, "peer_responses": len(some)},
        )  # fmt: skip
    limit = Rate(amount=flops / total.naive_flops_a_token, seconds=seconds["matmul"])
    yield faster(
        f"scoring/matmul limit: {work}", ours=ours, peer=limit, target=case.targets.get("matmul limit"), details=details
    )
    name, target = f"scoring/bfloat16 over float32: {work}", case.targets.get("bfloat16")
    if with_bf16:
        half_rate = Rate(amount=total.naive_tokens, seconds=seconds["bfloat16"])
        yield faster(name, ours=half_rate, peer=ours, target=target, details=details)
    elif target is not None:
        yield Row(
            name=name, peer=ours.median, target=target, unit="tokens/s", details=details,
            missing=NO_BF16,
        )  # fmt: skip


class BesidePlain(NamedTuple):
    """Rates of both ways, and what else was measured."""

    ours: Rate
    peer: Rate
    details: dict[str, Any]


def beside_plain(
    model: PreTrainedModel, theirs: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rollouts: Sequence[Rollout],
    *, rounds: int, mean_tolerance: float | None = None,
) -> BesidePlain:  # fmt: skip
    """Our scoring beside the plain way of transformers, on all responses; both get texts.

    Args:
        model: ours, which is adapted.
        theirs: another copy of it.
        tokenizer: of the model.
        rollouts: of which the first ones are compared before the clock starts.
        rounds: of each way.
        mean_tolerance: nats that tokens' log-probabilities may differ by on average, for 16 bits; any of them by
            `TOLERANCE` if not given.

    Raises:
        BenchmarkError: they differ by more.
    """
    encoded = encode(tokenizer, rollouts)
    some = encoded[:_COMPARED]
    both = score_tokens(model, some), plain_logprobs(theirs, some)
    largest = different(*([logps.tolist() for logps in side] for side in both))
    mean = mean_difference(*both)
    if mean_tolerance is None:
        check_agreement("scoring: a token's log-probability in nats", largest, most=TOLERANCE)
    else:
        check_agreement("scoring: the mean token's log-probability in nats", mean, most=mean_tolerance)
    ways = {
        "ours": lambda: score_tokens(model, encode(tokenizer, rollouts)),
        "peer": lambda: plain_logprobs(theirs, encode(tokenizer, rollouts)),
    }
    seconds = interleaved(ways, rounds=rounds)
    work = Work.of(encoded, model.config)
    ours, peer = (Rate(amount=work.naive_tokens, seconds=seconds[name]) for name in ways)
    details = {
        "responses": len(encoded), "tokens": work.naive_tokens, "unique_tokens": work.unique_tokens,
        "largest_difference": largest, "mean_difference": mean,
    }  # fmt: skip
    return BesidePlain(ours, peer, details)


def full() -> Iterator[Case]:
    """Every case of the full benchmark; the first two are those that the targets are stated for."""
    targets = {"released scorer": 2.0, "matmul limit": 1.4, "bfloat16": 1.4}
    stated = Workload(size="50M", vocabulary=32_000, n=64, prompt_tokens=150)
    yield Case(work=stated, rounds=3, peer_responses=16, targets=targets)
    targets = targets | {"released scorer": 3.0}
    yield Case(work=replace(stated, vocabulary=128_000), rounds=3, peer_responses=16, targets=targets)
    for vocabulary in (32_000, 128_000):
        for n in (4, 16, 64):
            for prompt in (80, 500):
                work = replace(stated, vocabulary=vocabulary, n=n, prompt_tokens=prompt)
                yield Case(work=work, rounds=1, peer_responses=4)
    for size in ("0.9M", "8M", "400M"):
        yield Case(work=replace(stated, size=size, n=16), rounds=2, peer_responses=4)


def _quick() -> list[Case]:
    targets = {"released scorer": 2.0, "matmul limit": 1.4, "bfloat16": 1.4}
    small = Workload(size="8M", vocabulary=32_000, n=16, prompt_tokens=150, response_tokens=160)
    large = replace(small, vocabulary=128_000, n=8)
    return [
        Case(work=small, rounds=2, peer_responses=4, targets=targets),
        Case(work=large, rounds=2, peer_responses=4, targets=targets | {"released scorer": 3.0}),
    ]


def _check(
    model: PreTrainedModel, theirs: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rollouts: list[Rollout],
    texts: list[ScorerText],
) -> float:  # fmt: skip
    """The largest difference of a token's log-probability between any two of the three ways."""
    encoded = encode(tokenizer, rollouts)
    ours = [logps.tolist() for logps in score_tokens(model, encoded)]
    released = [scored.token_logprobs.tolist() for scored in released_scores(theirs, tokenizer, texts)]
    plain = [logps.tolist() for logps in plain_logprobs(theirs, encoded)]
    largest = max(different(ours, released), different(ours, plain))
    check_agreement("scoring: a token's log-probability in nats", largest, most=TOLERANCE)
    return largest


def _details(work: Work, ours: Rate, peak: Rate) -> dict[str, Any]:
    passes = ours.median / work.naive_tokens  # a second
    return {
        "naive_tokens": work.naive_tokens, "unique_tokens": work.unique_tokens, "response_tokens": work.response_tokens,
        "matmul_peak_gflops": peak.best / 1e9, "mfu_naive": passes * work.naive_flops / peak.best,
        "mfu_unique": passes * work.unique_flops / peak.best,
    }  # fmt: skip


def mean_difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Mean distance of a token's log-probability between two ways, in nats."""
    pairs = zip(ours, theirs, strict=True)
    return float(np.mean(np.concatenate([(left - right).abs().numpy() for left, right in pairs])))


NO_BF16 = "this processor has no bfloat16 instructions"


def processor_flags() -> str:
    """Of /proc/cpuinfo; empty where there is none."""
    return _CPU_INFO.read_text(encoding="utf-8") if _CPU_INFO.exists() else ""


def has_bf16(flags: str) -> bool:
    """Whether a processor with these flags (of /proc/cpuinfo) multiplies bfloat16 matrices itself."""
    return bool({"avx512_bf16", "amx_bf16"} & set(flags.split()))


def growth(*, quick: bool) -> Iterator[Row]:
    """Seconds of each point."""
    for axis, x, work in _quick_points() if quick else _full_points():
        yield measure_growth(axis, x, work, rounds=2)


def measure_growth(axis: str, x: int, work: Workload, *, rounds: int) -> Row:
    """Seconds of one point; more are worse, so the ratio is the peer's over ours."""
    ours_model, peer_model = random_model(work), random_model(work)  # ours adapts the model that it is given
    tokenizer = word_tokenizer(work.vocabulary)
    rollouts = random_rollouts(work)
    texts = [scorer_text(tokenizer, rollout) for rollout in rollouts]
    ways = {
        "ours": lambda: score_tokens(ours_model, encode(tokenizer, rollouts)),
        "released scorer": lambda: released_scores(peer_model, tokenizer, texts),
    }
    seconds = interleaved(ways, rounds=rounds, warm_up=True)
    ours, peer = (1 / Rate(amount=1, seconds=seconds[name]).median for name in ways)
    return cheaper(
        f"growth/{axis}: {work}", ours=ours, peer=peer, unit="s",
        details={
            "axis": axis, "x": x, "meaning": MEANINGS[axis], "rounds": rounds,
            "ours_seconds": seconds["ours"], "peer_seconds": seconds["released scorer"],
        },
    )  # fmt: skip


def _quick_points() -> Iterator[tuple[str, int, Workload]]:
    base = Workload(size="0.9M", vocabulary=8_000, n=4, prompt_tokens=50, response_tokens=60)
    return _points(base, n=(2, 8), t=(30, 120), v=(8_000, 32_000), p=(50, 200))


def _full_points() -> Iterator[tuple[str, int, Workload]]:
    base = Workload(size="8M", vocabulary=32_000, n=16, prompt_tokens=150)
    return _points(base, n=(4, 16, 64), t=(70, 280, 1120), v=(8_000, 32_000, 128_000), p=(80, 500, 2000))


def _points(
    base: Workload, *, n: Sequence[int], t: Sequence[int], v: Sequence[int], p: Sequence[int]
) -> Iterator[tuple[str, int, Workload]]:
    """Axis, its value, and the base with it."""
    yield from (("N", x, replace(base, n=x)) for x in n)
    yield from (("T", x, replace(base, response_tokens=x)) for x in t)
    yield from (("V", x, replace(base, vocabulary=x)) for x in v)
    yield from (("P", x, replace(base, prompt_tokens=x)) for x in p)
