"""Labels by the relative change of a verifier's confidence, by hand; and what the labeler takes from a scorer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any, ClassVar

import pytest

from freeprm.core.flops import ModelShape, forward_flops
from freeprm.core.steps import lines
from freeprm.errors import ConfigError, DataError
from freeprm.io.plugins import load
from freeprm.labelers.autopsv import AutoPSV, fallen
from freeprm.labelers.base import Divided, Labelled, Notebook
from freeprm.scorers._usage import Usage
from freeprm.scorers.base import DEFAULT_SCORING, Description, Scorer, ScorerSource, Scores, ScoringOptions
from freeprm.types import Rollout


@dataclass(frozen=True)
class Verifier(Scorer):
    """The log-odds that stand in a step's own words; a response that says `long` is too long."""

    about: ClassVar[Description] = Description(name="verifier", splitter="lines", aggregation="min")
    whole: bool = False
    loaded: ClassVar[list[str]] = []
    scored: ClassVar[list[int]] = []

    def describe(self, source: ScorerSource) -> Description:
        return self.about

    def load(self, source: ScorerSource) -> "Verifier":
        self.loaded.append(source.source)
        return self

    def shape(self) -> ModelShape:
        raise NotImplementedError

    def score_rollouts(
        self, rollouts: Sequence[Rollout], options: ScoringOptions = DEFAULT_SCORING, *, usage: Usage | None = None
    ) -> tuple[dict[int, Scores], Counter[str]]:
        self.scored.append(len(rollouts))
        assert usage is not None
        usage.timing("scorer forward")(10 * len(rollouts), len(rollouts))
        found = {
            index: Scores(
                steps=tuple(lines(item.response)),
                step_scores=None if self.whole else tuple(float(step) for step in item.extra["steps"]),
                n_tokens=10,
            )
            for index, item in enumerate(rollouts)
            if item.response != "long"
        }
        return found, Counter({"excluded: longer than the context": len(rollouts) - len(found)})


VERIFIER = Verifier()
OF_RESPONSES = Verifier(whole=True)


def response(text: str, index: int = 0) -> Divided:
    spans = lines(text)
    steps = [text[span.start : span.stop].strip() for span in spans]
    rollout = Rollout(problem_id="p", sample_idx=index, prompt="?", response=text, extra={"steps": steps})
    return Divided(rollout=rollout, steps=tuple(spans))


def run(*responses: Divided, notes: list[Any] | None = None, known: Sequence[Any] = (), **options: Any) -> Labelled:
    labeler = AutoPSV(**{"model": "solver:small", "scorer": f"{__name__}:VERIFIER", **options})
    return labeler.label(
        responses, seed=0, notebook=Notebook(known=known, note=(notes if notes is not None else []).append)
    )


def test_a_step_that_loses_more_than_half_the_confidence_is_wrong_and_so_are_those_after_it():
    # d: 0.6 / 0.8 - 1 = -0.25, 0.29 / 0.6 - 1 = -0.517 (wrong), then a rise of 0.9 / 0.29, which helps no more
    assert fallen([log(f) for f in (0.8, 0.6, 0.29, 0.9)], threshold=-0.5) == [True, True, False, False]
    assert fallen([log(f) for f in (0.8, 0.6, 0.29)], threshold=-0.6) == [True, True, True]
    assert fallen([log(f) for f in (0.5, 0.25)], threshold=-0.5) == [True, True]  # exactly half is not below


def test_the_first_step_is_right_unless_it_is_told_what_came_before():
    assert fallen([log(0.01), log(0.01)], threshold=-0.5) == [True, True]
    assert fallen([log(0.01), log(0.01)], threshold=-0.5, before=log(0.4)) == [False, False]
    assert fallen([log(0.3), log(0.01)], threshold=-0.5, before=log(0.4)) == [True, False]
    assert fallen([], threshold=-0.5) == []


def test_confidence_too_small_for_a_float_still_has_relative_changes():
    # log-odds of -800 and -800.5: f underflows to 0, but d = e^-0.5 - 1 = -0.39
    made = run(response("-800\n-800.5\n-802"))
    assert made.labels[0].labels == (True, True, False)  # e^-1.5 - 1 = -0.78
    assert made.labels[0].values == (0.0, 0.0, 0.0)


def test_log_odds_become_confidence():
    made = run(response("0\n1.0986122886681098\n-2"))  # ln 3: three to one
    assert made.labels[0].values[:2] == (0.5, pytest.approx(0.75))
    assert made.labels[0].labels == (True, True, False)  # sigmoid(-2) = 0.119
    probabilities = run(response("0.5\n0.75\n0.1"), scores="probabilities")
    assert probabilities.labels[0].values == pytest.approx((0.5, 0.75, 0.1))
    assert probabilities.labels[0].labels == (True, True, False)
    with pytest.raises(DataError, match="scores=log-odds"):
        run(response("-2"), scores="probabilities")


def test_what_the_verifier_cannot_read_is_counted_and_the_cost_is_its_forward_pass():
    made = run(response("0\n1"), response("long", 1), response("2", 2))
    assert list(made.labels) == [0, 2]
    assert made.counts["not labelled: excluded: longer than the context"] == 1
    (charge,) = made.cost.charges
    assert (charge.what, charge.tokens, made.cost.scored_tokens) == ("scorer forward", 30, 30)
    shape: ModelShape = AutoPSV(model="solver:small")._source().shape()
    assert charge.flops == pytest.approx(forward_flops(shape, 30, 10).total, abs=1)


def test_labels_without_a_wrong_step_come_with_the_largest_change_that_there_was():
    with pytest.warns(UserWarning, match=r"confidence is -0\.250, and threshold is -0\.5"):
        run(response("0.8\n0.6\n0.5"), scores="probabilities")  # 0.6 / 0.8 - 1


def test_an_interrupted_run_goes_on_from_its_notes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("freeprm.labelers.autopsv.BATCH", 2)
    responses = [response(f"0.5\n{index / 7}", index) for index in range(5)]
    notes: list[Any] = []
    whole = run(*responses, notes=notes)
    Verifier.scored.clear()
    assert run(*responses, known=notes[:2]) == whole
    assert Verifier.scored == [1]
    Verifier.loaded.clear()
    assert run(*responses, known=notes) == whole
    assert not Verifier.loaded


def test_a_scorer_of_whole_responses_is_refused():
    with pytest.raises(DataError, match="scores whole responses"):
        run(response("1"), scorer=f"{__name__}:OF_RESPONSES")


@pytest.mark.parametrize("options", [{"threshold": 0.0}, {"threshold": -1.5}, {"prior": 0.0}, {"prior": 1.0}])
def test_settings_that_make_no_sense_are_refused(options: dict[str, float]):
    with pytest.raises(ConfigError):
        AutoPSV(model="m", **options)  # type: ignore[arg-type]  # floats, which both fields are


def test_it_is_a_plugin():
    assert load("labelers", "autopsv") is AutoPSV
