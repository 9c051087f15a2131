import json
import random
from collections.abc import Sequence
from math import inf, nan, prod
from pathlib import Path

import pytest

from freeprm.core.early_stopping import BestFirst, BestResponse, ScoredStep, best_first, check_aggregator
from freeprm.core.rewards import AGGREGATORS
from freeprm.core.voting import best_of_n
from freeprm.errors import ConfigError, DataError, NonFiniteError

Responses = Sequence[Sequence[float]]


def search(responses: Responses, *, aggregator: str = "min", batch: int = 1) -> BestResponse:
    """Best-first over step scores that are known, which are given out one by one."""
    given = [0] * len(responses)

    def advance(wanted: Sequence[int]) -> list[ScoredStep]:
        steps = []
        for index in wanted:
            given[index] += 1
            steps.append(ScoredStep(responses[index][given[index] - 1], given[index] == len(responses[index])))
        return steps

    found = best_first(len(responses), advance, aggregator=aggregator, batch=batch)
    assert list(found.n_steps) == given
    return found


def drawn(rng: random.Random, values: Sequence[float] | None) -> list[list[float]]:
    """1 to 20 responses of 1 to 8 steps; few values make many ties."""
    return [
        [rng.choice(values) if values else rng.gauss(0, 1) for _ in range(rng.randint(1, 8))]
        for _ in range(rng.randint(1, 20))
    ]


@pytest.mark.parametrize("values", [None, (0.0, 1.0), (-1.0, -0.5, 0.0, 0.5, 1.0)], ids=["real", "two", "five"])
def test_it_chooses_what_best_of_n_chooses_ties_included(values: Sequence[float] | None):
    rng = random.Random(0)
    for _ in range(4000):
        responses = drawn(rng, values)
        scores = [min(steps) for steps in responses]
        found = search(responses, batch=rng.choice((1, 2, 3, 8, 32)))
        assert found.best == best_of_n(scores)
        assert found.score == scores[found.best]


def test_products_of_probabilities_are_chosen_from_alike():
    rng = random.Random(1)
    for _ in range(2000):
        responses = drawn(rng, (0.0, 0.25, 0.5, 0.9, 0.99, 1.0))
        scores = [AGGREGATORS["prod"](steps) for steps in responses]
        found = search(responses, aggregator="prod", batch=rng.choice((1, 4)))
        assert (found.best, found.score) == (best_of_n(scores), scores[found.best])


def test_one_at_a_time_scores_only_steps_that_decide():
    # Any way of choosing surely must score each response's first step, and go on with a response for as long as
    # what it has seen of it would win against the winner: higher, or as high with a lower index.
    rng = random.Random(2)
    for values in (None, (-1.0, 0.0, 1.0)):
        for _ in range(1000):
            responses = drawn(rng, values)
            found = search(responses)
            for index, steps in enumerate(responses):
                needed = 1
                while needed < len(steps) and (-min(steps[:needed]), index) <= (-found.score, found.best):
                    needed += 1
                assert found.n_steps[index] == (len(steps) if index == found.best else needed)


def test_more_at_a_time_never_score_fewer_steps_than_one_at_a_time():
    rng = random.Random(3)
    for _ in range(300):
        responses = drawn(rng, None)
        one, several = search(responses), search(responses, batch=4)
        assert all(a <= b for a, b in zip(one.n_steps, several.n_steps, strict=True))


def test_a_worked_example():
    # 0: 3 2 5, 1: 1 9 9, 2: 4 0 7. After the first steps 2 leads with 4 and falls to 0; 0 leads with 3, falls to 2,
    # and ends at 2, above 1 (1) and 2 (0). Six of nine steps.
    found = search([[3, 2, 5], [1, 9, 9], [4, 0, 7]])
    assert found == BestResponse(best=0, score=2, running=(2, 1, 0), n_steps=(3, 1, 2))


