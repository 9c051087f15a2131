"""How solutions are drawn: colours, labels, the line of P(correct), and texts that would be markup."""

import pytest

from freeprm.report.page import Page, Section, render
from freeprm.report.solutions import SolutionView, StepView, TokenView, reward_scale, shade


def solution(*given: tuple[str, float, bool | None], **changes: object) -> SolutionView:
    fields = {
        "problem": "2 + 2 - 1?", "gold": "3", "answer": "3", "correct": True, "label": "best", "scorer": "ce",
        "steps": tuple(StepView(text=text, reward=reward, right=right) for text, reward, right in given),
    }  # fmt: skip
    return SolutionView(**{**fields, **changes})  # type: ignore[arg-type]  # toy fields


def solved(views: list[SolutionView]) -> str:
    page = render(Page(title="t", command="c", sections=(Section(title="Solutions", solutions=tuple(views)),)))
    return page[page.index("</style>") :]


@pytest.mark.parametrize(
    ("reward", "level"),
    [(0.0, "even"), (0.1, "even"), (0.5, "pos2"), (1.0, "pos4"), (9.0, "pos4"), (-0.25, "neg1"), (-9.0, "neg4")],
)
def test_shade_has_the_side_of_the_sign_and_stops_at_the_scale(reward: float, level: str):
    assert shade(reward, 1.0) == level


def test_scale_is_not_set_by_one_outlier():
    # 10 sizes, the 90th percentile is index int(0.9 * 9) = 8 of the sorted ones: 1.0, not 100.
    assert reward_scale([-1.0] * 5 + [1.0] * 4 + [100.0]) == 1.0


def test_scale_of_nothing_or_of_zeros_is_one():
    assert reward_scale([]) == reward_scale([0.0, 0.0]) == 1.0


def test_the_first_error_is_marked_by_a_label_and_later_ones_by_another():
    text = solved([solution(("a", 1.0, True), ("b", -2.0, False), ("c", 0.1, False), first_error=1)])
    before, _, after = text.partition("✗ first error")
    assert text.count("✗ first error") == 1
    assert before.endswith('b <span class="tag error">')
    assert after.count("✗ wrong") == 1


def test_without_truth_no_step_is_marked_wrong():
    assert "✗" not in solved([solution(("a", 1.0, None), ("b", -2.0, None))])


def test_the_lowest_reward_is_named_where_it_is_negative():
    text = solved([solution(("a", 1.0, None), ("b", -2.0, None))])
    assert text.index("lowest reward") > text.index(">b ")
    assert "lowest reward" not in solved([solution(("a", 1.0, None), ("b", 0.5, None))])


def test_each_step_shows_its_reward_as_a_number():
    text = solved([solution(("a", 1.234, None), ("b", -2.0, None))])
    assert "+1.23" in text
    assert "−2.00" in text


def test_solutions_of_one_problem_share_its_text():
    text = solved([solution(("a", 1.0, None)), solution(("b", 1.0, None), label="majority's choice")])
    assert text.count("2 + 2 - 1?") == 1


@pytest.mark.parametrize(
    ("correct", "answer", "words"), [(False, None, "no answer: wrong"), (None, "3", "answer 3: not graded")]
)
def test_a_missing_answer_or_label_is_said(correct: bool | None, answer: str | None, words: str):
    assert words in solved([solution(("a", 1.0, None), correct=correct, answer=answer)])


def test_the_line_of_p_correct_starts_at_the_first_step_and_has_the_top_for_one():
    view = solution(("a", 0.0, None))
    assert view.p_line == ""  # of one step there is no line
    steps = tuple(StepView(text="s", reward=0.0, p_correct=p) for p in (0.5, 1.0, 0.0))
    # Three steps over a width of 100; P = 1 at the top, 0, and P = 0 at the bottom, 24.
    assert solution(steps=steps).p_line == "0.0,12.0 50.0,0.0 100.0,24.0"
    assert 'aria-label="P(correct) after each step, from 0.50 to 0.00"' in solved([solution(steps=steps)])


def test_a_step_breaks_a_solution_where_its_score_is_the_first_below_the_threshold():
    view = solution(("a", 0.1, None), ("b", -0.2, None), ("c", -0.9, None), threshold=-0.1)
    assert view.breaks == 1
    assert solved([view]).count("✗ breaks: first below -0.1") == 1
    assert solution(("a", 0.1, None), threshold=0.0).breaks is None


def test_probabilities_have_no_colour_at_one_half():
    text = solved([solution(("a", 0.5, None), ("b", 0.9, None), ("c", 0.1, None), neutral=0.5)])
    assert '<li class="even"><span class="what">a' in text
    assert '<li class="pos4"><span class="what">b' in text
    assert '<li class="neg4"><span class="what">c' in text


def test_tokens_make_up_their_step_and_carry_their_rewards():
    tokens = (TokenView("1 <", 0.5), TokenView(" 2", -0.25))
    text = solved([solution(steps=(StepView(text="1 < 2", reward=0.25, tokens=tokens),))])
    assert '<span class="pos4" title="+0.500">1 &lt;</span><span class="neg4" title="−0.250"> 2</span>' in text
