"""The benchmark of grading."""

import pytest

from benchmarks import grading
from benchmarks.grading import Sample, compare
from benchmarks.rows import BenchmarkError
from freeprm.graders.base import AnswerPair

PAIRS = [
    AnswerPair("5", "5"),
    AnswerPair("5", "6"),
    AnswerPair("\\sum_{n=1}^{3} n", "6"),
    AnswerPair("\\sum_{n=1}^{3} n", "7"),
    AnswerPair("\\sum_{n=1}^{3} n", "6"),
    AnswerPair("\\frac{1}{2}", "0.5"),
]


def test_grading_has_a_row_for_math_verify_and_one_for_what_is_required(well_formed):
    rows = [well_formed(row) for row in compare(Sample("a few", PAIRS), peer_answers=4)]
    assert [row.name.partition(":")[0] for row in rows] == ["grading/math-verify in one process", "grading/required"]
    assert [(row.peer, row.target) for row in rows[1:]] == [(grading.TARGET, 1.0)]
    details = rows[0].details
    assert (details["answers"], details["pairs"], details["pairs for math-verify"]) == (6, 5, 2)
    assert details["answers of the peer"] == 4


def test_grading_refuses_to_compare_where_verdicts_differ():
    with pytest.raises(BenchmarkError, match="1 of 1 verdicts differ from math-verify's"):
        list(
            compare(Sample("words", [AnswerPair("east", "seat")]), peer_answers=1)
        )  # to it, products of the same letters


def test_answers_are_generated_where_there_is_no_data(monkeypatch):
    monkeypatch.delenv("FREEPRM_TEST_DATA", raising=False)
    (sample,) = grading._samples(quick=True)
    assert (sample.name, len(sample.pairs)) == ("generated answers", 1000)
