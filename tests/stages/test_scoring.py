import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

import freeprm.stages.scoring as module
import tiny
from costs import timeless
from freeprm.errors import ConfigError, DataError, RecordError, RunFolderError, SpanError
from freeprm.io.rollouts import read_rollouts, rollout_row
from freeprm.io.runs import RunFolder, read_manifest
from freeprm.models.batching import budget_within
from freeprm.models.loading import load_backbone
from freeprm.models.reward_config import Reference, RewardConfig
from freeprm.scorers.base import ScorerSource
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.stages.scoring import file_name, score
from freeprm.types import Rollout
from rounding import near

THREE = ("with-reference", "without-reference", "reference-only")
ROLLOUTS = tiny.rollouts(5)


def make_prm(folder: Path, *, seed: int = 1) -> ImplicitPRM:
    policy, reference = (
        load_backbone(str(tiny.save(folder / name, seed=one))) for name, one in (("policy", seed), ("reference", 0))
    )
    config = RewardConfig(beta=0.5, base="b", objective="ce", reference=Reference(source="b", weights_sha256="0" * 64))
    return ImplicitPRM(config, policy=policy, reference=reference)


@pytest.fixture(scope="session")
def prm(tmp_path_factory: pytest.TempPathFactory) -> ImplicitPRM:
    return make_prm(tmp_path_factory.mktemp("prm"))


def write(path: Path, rollouts: Sequence[Rollout]) -> Path:
    path.write_text("".join(json.dumps(rollout_row(rollout)) + "\n" for rollout in rollouts))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "rollouts.jsonl", ROLLOUTS)


def rows(folder: Path, scorer: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{file_name(scorer)}.jsonl").read_text().splitlines()]


def test_each_reward_has_its_file_with_a_row_a_response(prm, data, tmp_path):
    made = score([data], prm=prm, out=tmp_path / "out", rewards=THREE)
    assert {path.stem for path in made.folder.glob("*.jsonl")} == {*THREE}
    assert made.counts == {"scored": 20}
    for reward in THREE:
        for row, rollout in zip(rows(made.folder, reward), ROLLOUTS, strict=True):
            assert (row["problem_id"], row["sample_idx"], row["scorer"]) == (
                rollout.problem_id,
                rollout.sample_idx,
                reward,
            )
            assert (row["response"], row["correct"]) == (rollout.response, rollout.correct)
            assert math.fsum(row["step_scores"]) == pytest.approx(row["reward"])
            steps = [row["response"][start:stop] for start, stop in row["step_spans"]]
            assert "".join(steps) == row["response"]
            assert len(steps) == len(row["step_scores"])
    back = read_rollouts([made.folder]).rollouts
    assert len(back) == 60
    assert all(rollout.step_scores is not None for rollout in back)


def test_rows_hold_what_scoring_gives(prm, data, tmp_path):
    made = score([data], prm=prm, out=tmp_path / "out", tokens=True)
    for row in rows(made.folder, "with-reference"):
        one = prm.score(row["prompt"], [row["response"]])[0]
        assert row["step_scores"] == near(one.step_rewards)
        assert row["score_kind"] == "log_odds"
        assert row["token_rewards"] == near(one.token_rewards)
        assert [tuple(span) for span in row["token_spans"]] == list(one.tokens)


def test_a_scorer_may_be_named(prm, data, tmp_path):
    made = score([data], prm=prm, out=tmp_path / "out", name="my prm")
    assert {row["scorer"] for row in made.rows()} == {"my prm with-reference"}
    assert (made.folder / "my-prm-with-reference.jsonl").exists()


def test_the_batch_size_changes_nothing(prm, data, tmp_path, monkeypatch):
    one = score([data], prm=prm, out=tmp_path / "one")
    monkeypatch.setattr(module, "BATCH", 3)
    two = score([data], prm=prm, out=tmp_path / "two", token_budget=100)
    for a, b in zip(rows(one.folder, "with-reference"), rows(two.folder, "with-reference"), strict=True):
        assert a["step_scores"] == near(b["step_scores"])


def test_a_limit_of_memory_changes_the_batches_and_nothing_else(prm, data, tmp_path, monkeypatch):
    budgets = []
    real = ImplicitPRM.logprobs

    def noted(self: ImplicitPRM, *args: Any, **kwargs: Any) -> Any:
        budgets.append(kwargs["token_budget"])
        return real(self, *args, **kwargs)

    monkeypatch.setattr(ImplicitPRM, "logprobs", noted)
    free = score([data], prm=prm, out=tmp_path / "free")
    models = (prm._policy.model, prm._reference.model)
    held = sum(weight.nbytes for model in models for weight in model.parameters())
    limited = score([data], prm=prm, out=tmp_path / "limited", max_memory=str(held + 2**20))
    assert budgets == [None, budget_within(held + 2**20, models, packed=True, reads_logits=True)]
    for a, b in zip(rows(free.folder, "with-reference"), rows(limited.folder, "with-reference"), strict=True):
        assert a["step_scores"] == near(b["step_scores"])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"max_memory": "some"}, "max_memory: is 'some'; expected bytes above 0, such as 8GiB"),
        ({"max_memory": "8GiB", "token_budget": 9}, "max_memory, token_budget: both decide the tokens"),
        ({"max_memory": "1KiB"}, "max_memory: is 9.54e-07 GiB, but its models take"),
    ],
)
def test_a_limit_of_memory_that_cannot_be_kept_is_refused(prm, data, tmp_path, how, message):
    with pytest.raises(ConfigError, match=message):
        score([data], prm=prm, out=tmp_path / "out", **how)


