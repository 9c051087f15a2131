import pytest

from freeprm.errors import DataError
from freeprm.report.claims import claim_over
from freeprm.types import Metric


def difference(scorer: str, selector: str, *, n: int = 64) -> Metric:
    return Metric(
        metric="accuracy_difference", scorer=scorer, selector=selector, n=n, value=0.1, low=-0.05, high=0.25, count=200
    )


MAJORITY = difference("ce", "best_of_n/min - majority")


def test_claim_takes_the_differences_as_they_are():
    reference = difference("ce - ref", "best_of_n/min")
    claim = claim_over([MAJORITY, reference], scorer="ce", selector="best_of_n/min", n=64, baseline="ref")
    assert list(claim.differences.values()) == [MAJORITY, reference]


def test_claim_turns_a_difference_that_was_taken_the_other_way_round():
    reference = difference("ref - ce", "best_of_n/min")
    claim = claim_over([MAJORITY, reference], scorer="ce", selector="best_of_n/min", n=64, baseline="ref")
    row = list(claim.differences.values())[1]
    assert (row.value, row.low, row.high) == (-0.1, -0.25, 0.05)  # a - b in [low, high] is b - a in [-high, -low]


@pytest.mark.parametrize(
    ("rows", "missing"),
    [
        ([MAJORITY], "over ref"),
        ([MAJORITY, difference("ce - ref", "best_of_n/min", n=16)], "over ref"),
        ([], "over majority"),
    ],
)
def test_claim_without_its_difference_is_refused(rows: list[Metric], missing: str):
    with pytest.raises(DataError, match=missing):
        claim_over(rows, scorer="ce", selector="best_of_n/min", n=64, baseline="ref")
