import pytest

from freeprm.report.content import SolutionView, StepView
from freeprm.report.solutions import reward_scale, shade, solutions_page


def solution(*steps: tuple[str, float, bool | None], **changes: object) -> SolutionView:
    fields = {
        "problem": "2 + 2 - 1?", "gold": "3", "answer": "3", "correct": True, "label": "best", "scorer": "ce",
        "steps": tuple(StepView(text=text, reward=reward, right=right) for text, reward, right in steps),
    }  # fmt: skip
    return SolutionView(**{**fields, **changes})  # type: ignore[arg-type]  # toy fields


@pytest.mark.parametrize(
    ("reward", "level"), [(0.0, 0), (0.1, 0), (0.5, 2), (1.0, 4), (9.0, 4), (-0.25, -1), (-9.0, -4)]
)
def test_shade_has_the_side_of_the_sign_and_stops_at_the_scale(reward: float, level: int):
    assert shade(reward, 1.0) == level


def test_scale_is_not_set_by_one_outlier():
    # 10 sizes, the 90th percentile is index int(0.9 * 9) = 8 of the sorted ones: 1.0, not 100.
    assert reward_scale([-1.0] * 5 + [1.0] * 4 + [100.0]) == 1.0


def test_scale_of_nothing_or_of_zeros_is_one():
    assert reward_scale([]) == reward_scale([0.0, 0.0]) == 1.0


def test_the_first_error_is_marked_by_a_label_and_later_ones_by_another():
    text = solutions_page([solution(("a", 1.0, True), ("b", -2.0, False), ("c", 0.1, False), first_error=1)])
    before, _, after = text.partition("✗ first error")
    assert text.count("✗ first error") == 1
    assert before.endswith('b <span class="tag error">')
    assert after.count("✗ wrong") == 1


def test_without_truth_no_step_is_marked_wrong():
    assert "✗" not in solutions_page([solution(("a", 1.0, None), ("b", -2.0, None))])


def test_the_lowest_reward_is_named_where_it_is_negative():
    text = solutions_page([solution(("a", 1.0, None), ("b", -2.0, None))])
    assert text.index("lowest reward") > text.index(">b ")
    assert "lowest reward" not in solutions_page([solution(("a", 1.0, None), ("b", 0.5, None))])


def test_each_step_shows_its_reward_as_a_number():
    text = solutions_page([solution(("a", 1.234, None), ("b", -2.0, None))])
    assert "+1.23" in text
    assert "−2.00" in text


def test_solutions_of_one_problem_share_its_text():
    text = solutions_page([solution(("a", 1.0, None)), solution(("b", 1.0, None), label="majority's choice")])
    assert text.count("2 + 2 - 1?") == 1


@pytest.mark.parametrize(
    ("correct", "answer", "words"), [(False, None, "no answer: wrong"), (None, "3", "answer 3: not graded")]
)
def test_a_missing_answer_or_label_is_said(correct: bool | None, answer: str | None, words: str):
    assert words in solutions_page([solution(("a", 1.0, None), correct=correct, answer=answer)])
