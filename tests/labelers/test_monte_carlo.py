"""Labels from completions: counted by hand, each prefix once, resumed, and what they cost."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from freeprm.core.flops import forward_flops
from freeprm.core.steps import lines
from freeprm.errors import ConfigError
from freeprm.io.plugins import load
from freeprm.labelers.base import Divided, Labelled, Notebook
from freeprm.labelers.monte_carlo import MonteCarlo
from freeprm.types import Rollout
from scripted import SHAPE, Scripted

ENGINE = f"{Scripted.__module__}:Scripted"


def response(text: str, *, correct: bool | None = True, index: int = 0, answer: str | None = "7") -> Divided:
    rollout = Rollout(problem_id="p", sample_idx=index, prompt="3+4?", response=text, correct=correct, answer=answer)
    return Divided(rollout=rollout, steps=tuple(lines(text)))


@pytest.fixture
def asked() -> Iterator[list[Any]]:
    Scripted.asked.clear()
    yield Scripted.asked
    Scripted.asked.clear()


def run(
    *responses: Divided, notes: list[Any] | None = None, known: list[Any] | None = None, **options: Any
) -> Labelled:
    labeler = MonteCarlo(model="m", **{"engine": ENGINE, "n": 4, **options})
    written = [] if notes is None else notes
    return labeler.label(responses, seed=0, notebook=Notebook(known=known or [], note=written.append))


def test_a_hard_label_says_any_and_a_soft_one_how_many_completions_are_right(asked: list[Any]):
    made = run(response("a4.\na1.\na0.\nThe answer is 8.", correct=False)).labels[0]
    assert made.labels == (True, True, False, False)
    assert made.values == (1.0, 0.25, 0.0, 0.0)
    assert made.columns == {"step_completions": [4, 4, 4, 0]}


def test_the_last_step_has_the_outcome_label_and_nothing_is_drawn_for_it(asked: list[Any]):
    made = run(response("a4.\nThe answer is 7.", correct=True), response("a0.", correct=False, index=1))
    assert (made.labels[0].labels[-1], made.labels[0].values[-1]) == (True, 1.0)
    assert (made.labels[1].labels, made.labels[1].values) == ((False,), (0.0,))
    assert [request.prefix for request in asked] == ["a4.\n"]


def test_a_prefix_that_responses_share_is_completed_once(asked: list[Any]):
    made = run(
        response("a4.\na1.\nx"), response("a4.\na2.\nx", index=1), response("a4.\na1.\ny", index=2),
    )  # fmt: skip
    assert [request.prefix for request in asked] == ["a4.\n", "a4.\na1.\n", "a4.\na2.\n"]
    assert len({request.problem_id for request in asked}) == 3
    assert made.counts["prefixes completed"] == 3
    assert made.counts["prefixes that an earlier response had"] == 3
    assert made.counts["completions"] == 12
    assert made.labels[0] == made.labels[2]
    assert made.labels[1].values == (1.0, 0.5, 1.0)


def test_a_completion_without_an_answer_is_not_right(asked: list[Any]):
    made = run(response("a?.\nx"))
    assert made.labels[0].labels == (False, True)
    assert made.labels[0].values == (0.0, 1.0)
    assert made.counts["completions without an answer"] == 4


def test_a_completion_without_a_verdict_counts_as_neither(asked: list[Any]):
    made = run(response("a1.\na0.\nx"), grader="scripted:no_verdict_on_eight")
    assert made.labels[0].values == (1.0, None, 1.0)
    assert made.labels[0].labels == (True, None, True)
    assert made.labels[0].columns == {"step_completions": [1, 0, 0]}
    assert made.counts["completions without a verdict"] == 3 + 4


def test_responses_without_a_label_or_a_gold_answer_are_counted(asked: list[Any]):
    made = run(
        response("a4.\nx", correct=None), response("a4.\nx", index=1, answer=None), response("a2.\nx", index=2),
    )  # fmt: skip
    assert list(made.labels) == [2]
    assert made.counts["not labelled: without an outcome label"] == 1
    assert made.counts["not labelled: without a gold answer"] == 1
    assert [request.prefix for request in asked] == ["a2.\n"]


def test_an_interrupted_run_goes_on_from_its_notes_to_the_same_end(asked: list[Any], monkeypatch: Any):
    monkeypatch.setattr("freeprm.labelers.monte_carlo._NOTE_ROWS", 3)
    responses = (response("a4.\na1.\nx"), response("a4.\na2.\nx", index=1))
    whole = run(*responses)
    notes: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        run(*responses, notes=notes, engine_options={"stop_after": 8})
    assert sum(len(note["completions"]) for note in notes) == 6  # the last two had not been noted
    asked.clear()
    resumed = run(*responses, known=notes)
    assert [sorted(request.done) for request in asked] == [[0, 1, 2, 3], [0, 1], []]
    assert resumed == whole
    asked.clear()
    everything: list[Any] = []
    run(*responses, notes=everything)
    asked.clear()
    assert run(*responses, known=everything) == whole
    assert not asked  # nothing is missing: no engine is started


def test_its_cost_is_what_was_read_and_drawn(asked: list[Any]):
    # Prefixes `a4.\n` (4) and `a4.\na1.\n` (8) behind `3+4?` (4 tokens): 8 and 12 read, once each; 2 x 4 x 2 drawn.
    responses = response("a4.\na1.\nx")
    made = run(responses)
    read, drawn = made.cost.charges
    assert (read.what, drawn.what) == ("prefill", "decode")
    assert (made.cost.prompt_tokens, made.cost.generated_tokens) == (20, 16)
    assert read.parameter_flops == 2 * 100 * 20
    # 4 L d a token and token attended to: 1 + ... + 8 and 1 + ... + 12 for what was read
    assert read.attention_flops == 4 * 2 * 10 * (36 + 78)
    # each of four: 9 + 10 behind the first prefix, 13 + 14 behind the second
    assert drawn.attention_flops == 4 * 2 * 10 * 4 * (9 + 10 + 13 + 14)
    assert made.cost.flops == sum(charge.flops or 0 for charge in made.cost.charges)
    assert run(responses, engine_options={"counts": False}).cost == made.cost  # taken to read each prefix once
    alone = run(response("a4.\nx")).cost.charges[0]
    assert alone.flops == round(forward_flops(SHAPE, 8, 8).total)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n: is 0"),
        ({"temperature": 0}, "temperature 0"),
        ({"temperature": -1}, "temperature: is -1"),
        ({"extractors": ("nowhere",)}, "nowhere"),
        ({"grader_options": {"x": 1}}, "x"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_done(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        MonteCarlo(model="m", **options)


def test_an_engine_that_cannot_go_on_from_a_beginning_says_so(tmp_path: Any):
    with pytest.raises(ConfigError, match="cannot go on from the beginning"):
        run(response("a4.\nx"), engine="replay")


def test_it_is_a_plugin_whose_settings_are_told():
    assert load("labelers", "monte_carlo") is MonteCarlo
    labeler = MonteCarlo(model="m", engine=ENGINE, n=3)
    assert labeler.identity() != replace(labeler, n=4).identity()
