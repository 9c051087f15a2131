import random
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from freeprm.core.early_stopping import Found, Step, best_first
from freeprm.core.voting import best_of_n
from freeprm.errors import ConfigError
from freeprm.models.best_of_n_search import Contest, passed, search
from freeprm.models.encoding import Encoded
from freeprm.models.incremental import ReadPrompt, Stepped
from freeprm.types import Span

N_PROMPT = 3


class Known:
    """Step rewards that are a function of the tokens up to the step's end, as a model's are."""

    def __init__(self, capacity: int = 1_000_000):
        self.capacity, self.n_tokens = capacity, 0
        self.most_rows = 0
        self.open: set[ReadPrompt] = set()
        self.most_open = 0

    def rewards(self, wanted: Sequence[tuple[ReadPrompt, Stepped, int]]) -> list[float]:
        self.most_rows = max(self.most_rows, len(wanted))
        self.open |= {prompt for prompt, _, _ in wanted}
        self.most_open = max(self.most_open, len(self.open))
        return [known(item, step) for _, item, step in wanted]

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


def contests(count: int, *, seed: int = 0, sizes: Sequence[int] = (1, 4, 9)) -> list[Contest]:
    """Different responses of two-token steps from few tokens, so that many begin alike."""
    rng = random.Random(seed)
    made = []
    for problem in range(count):
        texts = list({
            tuple(rng.randrange(2) for _ in range(2 * rng.randint(1, 6))): None for _ in range(40)
        })[: max(sizes)]  # fmt: skip
        responses = tuple(response(problem, text, [2] * (len(text) // 2)) for text in texts)
        made.append(Contest(name=str(problem), responses=responses, sizes={n: n for n in sizes if n <= len(responses)}))
    return made


def alone(contest: Contest, n: int, batch: int) -> Found:
    """The same search, of one contest for one n."""
    given = [0] * n

    def advance(wanted: Sequence[int]) -> list[Step]:
        steps = []
        for index in wanted:
            item = contest.responses[index]
            steps.append(Step(known(item, given[index]), given[index] + 1 == len(item.steps)))
            given[index] += 1
        return steps

    return best_first(n, advance, batch=batch)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_each_contest_finds_what_it_finds_alone_for_every_n(batch):
    made = contests(60)
    found: dict[str, Mapping[int, Found]] = {
        contest.name: one for contest, one in search(made, rewards=Known(), batch=batch, rows=16)
    }
    for contest in made:
        for n in contest.sizes:
            assert found[contest.name][n] == alone(contest, n, batch)
            scores = [min(known(item, step) for step in range(len(item.steps))) for item in contest.responses[:n]]
            assert found[contest.name][n].best == best_of_n(scores)


def test_no_more_contests_are_open_than_there_is_room_for():
    few = Known()
    list(search(contests(20), rewards=few, batch=2, rows=8))
    assert few.most_open == 4
    cramped = Known(capacity=1)
    assert len(list(search(contests(5), rewards=cramped, batch=1))) == 5
    assert cramped.most_open == 1
    assert not cramped.open


def test_equal_steps_are_asked_for_once_over_all_n():
    (contest,) = contests(1, sizes=(2, 4, 8))
    asked: list[tuple[int, int]] = []
    rewards = Known()
    plain = rewards.rewards

    def noted(wanted: Sequence[tuple[ReadPrompt, Stepped, int]]) -> list[float]:
        asked.extend((id(item), step) for _, item, step in wanted)
        return plain(wanted)

    rewards.rewards = noted
    list(search([contest], rewards=rewards))
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
        list(search(contests(1), rewards=Known(), **settings))
