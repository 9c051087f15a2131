"""How the cost of scoring grows with N responses a prompt, T tokens a response, V in the vocabulary, P in the prompt.

One is varied at a time, the others stay where they are; ours stands beside the released scorer's way. Each row tells
its `axis` and `x`, from which the plots are drawn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from freeprm.bench.base import Row
from freeprm.measurement.subjects import Workload, random_groups, random_model, word_tokenizer
from freeprm.measurement.timing import Rate, interleaved
from freeprm.models.encoding import encode
from freeprm.models.logprobs import score_tokens
from freeprm.peers import released_scorer

MEANINGS = {
    "N": "responses a prompt", "T": "tokens of a response", "V": "tokens in the vocabulary",
    "P": "tokens of the prompt",
}  # fmt: skip


def benchmark(*, quick: bool) -> Iterator[Row]:
    """See `Benchmark`."""
    for axis, x, work in _quick() if quick else _full():
        yield measure(axis, x, work, rounds=2)


def measure(axis: str, x: int, work: Workload, *, rounds: int) -> Row:
    """Seconds of one point; more are worse, so the ratio is the peer's over ours."""
    ours_model, peer_model = random_model(work), random_model(work)  # ours adapts the model that it is given
    tokenizer = word_tokenizer(work.vocabulary)
    rollouts = [rollout for group in random_groups(work) for rollout in group.rollouts]
    texts = [released_scorer.text_of(tokenizer, rollout) for rollout in rollouts]
    ways = {
        "ours": lambda: score_tokens(ours_model, encode(tokenizer, rollouts)),
        "released scorer": lambda: released_scorer.score(peer_model, tokenizer, texts),
    }
    for way in ways.values():
        way()
    seconds = interleaved(ways, rounds=rounds)
    ours, peer = (1 / Rate(amount=1, seconds=seconds[name]).median for name in ways)
    return Row(
        name=f"growth/{axis}: {work}", ours=ours, peer=peer, ratio=peer / ours, target=None, unit="s",
        details={
            "axis": axis, "x": x, "meaning": MEANINGS[axis], "rounds": rounds,
            "ours_seconds": seconds["ours"], "peer_seconds": seconds["released scorer"],
        },
    )  # fmt: skip


def _quick() -> Iterator[tuple[str, int, Workload]]:
    base = Workload(size="0.9M", vocabulary=8_000, n=4, prompt_tokens=50, response_tokens=60)
    return _points(base, n=(2, 8), t=(30, 120), v=(8_000, 32_000), p=(50, 200))


def _full() -> Iterator[tuple[str, int, Workload]]:
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


PLUGIN = benchmark