def test_scoring_goes_on_after_a_torn_write(prm, data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 6)
    whole = score([data], prm=prm, out=tmp_path / "whole", rewards=THREE)
    out = tmp_path / "torn"
    calls = 0
    real = ImplicitPRM.logprobs

    def killed(self: ImplicitPRM, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ImplicitPRM, "logprobs", killed)
        with pytest.raises(KeyboardInterrupt):
            score([data], prm=prm, out=out, rewards=THREE)
    # The second scorer's file lost its last rows, and the third's last row is cut in its middle.
    second, third = (out / f"{name}.jsonl" for name in THREE[1:])
    second.write_text("".join(second.read_text().splitlines(keepends=True)[:6]))
    third.write_text(third.read_text()[:-30])
    with pytest.warns(UserWarning, match="the last row was cut off"):
        made = score([data], prm=prm, out=out, rewards=THREE)
    assert made.counts == {"resumed": 4, "scored": 20}  # of the two parts that were finished, one has lost rows
    for reward in THREE:
        name = f"{reward}.jsonl"
        assert (out / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_finished_run_is_not_run_again(prm, data, tmp_path):
    first = score([data], prm=prm, out=tmp_path / "out")
    again = score([data], prm=prm, out=tmp_path / "out")
    assert again == replace(first, counts=dict(first.counts))


def test_a_finished_run_loads_no_model(stories, data, tmp_path, monkeypatch):
    source = ScorerSource(source=str(stories), scorer="untrained")
    made = score([data], prm=source, rewards=["reference-only"], out=tmp_path / "scores")
    monkeypatch.setattr(ScorerSource, "load", None)
    assert score([data], prm=source, rewards=["reference-only"], out=tmp_path / "scores") == made


def test_another_policy_does_not_resume_a_run(prm, data, tmp_path):
    score([data], prm=prm, out=tmp_path / "out")
    with pytest.raises(RunFolderError, match="policy_sha256"):
        score([data], prm=make_prm(tmp_path / "other", seed=2), out=tmp_path / "out")


def test_what_is_left_out_is_counted(prm, tmp_path):
    odd = [replace(ROLLOUTS[0], response=""), replace(ROLLOUTS[1], response="~" * 500), *ROLLOUTS[2:]]
    made = score([write(tmp_path / "rows.jsonl", odd)], prm=prm, out=tmp_path / "out")
    assert made.counts == {"scored": 18, "excluded: empty response": 1, "excluded: longer than the context": 1}
    assert len(rows(made.folder, "with-reference")) == 18


def test_long_responses_may_be_cut_or_refused(prm, tmp_path):
    data = write(tmp_path / "rows.jsonl", [replace(ROLLOUTS[1], response="~" * 500), *ROLLOUTS[2:]])
    made = score([data], prm=prm, out=tmp_path / "cut", too_long="truncate")
    assert made.counts == {"scored": 19, "truncated to the context": 1}
    with pytest.raises(DataError, match="problem 'p0', sample 1"):
        score([data], prm=prm, out=tmp_path / "refused", too_long="error")
    with pytest.raises(ConfigError, match="expected one of error, exclude, truncate"):
        score([data], prm=prm, out=tmp_path / "unknown", too_long="cut")


def test_a_truncated_response_gets_no_end_token(prm, tmp_path):
    data = write(tmp_path / "rows.jsonl", [ROLLOUTS[0], replace(ROLLOUTS[0], sample_idx=1, truncated=True)])
    made = score([data], prm=prm, out=tmp_path / "out", tokens=True)
    whole, cut = (row["token_rewards"] for row in rows(made.folder, "with-reference"))
    assert cut == near(whole[:-1])


def test_responses_that_come_with_several_scorers_are_scored_once(prm, data, tmp_path):
    first = score([data], prm=prm, out=tmp_path / "first", rewards=THREE)
    again = score([first.folder], prm=prm, out=tmp_path / "again")
    assert again.counts == {"scored": 20, "skipped: again, with the scores of another scorer": 40}


def test_one_name_for_two_responses_is_refused(prm, data, tmp_path):
    other = write(tmp_path / "other.jsonl", [replace(ROLLOUTS[0], response="another", scorer="x")])
    with pytest.raises(DataError, match="problem 'p0', sample 0: stands for two different responses"):
        score([data, other], prm=prm, out=tmp_path / "out")


def test_steps_that_rows_bring_are_scored_as_given(prm, tmp_path):
    steps = ["one and", "two."]
    row = {"problem_id": "p", "prompt": "a?", "response": "one and\ntwo.", "steps": steps}
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps(row) + "\n")
    made = score([data], prm=prm, out=tmp_path / "out")
    assert rows(made.folder, "with-reference")[0]["step_spans"] == [[0, 8], [8, 12]]
    data.write_text(json.dumps({**row, "steps": ["three"]}) + "\n")
    with pytest.raises(SpanError, match="problem 'p', sample 0: step 0"):
        score([data], prm=prm, out=tmp_path / "other")


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"rewards": ["with-ref"]}, ConfigError, "reward 'with-ref'"),
        ({"splitter": "line"}, ConfigError, "Did you mean 'lines'"),
        ({"columns": {"response": "text"}}, RecordError, "text: no such column"),
    ],
)
def test_a_mistake_is_told_before_anything_is_scored(prm, data, tmp_path, how, error, message):
    with pytest.raises(error, match=message):
        score([data], prm=prm, out=tmp_path / "out", **how)


