import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from freeprm.errors import DataError, NonFiniteError
from freeprm.report.metrics import cost_table
from freeprm.report.page import (
    Claim,
    Curve,
    Page,
    Section,
    claim_over,
    metric_sections,
    render,
    settings_table,
    training_figures,
)
from freeprm.report.solutions import SolutionView, StepView
from freeprm.types import Cost, Metric

NASTY = '1 < 2 & "x" </script><b>'


def accuracy(value: float, n: int, selector: str, scorer: str | None = None) -> Metric:
    return Metric(
        metric="accuracy",
        value=value,
        low=value - 0.1,
        high=value + 0.1,
        n=n,
        selector=selector,
        scorer=scorer,
        count=200,
    )


def difference(value: float, low: float | None, high: float | None) -> Metric:
    return Metric(
        metric="accuracy_difference", value=value, low=low, high=high, n=64, scorer="ce",
        selector="best_of_n/min - majority", count=200,
    )  # fmt: skip


METRICS = (
    *[accuracy(0.4, n, "majority") for n in (1, 64)],
    *[accuracy(0.4 + n / 640, n, "best_of_n/min", NASTY) for n in (1, 64)],
    difference(0.1, 0.05, 0.15),
    Metric(metric="step_auc", value=0.9, scorer=NASTY, count=10),
    Metric(metric="accuracy", value=0.9, n=1, selector="majority", group=f"subject={NASTY}", count=10),
)
SECTIONS = {
    "Training": Section(
        title="Training", figures=training_figures([Curve(panel=f"loss {NASTY}", name=NASTY, points=((0, 1), (1, 2)))])
    ),
    "Cost": Section(title="Cost", tables=(cost_table({f"fit {NASTY}": Cost(seconds=1.5, flops=2e12)}),)),
    "Solutions": Section(
        title="Solutions",
        note=f"Coloured. {NASTY}",
        solutions=(
            SolutionView(
                problem=NASTY, gold=NASTY, answer=NASTY, correct=False, label=NASTY, scorer=NASTY, first_error=0,
                steps=(StepView(text=NASTY, reward=-1.0, right=False),),
            ),
        ),
    ),
    "Settings": Section(title="Settings", tables=(settings_table({"beta": "0.5", NASTY: NASTY}),)),
    "Notes": Section(title="Notes", lines=(NASTY,)),
    **{section.title: section for section in metric_sections(METRICS)},
}  # fmt: skip
PAGE = Page(
    title=f"Demo {NASTY}",
    command=f"freeprm demo --out '{NASTY}'",
    disclosure=f"Made up. {NASTY}",
    claim=Claim(
        scorer=NASTY, selector="best_of_n/min", n=64, differences={f"majority {NASTY}": difference(0.1, 0.05, 0.15)},
        accuracy=METRICS[3],
    ),
    sections=tuple(SECTIONS.values()),
)  # fmt: skip


