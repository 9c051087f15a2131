"""Numbers for each class, by hand; what they cannot be is refused with its cause."""

import math
from typing import Any

import pytest

from freeprm.core.score_kinds import BY_KIND, MAX_CLASSES, Meaning, check_kinds, class_scores, weightings
from freeprm.errors import ConfigError, DataError
from freeprm.types import Rollout


def rows(*scores: float, scorer: str = "a", kind: object = None) -> list[Rollout]:
    extra = {} if kind is None else {"score_kind": kind}
    return [
        Rollout(problem_id="p", sample_idx=index, prompt="q", response="r", scorer=scorer, score=score, extra=extra)
        for index, score in enumerate(scores)
    ]


def weighed(given: list[Rollout], told: str | dict[str, str] = "", weighting: str = BY_KIND) -> dict[str, tuple]:
    found = weightings(given, weighting=weighting, kinds=check_kinds(told, weighting))
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


SECOND = Meaning(good=1)


def test_lists_for_each_step_give_the_good_class_of_each():
    # What Qwen2.5-Math-PRM gives for the four steps of its card's example, second one wrong, in float16:
    # vllm-project/vllm, tests/models/fixtures/qwen2_5_math_prm_reward_step.json.
    outputs = [
        [0.0006361007690429688, 0.99951171875], [0.81884765625, 0.1812744140625], [0.025543212890625, 0.974609375],
        [0.0004382133483886719, 0.99951171875],
    ]  # fmt: skip
    assert class_scores(outputs, SECOND) == ((0.99951171875, 0.1812744140625, 0.974609375, 0.99951171875), None)
    assert class_scores({"index": 0, "object": "pooling", "data": outputs}, SECOND) == class_scores(outputs, SECOND)


def test_the_good_class_is_the_one_that_is_said():
    assert class_scores([[0.75, 0.25]], Meaning(good=0)).steps == (
        0.75,
    )  # "+" stands before "-" in Math-Shepherd's ids
    with pytest.raises(ConfigError, match="good: is None; expected the index of the class that means right, 0 to 1"):
        class_scores([[0.75, 0.25]], Meaning())
    with pytest.raises(ConfigError, match="good: is 2; expected the index of the class that means right, 0 to 1"):
        class_scores([[0.75, 0.25]], Meaning(good=2))


def test_one_list_of_classes_is_the_response_s():
    # docs/models/pooling_models/classify.md of vllm-project/vllm
    item = {"index": 1, "label": "Spoiled", "probs": [0.26448777318000793, 0.7355121970176697], "num_classes": 2}
    assert class_scores(item, SECOND) == (None, 0.7355121970176697)
    assert class_scores({"index": 0, "object": "pooling", "data": [0.25, 0.75]}, SECOND) == (None, 0.75)
    assert class_scores({"index": 0, "object": "score", "score": 0.5}, Meaning()) == (None, 0.5)
    assert class_scores(0.5, Meaning()) == (None, 0.5)


def test_logits_go_through_the_softmax_over_the_classes_and_one_logit_through_the_sigmoid():
    two = class_scores([[0.0, math.log(3)], [5.0, 5.0]], Meaning(good=1, values="logits")).steps
    assert two == pytest.approx((3 / 4, 1 / 2))  # e^log 3 / (e^0 + e^log 3)
    three = class_scores([math.log(2), math.log(3), math.log(5)], Meaning(good=2, values="logits")).response
    assert three == pytest.approx(1 / 2)
    assert class_scores([[math.log(4)]], Meaning(values="logits")).steps == pytest.approx((4 / 5,))  # 1 / (1 + 1/4)
    for far in (1e4, -1e4):
        assert class_scores([0.0, far], Meaning(good=1, values="logits")).response == (far > 0)


def test_scores_stay_as_they_are():
    assert class_scores({"score": -7.25}, Meaning(values="scores")) == (None, -7.25)
    assert class_scores([[3.5], [-1.0]], Meaning(values="scores")).steps == (3.5, -1.0)
    assert class_scores([[0.9, 0.8]], Meaning(good=1, values="scores")).steps == (
        0.8,
    )  # labels that do not exclude each other


def test_a_pipeline_tells_the_likelier_label_and_how_likely_it_is():
    # transformers' token-classification pipeline, as TRL's page on PRMTrainer reads it at the end of each step
    items = [
        {"entity": "LABEL_1", "score": 0.875, "index": 24, "word": "Ċ", "start": 40, "end": 41},
        {"entity": "LABEL_0", "score": 0.75, "index": 48, "word": "Ċ", "start": 80, "end": 81},
    ]
    assert class_scores(items, Meaning(good="LABEL_1")).steps == (0.875, 0.25)
    assert class_scores(items, Meaning(good="LABEL_0")).steps == (0.125, 0.75)
    with pytest.raises(ConfigError, match="good: is 1; expected the label of right steps, such as 'LABEL_1'"):
        class_scores(items, SECOND)
    with pytest.raises(DataError, match="names the labels LABEL_0, LABEL_1, and GOOD is good; expected two labels"):
        class_scores(items, Meaning(good="GOOD"))
    with pytest.raises(DataError, match="something else than"):
        class_scores([items[0], {"score": 0.5}], Meaning(good="LABEL_1"))


@pytest.mark.parametrize("outputs", [[[1.5, -0.5]], [[0.2, 0.2]], [[-0.5, 1.5]], {"score": 3.0}, [0.6, 0.6]])
def test_numbers_that_are_no_probabilities_are_not_taken_for_them(outputs: Any):
    with pytest.raises(DataError, match="which are no probabilities of classes; if no softmax was applied, say values"):
        class_scores(outputs, SECOND if not isinstance(outputs, dict) else Meaning())


def test_probabilities_may_miss_one_by_rounding():
    assert class_scores([[0.00390625, 0.9921875]], SECOND).steps == (0.9921875,)  # bfloat16: they sum to 0.996


def test_hidden_states_and_whole_vocabularies_are_no_classes():
    wide = [[0.0] * (MAX_CLASSES + 1)]
    for meaning in (SECOND, Meaning(good=1, values="logits"), Meaning(good=1, values="scores")):
        with pytest.raises(
            DataError, match=r"has 33 numbers at one place; .* hidden states or the logits of a language"
        ):
            class_scores(wide, meaning)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([], "no numbers at all: no step marker was found"),
        ([[0.5, 0.5], [1.0]], "lists of different lengths"),
        ([[0.5, 0.5], 0.5], "lists of different lengths"),
        ([[]], "a list without numbers"),
        ([[0.5, None]], "holds 'None'; expected finite numbers"),
        ([[float("inf"), 0.0]], "holds 'inf'"),
        ([[True, False]], "holds 'True'"),
        ([[[0.1, 0.9]]], r"holds '\[0\.1, 0\.9\]'"),
        ("AAAAPwAAgD8=", "ask the server for encoding_format 'float'"),
        ({"index": 0, "object": "embedding", "embedding": [0.1]}, "has index, object, embedding; expected one of data"),
        ({}, "has nothing"),
    ],
)
def test_what_is_no_output_of_a_classifier_is_refused_with_its_cause(outputs: Any, message: str):
    with pytest.raises(DataError, match=message):
        class_scores(outputs, SECOND)


def test_what_numbers_mean_must_be_one_of_three_things():
    with pytest.raises(ConfigError, match="values: is 'softmax'; expected one of probabilities, logits, scores"):
        Meaning(values="softmax")  # type: ignore[arg-type]  # what the test is about
