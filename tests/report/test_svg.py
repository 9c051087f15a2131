import pytest

from freeprm.report.svg import Scale, element, tick_text, ticks


def test_scale_takes_the_ends_to_the_ends_and_halves_to_halves():
    scale = Scale(0.0, 10.0, 100.0, 0.0)
    assert [scale(0.0), scale(5.0), scale(10.0)] == [100.0, 50.0, 0.0]


def test_log_scale_spaces_powers_of_four_evenly():
    scale = Scale(1, 64, 0.0, 300.0, log=True)
    assert [scale(n) for n in (1, 4, 16, 64)] == pytest.approx([0, 100, 200, 300])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.5, 1.0]),  # 4 gaps asked: 0.25 a gap, the next round step is 0.5
        (38.0, 63.0, [30.0, 40.0, 50.0, 60.0, 70.0]),  # 6.25 -> 10
        (-1.7, 1.3, [-2.0, -1.0, 0.0, 1.0, 2.0]),  # 0.75 -> 1
        (3.0, 3.0, [3.0, 4.0]),  # a constant still gets an axis: its own size / 4 = 0.75 -> 1
    ],
)
def test_ticks_are_round_and_hold_the_data(low: float, high: float, expected: list[float]):
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(("value", "step", "text"), [(0.5, 0.1, "0.5"), (-2.0, 1.0, "−2"), (5000.0, 5000.0, "5k")])
def test_tick_text_has_the_decimals_of_its_step(value: float, step: float, text: str):
    assert tick_text(value, step) == text


def test_element_escapes_attributes_and_leaves_out_none():
    assert (
        element("i", "x", class_='a"<b', id=None, stroke_width=1.23456)
        == '<i class="a&quot;&lt;b" stroke-width="1.23">x</i>'
    )