class Balance(HTMLParser):
    """Every tag that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)


def parsed(page: str) -> Balance:
    parser = Balance()
    parser.feed(page)
    parser.close()
    return parser


def test_every_tag_is_closed_whatever_the_texts_hold():
    assert parsed(render(PAGE)).open == []


def test_nothing_is_loaded_and_nothing_runs():
    page = render(PAGE)
    assert not {"script", "link", "img", "iframe"} & parsed(page).seen
    assert not re.search(r"https?://|@import|url\(", page)


def test_texts_are_escaped():
    page = render(PAGE)
    assert NASTY not in page
    assert "1 &lt; 2 &amp; &quot;x&quot; &lt;/script&gt;&lt;b&gt;" in page


def test_equal_contents_give_equal_pages():
    assert render(PAGE) == render(replace(PAGE))


def test_every_section_with_data_is_there_and_one_without_is_left_out():
    page = render(PAGE)
    shown = [title for title in SECTIONS if f"<h2>{title}</h2>" in page]
    assert shown == [title for title in SECTIONS if title != "Ties"]  # nothing was tied
    assert [title for title in SECTIONS if f'">{title}</a>' in page] == shown


def test_the_list_of_sections_has_short_names_where_there_are_some():
    sections = (Section(title="A. A long title", short="A", lines=("x",)), Section(title="Other", lines=("x",)))
    text = render(Page(title="t", command="c", sections=sections))
    assert 'href="#a.-a-long-title" title="A. A long title">A</a>' in text
    assert 'href="#other">Other</a>' in text


def test_a_title_and_a_command_alone_make_a_page():
    assert parsed(render(Page(title="t", command="c"))).open == []


def test_the_headline_gives_the_accuracy_and_each_paired_difference():
    page = render(PAGE)
    assert "50.0 %</b> [40.0, 60.0] of 200 problems right" in page
    assert "+10.0 points</b> [+5.0, +15.0] against majority" in page
    assert "The claim holds" in page


@pytest.mark.parametrize("bounds", [(-0.01, 0.2), (0.0, 0.2), (-0.2, -0.1), (None, None)])
def test_a_claim_that_is_not_clear_of_chance_is_said_to_fail(bounds: tuple[float | None, float | None]):
    assert PAGE.claim is not None
    failing = {"majority": difference(0.1, 0.05, 0.15), "reference": difference(0.1, *bounds)}
    page = render(replace(PAGE, claim=replace(PAGE.claim, differences=failing)))
    assert "The claim does not hold on this run" in page
    assert "over reference (+10.0" in page
    assert "over majority" not in page


def compared(scorer: str, selector: str, *, n: int = 64) -> Metric:
    return Metric(
        metric="accuracy_difference", scorer=scorer, selector=selector, n=n, value=0.1, low=-0.05, high=0.25, count=200
    )


MAJORITY = compared("ce", "best_of_n/min - majority")


def test_claim_takes_the_differences_as_they_are():
    reference = compared("ce - ref", "best_of_n/min")
    claim = claim_over([MAJORITY, reference], scorer="ce", selector="best_of_n/min", n=64, baseline="ref")
    assert list(claim.differences.values()) == [MAJORITY, reference]


def test_claim_turns_a_difference_that_was_taken_the_other_way_round():
    reference = compared("ref - ce", "best_of_n/min")
    claim = claim_over([MAJORITY, reference], scorer="ce", selector="best_of_n/min", n=64, baseline="ref")
    row = list(claim.differences.values())[1]
    assert (row.value, row.low, row.high) == (-0.1, -0.25, 0.05)  # a - b in [low, high] is b - a in [-high, -low]


@pytest.mark.parametrize(
    ("rows", "missing"),
    [
        ([MAJORITY], "over ref"),
        ([MAJORITY, compared("ce - ref", "best_of_n/min", n=16)], "over ref"),
        ([], "over majority"),
    ],
)
def test_claim_without_its_difference_is_refused(rows: list[Metric], missing: str):
    with pytest.raises(DataError, match=missing):
        claim_over(rows, scorer="ce", selector="best_of_n/min", n=64, baseline="ref")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_refused_by_name(bad: float):
    with pytest.raises(NonFiniteError, match=r"Loss: ce: .* at 5"):
        training_figures([Curve(panel="loss", name="ce", points=((0.0, 1.0), (5.0, bad)))])


def test_curves_of_one_panel_share_a_plot_and_a_name_keeps_its_colour():
    text = "".join(
        training_figures(
            [
                Curve(panel="reward", name="right", points=((0.0, 0.0), (1.0, 1.0))),
                Curve(panel="reward", name="wrong", points=((0.0, 0.0), (1.0, -1.0))),
                Curve(panel="margin", name="wrong", points=((0.0, 0.0), (1.0, 2.0))),
            ]
        )
    )
    assert text.count("<figure>") == 2
    margin = text[text.index("Margin") :]
    assert "line s1" in margin
    assert "line s0" not in margin
