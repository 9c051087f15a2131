import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import freeprm.stages.early_selection as module
import tiny
from freeprm.core.rewards import REWARDS
from freeprm.errors import ConfigError, ModelError, RunFolderError, SpanError
from freeprm.io.rollouts import rollout_row
from freeprm.io.runs import read_metrics
from freeprm.models.loading import load_backbone
from freeprm.models.reward_config import Reference, RewardConfig
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.stages.base import RunResult
from freeprm.stages.early_selection import select_early
from freeprm.stages.scoring import score
from freeprm.stages.selection import select
from freeprm.types import Rollout

ROLLOUTS = [
    replace(one, response=one.response.replace("Step", "Step" if index % 3 else "step"))
    for index, one in enumerate(tiny.rollouts(4, labels=(True, False) * 6))
]
"""Twelve responses to each of four problems, of one to three steps, some of them the same."""


@pytest.fixture(scope="session")
def prm(tmp_path_factory: pytest.TempPathFactory) -> ImplicitPRM:
    folder = tmp_path_factory.mktemp("prm")
    policy, reference = (
        load_backbone(str(tiny.save(folder / name, seed=seed))) for name, seed in (("policy", 1), ("reference", 0))
    )
    config = RewardConfig(beta=0.5, base="b", objective="ce", reference=Reference(source="b", weights_sha256="0" * 64))
    return ImplicitPRM(config, policy=policy, reference=reference)


def write(path: Path, rollouts: Sequence[Rollout]) -> Path:
    path.write_text("".join(json.dumps(rollout_row(rollout)) + "\n" for rollout in rollouts))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "rollouts.jsonl", ROLLOUTS)


