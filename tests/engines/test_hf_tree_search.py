"""Guided search: what comes out are solutions of the model with the scores of whole responses, and better ones."""

from collections.abc import Sequence

import pytest

from freeprm.core.rewards import AGGREGATORS
from freeprm.datasets._reading import load_problems
from freeprm.engines.base import Request, Sampled, SamplingParams
from freeprm.engines.hf import HFEngine
from freeprm.engines.hf.judging import Judge
from freeprm.engines.hf.tree_search import Search, Searched
from freeprm.errors import ConfigError
from freeprm.models.incremental import StepwiseRewards
from freeprm.models.loading import load_backbone
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.types import Problem

PARAMS = SamplingParams(temperature=1.0, max_new_tokens=160, seed=3)
PROBLEMS = load_problems("arithmetic", split="test", limit=4)
REWARD = "reference-only"  # of an untrained policy: the log-likelihood, so that sums are comparable
BEAM = Search(n=8, width=4, trees=False, aggregator=AGGREGATORS["sum"])


@pytest.fixture(scope="module")
def engine() -> HFEngine:
    return HFEngine(model="solver:small")


@pytest.fixture(scope="module")
def prm() -> ImplicitPRM:
    return ImplicitPRM.untrained(load_backbone("solver:small"))


@pytest.fixture(scope="module")
def beams(engine: HFEngine, prm: ImplicitPRM) -> dict[str, Searched]:
    """What a beam search finds."""
    return searched(engine, prm, BEAM)


@pytest.fixture(scope="module")
def drawn_whole(engine: HFEngine) -> dict[str, list[Sampled]]:
    """As many samples as it has beams."""
    found: dict[str, list[Sampled]] = {problem.problem_id: [] for problem in PROBLEMS}
    for one in engine.sample(requests(BEAM.n), params=PARAMS):
        found[one.problem_id].append(one)
    return found


def searched(
    engine: HFEngine, prm: ImplicitPRM, how: Search, *, problems: Sequence[Problem] = PROBLEMS, drawn: bool = False
) -> dict[str, Searched]:
    judge = Judge(
        rewards=StepwiseRewards(policy=prm.policy, reference=prm.reference, reward=REWARD, beta=prm.config.beta),
        tokenizer=prm.policy.tokenizer, max_length=prm.policy.max_length, splitter="lines", reference_draws=drawn,
    )  # fmt: skip
    found = list(engine.search(requests(how.n, problems), params=PARAMS, judge=judge, how=how))
    assert len({one.problem_id for one in found}) == len(found) == len(problems)
    return {one.problem_id: one for one in found}


def requests(n: int, problems: Sequence[Problem] = PROBLEMS) -> list[Request]:
    return [Request(problem_id=p.problem_id, prompt=p.prompt, sample_idxs=tuple(range(n))) for p in problems]


def whole_scores(prm: ImplicitPRM, problem: Problem, texts: Sequence[str]) -> list[tuple[float, ...]]:
    scored = prm.score(problem.prompt, texts, splitter="lines", reward=REWARD)
    return [one.step_rewards for one in scored]


def test_without_branches_it_is_plain_sampling_in_order_of_scores(engine, prm):
    found = searched(engine, prm, Search(n=4, width=1, trees=False, aggregator=AGGREGATORS["sum"]))
    plain = list(engine.sample(requests(4), params=PARAMS))
    for problem in PROBLEMS:
        one = found[problem.problem_id]
        drawn = [sample for sample in plain if sample.problem_id == problem.problem_id]
        assert sorted(s.sampled.text for s in one.solutions) == sorted(sample.text for sample in drawn)
        assert one.n_generated == sum(sample.n_generated_tokens or 0 for sample in drawn)
        assert one.n_beams == 4


@pytest.mark.parametrize(
    ("how", "drawn"),
    [
        (BEAM, True),
        (Search(n=8, width=4, trees=True, aggregator=AGGREGATORS["min"]), False),
        (Search(n=4, width=2, trees=False, aggregator=AGGREGATORS["last"], lookahead=1, max_steps=2), False),
    ],
    ids=["beam", "trees", "lookahead"],
)
def test_scores_are_those_of_the_whole_solutions_best_first(engine, prm, how: Search, drawn: bool):
    found = searched(engine, prm, how, drawn=drawn)
    for problem in PROBLEMS:
        solutions = found[problem.problem_id].solutions
        assert [one.sampled.sample_idx for one in solutions] == list(range(how.n_kept))
        assert not any(one.sampled.stop_reason == "abandoned" for one in solutions)
        expected = whole_scores(prm, problem, [one.sampled.text for one in solutions])
        for one, scores in zip(solutions, expected, strict=True):
            if not one.sampled.truncated:  # the end-of-turn token is a part of the last step
                assert one.step_scores == pytest.approx(scores, abs=1e-4)
        texts = [one.sampled.text for one in solutions]
        distinct = [one for index, one in enumerate(solutions) if texts.index(one.sampled.text) == index]
        values = [how.aggregator(one.step_scores) for one in distinct]
        assert values == sorted(values, reverse=True)


def test_several_problems_at_once_are_searched_as_each_alone(engine, prm, beams):
    for problem in PROBLEMS[:2]:
        alone = searched(engine, prm, BEAM, problems=[problem])[problem.problem_id]
        other = beams[problem.problem_id]
        assert [one.sampled.text for one in alone.solutions] == [one.sampled.text for one in other.solutions]
        assert (alone.n_generated, alone.n_beams) == (other.n_generated, other.n_beams)


def test_a_search_for_likelihood_finds_likelier_solutions_than_as_many_samples(prm, beams, drawn_whole):
    gains = []
    for problem in PROBLEMS:
        texts = [one.text for one in drawn_whole[problem.problem_id]]
        drawn = max(sum(scores) for scores in whole_scores(prm, problem, texts))
        gains.append(sum(beams[problem.problem_id].solutions[0].step_scores) - drawn)
    assert sum(gains) > 0


@pytest.mark.slow
def test_with_a_lookahead_to_the_end_nothing_is_lost_against_best_of_n(engine, prm, drawn_whole):
    how = Search(n=BEAM.n, width=4, trees=False, aggregator=AGGREGATORS["sum"], lookahead=50)
    found = searched(engine, prm, how)
    for problem in PROBLEMS:
        texts = [one.text for one in drawn_whole[problem.problem_id]]
        best = max(sum(scores) for scores in whole_scores(prm, problem, texts))
        assert sum(found[problem.problem_id].solutions[0].step_scores) >= best - 1e-4


def test_branches_share_what_their_beam_has_drawn(beams):
    for one in beams.values():
        lengths = [s.sampled.n_generated_tokens for s in one.solutions]
        assert one.n_beams > BEAM.n
        # Each beam drawn whole would take at least as many tokens as the shortest solution.
        assert one.n_generated < one.n_beams * min(lengths)


@pytest.mark.parametrize(
    "wrong", [{"n": 6}, {"width": 0}, {"n": 0}, {"lookahead": -1}, {"max_steps": 0}], ids=lambda wrong: str(wrong)
)
def test_numbers_that_make_no_search_are_refused(wrong: dict[str, int]):
    with pytest.raises(ConfigError, match="expected"):
        Search(**{"n": 8, "width": 4, "trees": True, "aggregator": AGGREGATORS["min"], **wrong})
