"""`freeprm search` from end to end, and what it does when it is interrupted or told something impossible."""

from pathlib import Path

import pytest

import freeprm
from freeprm.engines.hf.engine import HFEngine
from freeprm.errors import ConfigError, ModelError
from freeprm.models.loading import load_backbone
from freeprm.scorers.implicit import ImplicitPRM

CALL = {
    "model": "solver:small", "split": "test", "n_problems": 3, "n": 4, "width": 2, "temperature": 1.0,
    "max_new_tokens": 160, "reward": "reference-only", "splitter": "lines",
}  # fmt: skip


@pytest.fixture(scope="module")
def prm() -> ImplicitPRM:
    return ImplicitPRM.untrained(load_backbone("solver:small"))


@pytest.fixture(scope="module")
def found(prm: ImplicitPRM, tmp_path_factory: pytest.TempPathFactory) -> freeprm.RunResult:
    return freeprm.search("arithmetic", prm=prm, out=tmp_path_factory.mktemp("search") / "run", **CALL)


def test_solutions_are_rows_to_grade_and_choose_among(found: freeprm.RunResult, tmp_path: Path):
    rows = list(found.rows("rollouts"))
    assert [row["sample_idx"] for row in rows] == [0, 1] * 3
    assert all(row["scorer"] == "reference-only" and row["step_scores"] for row in rows)
    assert found.counts["solutions"] == 6
    (metric,) = found.metrics
    assert (metric.metric, metric.count, metric.n) == ("generated_tokens", 3, 4)
    assert metric.value * 3 == pytest.approx(found.cost.generated_tokens)
    assert metric.low <= metric.value <= metric.high
    # What is drawn is read by nobody else: the drawing model is the reference.
    assert found.cost.generated_tokens > sum(row["n_generated_tokens"] for row in rows) / 2
    graded = freeprm.grade(found, out=tmp_path / "graded")
    chosen = freeprm.select(graded, n=[1, 2], out=tmp_path / "selection")
    assert {row.scorer for row in chosen.metrics if row.selector == "best_of_n/min"} == {"reference-only"}


def test_an_interrupted_search_goes_on_and_ends_in_the_same_rows(
    found: freeprm.RunResult, prm: ImplicitPRM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = HFEngine.search

    def broken(self: HFEngine, *arguments: object, **options: object):
        yield next(whole(self, *arguments, **options))  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(HFEngine, "search", broken)
    with pytest.raises(KeyboardInterrupt):
        freeprm.search("arithmetic", prm=prm, out=tmp_path / "run", **CALL)
    monkeypatch.setattr(HFEngine, "search", whole)
    again = freeprm.search("arithmetic", prm=prm, out=tmp_path / "run", **CALL)
    assert [row["response"] for row in again.rows("rollouts")] == [row["response"] for row in found.rows("rollouts")]
    assert again.metrics == found.metrics
    assert again.counts == found.counts


@pytest.mark.parametrize(
    ("wrong", "error", "told"),
    [
        ({"n": 5}, ConfigError, "n: is 5 and width 2; expected a multiple of the width"),
        ({"aggregator": "minn"}, ConfigError, "Did you mean 'min'"),
        ({"splitter": "tokens"}, ConfigError, "splitter"),
        ({"reward": "with"}, ConfigError, "reward"),
        ({"prm": None}, ConfigError, "prm: is missing"),
        ({"prm": "no/such/folder"}, ModelError, "no/such/folder"),
        ({"temperature": 0.0}, ConfigError, "temperature"),
    ],
)
def test_what_makes_no_search_is_refused(
    prm: ImplicitPRM, tmp_path: Path, wrong: dict[str, object], error: type[Exception], told: str
):
    with pytest.raises(error, match=told):
        freeprm.search("arithmetic", **{**CALL, "prm": prm, "out": tmp_path / "run", **wrong})  # type: ignore[arg-type]
