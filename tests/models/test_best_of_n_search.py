import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from freeprm.core.early_stopping import BestResponse, ScoredStep, best_first
from freeprm.core.voting import best_of_n
from freeprm.errors import ConfigError
from freeprm.models.best_of_n_search import CandidatePool, Decided, GivenResponses, passed, search
from freeprm.models.encoding import Encoded
from freeprm.models.incremental import ReadPrompt, Stepped, WantedStep
from freeprm.types import Span

N_PROMPT = 3


class Known:
    """Step rewards that are a function of the tokens up to the step's end, as a model's are."""

    def __init__(self, capacity: int = 1_000_000):
        self.capacity, self.n_tokens = capacity, 0
        self.most_rows = 0
        self.open: set[ReadPrompt] = set()
        self.most_open = 0

    def rewards(self, wanted: Sequence[WantedStep]) -> list[float]:
        self.most_rows = max(self.most_rows, len(wanted))
        self.open |= {one.prompt for one in wanted}
        self.most_open = max(self.most_open, len(self.open))
        return [known(one.response, one.step) for one in wanted]

    def close(self, prompt: ReadPrompt) -> None:
        self.open.remove(prompt)


def known(item: Stepped, step: int) -> float:
    return random.Random(item.prefix(step)).choice((-2.0, -1.0, -0.5, 0.0))  # few values, so that there are ties


def response(problem: int, tokens: Sequence[int], lengths: Sequence[int]) -> Stepped:
    ids = np.array([problem] * N_PROMPT + list(tokens), dtype=np.int32)
    stops = np.cumsum(lengths)
    steps = tuple(Span(int(stop - length), int(stop)) for stop, length in zip(stops, lengths, strict=True))
    item = Encoded(name="r", ids=ids, n_prompt=N_PROMPT, offsets=np.zeros((len(tokens), 2), dtype=np.int32))
    return Stepped(encoded=item, steps=steps)


def pools(count: int, *, seed: int = 0, sizes: Sequence[int] = (1, 4, 9)) -> list[CandidatePool]:
    """Different responses of two-token steps from few tokens, so that many begin alike."""
    rng = random.Random(seed)
    made = []
    for problem in range(count):
        texts = list({
            tuple(rng.randrange(2) for _ in range(2 * rng.randint(1, 6))): None for _ in range(40)
        })[: max(sizes)]  # fmt: skip
        responses = tuple(response(problem, text, [2] * (len(text) // 2)) for text in texts)
        made.append(
            CandidatePool(name=str(problem), responses=responses, sizes={n: n for n in sizes if n <= len(responses)})
        )
    return made


def searched(made: Sequence[CandidatePool], rewards: Known, **settings: Any) -> Iterator[Decided]:
    return search(made, source=GivenResponses(rewards), **settings)


def alone(pool: CandidatePool, n: int, batch: int) -> BestResponse:
    """The same search, of one pool for one n."""
    given = [0] * n

    def advance(wanted: Sequence[int]) -> list[ScoredStep]:
        steps = []
        for index in wanted:
            item = pool.responses[index]
            steps.append(ScoredStep(known(item, given[index]), given[index] + 1 == len(item.steps)))
            given[index] += 1
        return steps

    return best_first(n, advance, batch=batch)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_each_pool_finds_what_it_finds_alone_for_every_n(batch):
    made = pools(60)
    found: dict[str, Mapping[int, BestResponse]] = {
        one.problem.name: one.found for one in searched(made, Known(), batch=batch, rows=16)
    }
    for pool in made:
        for n in pool.sizes:
            assert found[pool.name][n] == alone(pool, n, batch)
            scores = [min(known(item, step) for step in range(len(item.steps))) for item in pool.responses[:n]]
            assert found[pool.name][n].best == best_of_n(scores)


def test_no_more_problems_are_open_than_there_is_room_for():
    few = Known()
    list(searched(pools(20), few, batch=2, rows=8))
    assert few.most_open == 4
    cramped = Known(capacity=1)
    assert len(list(searched(pools(5), cramped, batch=1))) == 5
    assert cramped.most_open == 1
    assert not cramped.open


def test_equal_steps_are_asked_for_once_over_all_n():
    (pool,) = pools(1, sizes=(2, 4, 8))
    asked: list[tuple[int, int]] = []
    rewards = Known()
    plain = rewards.rewards

    def noted(wanted: Sequence[WantedStep]) -> list[float]:
        asked.extend((id(one.response), one.step) for one in wanted)
        return plain(wanted)

    rewards.rewards = noted
    list(searched([pool], rewards))
    assert len(asked) == len(set(asked))


def test_what_passed_is_counted_with_and_without_what_begins_alike():
    one, other = response(0, [1, 2, 3, 4, 5], [2, 3]), response(0, [1, 2, 9], [2, 1])
    assert passed([one, other], [2, 2]) == (4, 8, 6)  # steps; 5 + 3 tokens; the first two are the same
    assert passed([one, other], [1, 0]) == (1, 2, 2)


@pytest.mark.parametrize(
    ("settings", "message"), [({"batch": 0}, "batch: is 0"), ({"aggregator": "last"}, "cannot be stopped early")]
)
def test_a_bad_setting_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        list(searched(pools(1), Known(), **settings))
