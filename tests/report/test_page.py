import re
from dataclasses import fields, replace
from html.parser import HTMLParser

import pytest

from freeprm.report.content import Claim, Curve, Report, SolutionView, StepView
from freeprm.report.page import render
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


REPORT = Report(
    title=f"Demo {NASTY}",
    command=f"freeprm demo --out '{NASTY}'",
    disclosure=f"Made up. {NASTY}",
    settings={"beta": "0.5", NASTY: NASTY},
    metrics=(
        *[accuracy(0.4, n, "majority") for n in (1, 64)],
        *[accuracy(0.4 + n / 640, n, "best_of_n/min", NASTY) for n in (1, 64)],
        difference(0.1, 0.05, 0.15),
        Metric(metric="step_auc", value=0.9, scorer=NASTY, count=10),
        Metric(metric="accuracy", value=0.9, n=1, selector="majority", group=f"subject={NASTY}", count=10),
    ),
    claim=Claim(
        scorer=NASTY, selector="best_of_n/min", n=64, differences={f"majority {NASTY}": difference(0.1, 0.05, 0.15)}
    ),
    curves=(Curve(panel=f"loss {NASTY}", name=NASTY, points=((0.0, 1.0), (1.0, 0.5))),),
    costs={f"fit {NASTY}": Cost(seconds=1.5, flops=2e12, trained_tokens=1000), "score": Cost(seconds=0.5, flops=1e12)},
    solutions=(
        SolutionView(
            problem=NASTY, gold=NASTY, answer=NASTY, correct=False, label=NASTY, scorer=NASTY, first_error=0,
            steps=(StepView(text=NASTY, reward=-1.0, right=False),),
        ),
    ),
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
    assert parsed(render(REPORT)).open == []


def test_nothing_is_loaded_and_nothing_runs():
    page = render(REPORT)
    assert not {"script", "link", "img", "iframe"} & parsed(page).seen
    assert not re.search(r"https?://|@import|url\(", page)


def test_texts_are_escaped():
    page = render(REPORT)
    assert NASTY not in page
    assert "1 &lt; 2 &amp; &quot;x&quot; &lt;/script&gt;&lt;b&gt;" in page


def test_equal_reports_give_equal_pages():
    assert render(REPORT) == render(replace(REPORT))


@pytest.mark.parametrize(
    ("field", "heading"),
    [
        ("curves", "Training"),
        ("costs", "Cost"),
        ("solutions", "Solutions"),
        ("settings", "Settings"),
        ("metrics", "Accuracy"),
    ],
)
def test_a_section_without_data_is_left_out(field: str, heading: str):
    empty = next(f for f in fields(Report) if f.name == field)
    value = empty.default if field not in ("settings", "costs") else {}
    without = render(replace(REPORT, **{field: value}))  # type: ignore[arg-type]  # the field is a parameter
    assert f"<h2>{heading}</h2>" in render(REPORT)
    assert f"<h2>{heading}</h2>" not in without
    assert parsed(without).open == []


def test_a_title_and_a_command_alone_make_a_page():
    assert parsed(render(Report(title="t", command="c"))).open == []


def test_the_headline_gives_the_accuracy_and_each_paired_difference():
    page = render(REPORT)
    assert "50.0 %</b> [40.0, 60.0] of 200 problems right" in page
    assert "+10.0 points</b> [+5.0, +15.0] against majority" in page
    assert "The claim holds" in page


@pytest.mark.parametrize("bounds", [(-0.01, 0.2), (0.0, 0.2), (-0.2, -0.1), (None, None)])
def test_a_claim_that_is_not_clear_of_chance_is_said_to_fail(bounds: tuple[float | None, float | None]):
    assert REPORT.claim is not None
    failing = {"majority": difference(0.1, 0.05, 0.15), "reference": difference(0.1, *bounds)}
    page = render(replace(REPORT, claim=replace(REPORT.claim, differences=failing)))
    assert "The claim does not hold on this run" in page
    assert "over reference (+10.0" in page
    assert "over majority" not in page


def test_costs_are_summed():
    total = render(REPORT).split('class="total"')[1].split("</tr>")[0]
    assert re.findall(r">([^<>]+)</t[hd]>", total) == ["all stages", "2.0", "3 T", "–", "–", "1,000"]