def test_the_cost_is_of_both_models(prm, data, tmp_path):
    both = score([data], prm=prm, out=tmp_path / "both").cost
    alone = ImplicitPRM(prm.config, policy=prm.policy, reference=None)
    one = score([data], prm=alone, out=tmp_path / "one", rewards=["without-reference"]).cost
    assert both.scored_tokens == 2 * one.scored_tokens
    assert both.flops == pytest.approx(2 * one.flops)
    assert [(charge.what, charge.tokens) for charge in both.charges] == [
        ("policy forward", one.scored_tokens), ("reference forward", one.scored_tokens),
    ]  # fmt: skip
    assert all(0 < charge.seconds < both.seconds for charge in both.charges)
    assert [charge.what for charge in one.charges] == ["policy forward"]
    assert read_manifest(tmp_path / "both")["cost"]["scored_tokens"] == both.scored_tokens


def test_a_processbench_file_is_scored_step_by_step(stories, real_data, tmp_path):
    file = next(iter(sorted((real_data / "processbench").glob("*gsm8k*"))))
    entries = json.loads(file.read_text()) if file.suffix == ".json" else [json.loads(x) for x in file.open()]
    short = [entry for entry in entries if len("".join(entry["steps"])) < 500][:5]
    data = tmp_path / "processbench.json"
    data.write_text(json.dumps(short))
    untrained = ImplicitPRM.untrained(load_backbone(str(stories)))
    made = score([data], prm=untrained, out=tmp_path / "out", rewards=["reference-only"], too_long="error")
    assert made.counts == {"scored": 5}
    for row, entry in zip(rows(made.folder, "reference-only"), short, strict=True):
        assert len(row["step_scores"]) == len(entry["steps"])
        assert row["first_error"] == (None if entry["label"] == -1 else entry["label"])
        assert all(math.isfinite(value) for value in row["step_scores"])