def rows(made: RunResult) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (made.folder / "selections.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("splitter", ["auto", "lines", "tokens"])
def test_it_chooses_what_select_chooses_from_complete_scores(prm, data, tmp_path, reward, splitter):
    sizes = [1, 4, 12]
    score([data], prm=prm, out=tmp_path / "scores", rewards=[reward], splitter=splitter)
    complete = select([tmp_path / "scores"], out=tmp_path / "complete", n=sizes, subsets="first")
    lines = (complete.folder / "selections.jsonl").read_text().splitlines()
    wanted = [row for line in lines if (row := json.loads(line))["selector"] == "best_of_n/min"]
    for batch in (1, 5):
        early = select_early(
            [data], prm=prm, out=tmp_path / f"early{batch}", reward=reward, splitter=splitter, n=sizes, batch=batch
        )
        columns = ("problem_id", "scorer", "selector", "n", "sample_idx", "answer", "correct")
        assert [[row[name] for name in columns] for row in rows(early)] == [
            [row[name] for name in columns] for row in wanted
        ]
        accuracies = {m.n: m for m in complete.metrics if (m.metric, m.selector) == ("accuracy", "best_of_n/min")}
        for metric in early.metrics:
            if metric.metric == "accuracy":
                chosen = [row for row in wanted if row["n"] == metric.n]
                assert metric.value == sum(row["correct"] for row in chosen) / len(chosen)
                if not any(row["tied"] for row in chosen):  # else `select` takes the mean over those that share it
                    assert metric == accuracies[metric.n]
        tied = {(row["problem_id"], row["n"]) for row in wanted if row["tied"]}
        assert tied <= {(row["problem_id"], row["n"]) for row in rows(early) if row["may_be_tied"]}


def test_rows_and_metrics_say_what_was_scored(prm, data, tmp_path):
    made = select_early([data], prm=prm, out=tmp_path / "out", n=[1, 12])
    found = rows(made)
    for name in module.SHARES:
        for n in (1, 12):
            part = [row for row in found if row["n"] == n]
            (metric,) = (m for m in made.metrics if (m.metric, m.n) == (f"{name}_scored", n))
            share = sum(row[f"{name}_scored"] for row in part) / sum(row[name] for row in part)
            assert metric.value == pytest.approx(share)
            assert metric.low <= metric.value <= metric.high <= 1
            assert metric.value == 1 if n == 1 else metric.value < 1  # a single response is scored to its end
    assert made.metrics == read_metrics(made.folder)
    # Both models read each prompt but for its last token, and then a token for each that is scored; what was scored
    # for n = 1 is part of what was scored for n = 12, or is the rest of the first response.
    assert made.cost.scored_tokens >= 2 * sum(row["distinct_tokens_scored"] for row in found if row["n"] == 12)
    assert made.counts == {"problems": 4, "responses": 48}


def test_labels_and_answers_are_found_for_what_is_chosen(prm, tmp_path):
    bare = [replace(one, correct=None, answer=None if one.problem_id == "p0" else "5") for one in ROLLOUTS]
    made = select_early([write(tmp_path / "bare.jsonl", bare)], prm=prm, out=tmp_path / "out")
    found = {row["problem_id"]: row for row in rows(made)}
    assert found["p0"]["correct"] is None
    assert all(found[name]["correct"] == (found[name]["answer"] == "5") for name in ("p1", "p2", "p3"))
    assert made.counts["chosen at n=12 without label, counted as not correct"] == 1


def test_rollouts_without_labels_give_choices_but_no_accuracy(prm, tmp_path):
    bare = [replace(one, correct=None) for one in ROLLOUTS]
    made = select_early([write(tmp_path / "bare.jsonl", bare)], prm=prm, out=tmp_path / "out")
    assert len(rows(made)) == 4
    assert "accuracy" not in {metric.metric for metric in made.metrics}


def test_what_cannot_be_scored_is_counted_and_never_chosen(prm, tmp_path):
    long = replace(ROLLOUTS[0], response="Step 1: yes. " * 30)
    given = [long, replace(ROLLOUTS[1], response=""), *ROLLOUTS[2:24]]
    made = select_early([write(tmp_path / "some.jsonl", given)], prm=prm, out=tmp_path / "out", n=[11, 12])
    assert made.counts["excluded: empty response"] == 1
    assert made.counts["excluded: longer than the context"] == 1
    assert made.counts["problems left out at n=11, with fewer responses"] == 1  # ten are left of the first problem
    assert {(row["problem_id"], row["n"]) for row in rows(made)} == {("p1", 11), ("p1", 12)}


def test_given_steps_are_taken_and_wrong_ones_refused_by_name(prm, tmp_path):
    given = [replace(one, extra={"steps": one.response.splitlines()}) for one in ROLLOUTS]
    by_lines = select_early([write(tmp_path / "a.jsonl", ROLLOUTS)], prm=prm, out=tmp_path / "lines", splitter="lines")
    made = select_early([write(tmp_path / "b.jsonl", given)], prm=prm, out=tmp_path / "given")
    assert rows(made) == rows(by_lines)
    wrong = [replace(ROLLOUTS[0], extra={"steps": ["another text"]}), *ROLLOUTS[1:]]
    with pytest.raises(SpanError, match="problem 'p0', sample 0: "):
        select_early([write(tmp_path / "c.jsonl", wrong)], prm=prm, out=tmp_path / "wrong")


def test_an_interrupted_run_ends_as_one_that_was_not(prm, tmp_path, monkeypatch):
    some_empty = [replace(one, response="") if one.sample_idx == 5 else one for one in ROLLOUTS]
    extra = [replace(one, sample_idx=12) for one in ROLLOUTS if one.sample_idx == 0]
    data = write(tmp_path / "rollouts.jsonl", [*some_empty, *extra])
    whole = select_early([data], prm=prm, out=tmp_path / "whole", n=[2, 12])
    plain, seen = module._Field.rows, []

    def failing(self: Any, contest: Any, *args: Any, **options: Any) -> Any:
        seen.append(contest.name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return plain(self, contest, *args, **options)

    monkeypatch.setattr(module._Field, "rows", failing)
    with pytest.raises(KeyboardInterrupt):
        select_early([data], prm=prm, out=tmp_path / "out", n=[2, 12])
    monkeypatch.setattr(module._Field, "rows", plain)
    half = tmp_path / "out" / "selections.jsonl"
    half.write_text("".join(half.read_text().splitlines(keepends=True)[:-1]))  # of the last problem one row is there
    again = select_early([data], prm=prm, out=tmp_path / "out", n=[2, 12])
    assert rows(again) == rows(whole)
    assert again.metrics == whole.metrics
    assert again.counts == whole.counts
    assert again.counts["excluded: empty response"] == 4
    assert select_early([data], prm=prm, out=tmp_path / "out", n=[2, 12]).metrics == whole.metrics
    with pytest.raises(RunFolderError, match="batch"):
        select_early([data], prm=prm, out=tmp_path / "out", n=[2, 12], batch=2)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"aggregator": "mean"}, ConfigError, "'mean' cannot be stopped early"),
        ({"n": [13]}, ConfigError, "expected 1 to 12"),
        ({"batch": 0}, ConfigError, "batch: is 0"),
        ({"reward": "no"}, ConfigError, "expected one of"),
        ({"splitter": "liness"}, ConfigError, "Did you mean 'lines'"),
    ],
)
def test_a_bad_setting_is_refused(prm, data, tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        select_early([data], prm=prm, out=tmp_path / "out", **settings)


def test_a_reward_that_takes_the_reference_needs_it(prm, data, tmp_path):
    alone = ImplicitPRM(prm.config, policy=prm.policy, reference=None)
    with pytest.raises(ModelError, match="choose 'without-reference'"):
        select_early([data], prm=alone, out=tmp_path / "out")
    made = select_early([data], prm=alone, out=tmp_path / "out", reward="without-reference")
    assert len(rows(made)) == 4