def test_the_first_of_equals_is_chosen_even_where_a_later_one_ends_first():
    # Both have minimum 1; response 1 is finished at once, but response 0 is not out of it before its end.
    found = search([[1, 5, 5], [1]])
    assert (found.best, found.n_steps) == (0, (3, 1))
    # The other way round what is left of response 1 does not matter.
    assert search([[1], [1, 5, 5]]).n_steps == (1, 1)


def test_the_running_score_of_a_finished_response_is_its_score():
    responses = [[0.5, 0.2], [0.3, 0.1, 0.4]]
    found = search(responses, batch=2)
    for steps, running, n_steps in zip(responses, found.running, found.n_steps, strict=True):
        assert running == min(steps[:n_steps])


def test_nothing_behind_a_finished_response_is_asked_for():
    race = BestFirst(3, batch=3)
    assert race.wanted() == [0, 1, 2]
    race.take({0: ScoredStep(0.5, False), 1: ScoredStep(0.4, True), 2: ScoredStep(0.4, False)})
    assert race.found is None
    assert race.wanted() == [0]  # 2 is level with 1, but after it
    race.take({0: ScoredStep(0.1, False)})
    found = race.found
    assert found is not None
    assert found.best == 1
    assert race.wanted() == []


def test_a_step_after_the_last_is_refused():
    race = BestFirst(1)
    race.take({0: ScoredStep(0.5, True)})
    with pytest.raises(DataError, match="response 0 has a step after its last one"):
        race.take({0: ScoredStep(0.5, True)})


@pytest.mark.parametrize("name", sorted(AGGREGATORS.keys() - {"min", "prod"}))
def test_an_aggregator_that_can_rise_is_refused_with_the_reason(name: str):
    with pytest.raises(ConfigError, match=f"'{name}' cannot be stopped early: .*choose min or prod"):
        check_aggregator(name)


def test_a_name_that_is_no_aggregator_is_refused_as_such():
    with pytest.raises(ConfigError, match="Did you mean 'min'"):
        check_aggregator("mn")


@pytest.mark.parametrize(
    ("responses", "settings", "error", "message"),
    [
        ([], {}, DataError, "no responses"),
        ([[1.0]], {"batch": 0}, ConfigError, "batch: is 0"),
        ([[1.0, nan]], {}, NonFiniteError, "response 0, step 1 has score nan"),
        ([[1.5]], {"aggregator": "prod"}, DataError, r"prod: a step has score 1.5; expected probabilities"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(responses, settings, error, message):
    with pytest.raises(error, match=message):
        search(responses, **settings)


def test_a_real_reward_models_scores_are_chosen_from_alike_for_less_than_half_of_the_steps(real_data: Path):
    problems: dict[tuple[str, str], list[list[float]]] = {}
    for file in sorted((real_data / "search_and_learn_bon").glob("*.rollouts.jsonl")):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            problems.setdefault((file.name, row["problem_id"]), []).append(row["step_scores"])
    assert len(problems) == 11  # of four responses each
    n_steps = 0
    for responses in problems.values():
        found = search(responses)
        assert found.best == best_of_n([min(steps) for steps in responses])
        assert search(responses, aggregator="prod").best == best_of_n([prod(steps) for steps in responses])
        n_steps += sum(found.n_steps)
    assert n_steps < sum(len(steps) for responses in problems.values() for steps in responses) / 2


def test_a_response_that_was_dropped_is_never_chosen_whatever_it_scored():
    race = BestFirst(3)
    race.drop(0)  # before it was seen
    assert race.wanted() == [1, 2]
    race.take({1: ScoredStep(0.9, False), 2: ScoredStep(0.5, True)})
    race.drop(1)
    assert race.found == BestResponse(best=2, score=0.5, running=(inf, 0.9, 0.5), n_steps=(0, 1, 1))
    race.drop(2)
    assert race.found is None
    assert race.wanted() == []