def test_a_resumed_runs_counts_and_cost_are_of_all_rows(prm, tmp_path, monkeypatch):
    odd = [replace(ROLLOUTS[0], response=""), replace(ROLLOUTS[1], response="~" * 500), *ROLLOUTS[2:]]
    data = write(tmp_path / "rows.jsonl", odd)
    monkeypatch.setattr(module, "BATCH", 6)
    whole = score([data], prm=prm, out=tmp_path / "whole")
    appended = RunFolder.append

    def killed(self: RunFolder, name: str, rows: Any) -> None:
        appended(self, name, rows)
        if len(self.rows(name)) > 10:  # two parts are noted; of the third, rows are written, and no more
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            score([data], prm=prm, out=tmp_path / "cut")
    resumed = score([data], prm=prm, out=tmp_path / "cut")
    assert resumed.counts == {**whole.counts, "resumed": 12}
    assert timeless(resumed.cost) == timeless(whole.cost)
    assert rows(resumed.folder, "with-reference") == rows(whole.folder, "with-reference")


def test_parts_scored_elsewhere_end_in_the_same_rows(tmp_path, data):
    folder = tiny.save(tmp_path / "model")
    source = ScorerSource(source=str(folder), scorer="untrained")
    how: dict[str, Any] = {"prm": source, "rewards": ["reference-only"], "tokens": True}
    options = {"block": 6}
    there = score([data], out=tmp_path / "there", executor="elsewhere:Elsewhere", executor_options=options, **how)
    assert there.counts == {"scored": 20}
    here = score([data], out=tmp_path / "here", **how)
    for a, b in zip(rows(there.folder, "reference-only"), rows(here.folder, "reference-only"), strict=True):
        assert a["token_rewards"] == near(b["token_rewards"])
        assert (a["problem_id"], a["sample_idx"]) == (b["problem_id"], b["sample_idx"])
    assert there.cost.scored_tokens == here.cost.scored_tokens
    with pytest.raises(RunFolderError, match=r"its settings\.batch is 6, not 256"):
        score([data], out=tmp_path / "there", executor="elsewhere:Elsewhere", **how)
    with pytest.raises(ConfigError, match="give workers elsewhere a ScorerSource"):
        score([data], out=tmp_path / "no", executor="elsewhere:Elsewhere", prm=source.load())


def test_parts_have_about_as_many_tokens_and_all_responses_in_order():
    rng = random.Random(0)
    for n, size in ((1000, 64), (37, 8), (5, 5), (3, 256)):
        made = [
            replace(rollout, response="a" * round(math.exp(rng.gauss(5, 1))))
            for rollout in tiny.rollouts(-(-n // 4))[:n]
        ]
        counted = [replace(one, extra={"n_prompt_tokens": 20, "n_generated_tokens": len(one.response)}) for one in made]
        for rollouts in (made, counted):
            parts = module._parts(rollouts, size)
            assert [rollout for part in parts for rollout in part.rollouts] == rollouts
            assert [part.number for part in parts] == list(range(len(parts)))
            assert len(parts) <= -(-n // size)
            tokens = [sum(module._lengths(part.rollouts)) for part in parts]
            longest = max(sum(module._lengths(list(own))) for _, own in groupby(rollouts, lambda one: one.problem_id))
            assert max(tokens) <= sum(tokens) / -(-n // size) + longest
            firsts = [part.rollouts[0].sample_idx for part in parts]
            assert set(firsts) == {0}  # responses to one prompt are in one part
        if n == 1000:
            by_count = [sum(module._lengths(counted[start : start + size])) for start in range(0, n - size + 1, size)]
            assert max(tokens) / min(tokens) < max(by_count) / min(by_count)


def test_many_responses_to_one_prompt_are_several_parts():
    rollouts = [replace(one, problem_id="p", prompt="", response="") for one in tiny.rollouts(2)]
    assert [len(part.rollouts) for part in module._parts(rollouts, 3)] == [3, 3, 2]
    assert module._parts([], 3) == []


def test_deterministic_scores_are_those_of_models_in_this_process(prm, data, tmp_path):
    one, other = (score([data], prm=prm, out=tmp_path / out, deterministic=True) for out in ("one", "other"))
    name = "with-reference.jsonl"
    assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()
    for elsewhere in ({"executor": "ray"}, {"policy_url": "http://here/v1", "reference_url": "http://there/v1"}):
        with pytest.raises(ConfigError, match="deterministic: is for models in this process"):
            score([data], prm=prm.policy.folder, out=tmp_path / "no", deterministic=True, **elsewhere)
