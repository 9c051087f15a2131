import pytest

from freeprm.core.score_kinds import BY_KIND, check_kinds, weightings
from freeprm.errors import ConfigError, DataError
from freeprm.types import Rollout


def rows(*scores: float, scorer: str = "a", kind: object = None) -> list[Rollout]:
    extra = {} if kind is None else {"score_kind": kind}
    return [
        Rollout(problem_id="p", sample_idx=index, prompt="q", response="r", scorer=scorer, score=score, extra=extra)
        for index, score in enumerate(scores)
    ]


def weighed(given: list[Rollout], told: str | dict[str, str] = "", weighting: str = BY_KIND) -> dict[str, tuple]:
    found = weightings(given, weighting=weighting, told=check_kinds(told, weighting))
    return {scorer: (how.weighting, how.why, how.n_rows) for scorer, how in found.items()}


@pytest.mark.parametrize(
    ("kind", "weighting"), [("log_odds", "sigmoid"), ("probability", "raw"), ("unbounded", "standardised")]
)
def test_what_rows_say_decides(kind: str, weighting: str):
    assert weighed(rows(0.2, 0.9, kind=kind)) == {"a": (weighting, f"scores are {kind}, as their rows say", 2)}


def test_the_range_decides_where_nobody_says_anything():
    assert weighed(rows(0.0, 0.9, 1.0)) == {"a": ("raw", "scores are probability, as all are in 0..1", 3)}
    assert weighed(rows(0.0, 0.9, 1.1)) == {"a": ("standardised", "scores are unbounded, as not all are in 0..1", 3)}


def test_each_scorer_has_a_kind_of_its_own_and_what_is_told_ranks_above_its_rows():
    both = rows(0.5, kind="probability") + rows(0.5, scorer="b")
    found = weighed(both, {"a": "log-odds"})
    assert {scorer: how[0] for scorer, how in found.items()} == {"a": "sigmoid", "b": "raw"}
    assert {how[0] for how in weighed(both, "unbounded").values()} == {"standardised"}


def test_a_weighting_that_is_given_goes_for_all():
    assert weighed(rows(0.5, 3.0), weighting="rank") == {"a": ("rank", "as told", 2)}


def test_rows_without_scores_have_no_weighting():
    assert weighed([Rollout(problem_id="p", sample_idx=0, prompt="q", response="r")]) == {}


@pytest.mark.parametrize(
    ("given", "told", "weighting", "error", "message"),
    [
        (rows(2.0, kind="probability"), "", BY_KIND, DataError, "sample 0, scorer 'a': a score is not in 0..1"),
        (rows(0.5) + rows(0.5, kind="log_odds"), "", BY_KIND, DataError, "score_kind is 'log_odds', None"),
        (rows(0.5, kind="logits"), "", BY_KIND, DataError, "score_kind is 'logits' .*expected one of log_odds"),
        (rows(0.5), "logits", BY_KIND, ConfigError, "there is no 'logits'"),
        (rows(0.5), {"b": "log_odds"}, BY_KIND, ConfigError, "no scorer 'b'; there are a"),
        (rows(0.5), "log_odds", "raw", ConfigError, "give one of both"),
    ],
)
def test_contradictions_are_refused(given, told, weighting, error, message):
    with pytest.raises(error, match=message):
        weighed(given, told, weighting)


def test_probabilities_may_miss_their_range_by_rounding():
    assert weighed(rows(1.003, kind="probability"))["a"][0] == "raw"  # bfloat16
