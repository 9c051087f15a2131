import pickle

import pytest

import releases
from freeprm.errors import ConfigError
from freeprm.models.loading import LoadOptions
from freeprm.scorers._job import Part, ScoringJob
from freeprm.scorers.base import ScorerSource, ScoringOptions
from releases import ROLLOUTS, one, save_released, seeded

CPU = LoadOptions(device="cpu")
SHEPHERD = {"math_shepherd": ""}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = save_released(tmp_path_factory.mktemp("ms"), seeded(releases.mistral), releases.mistral_tokenizer())
    return ScorerSource(scorer="math_shepherd", source=str(folder), options=CPU)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    model = seeded(lambda: releases.llama(labels=1))
    folder = save_released(tmp_path_factory.mktemp("sky"), model, releases.llama_tokenizer())
    return ScorerSource(scorer="skywork_reward", source=str(folder), options=CPU)


def test_a_worker_turns_parts_into_rows_and_counts_what_it_left_out(source):
    passed = []
    job = ScoringJob(scorer=source.load(), names=SHEPHERD, options=ScoringOptions(), passed=passed.append)
    part = Part(number=4, rollouts=(ROLLOUTS[0], one(""), ROLLOUTS[2]))
    [scored] = list(job.worker()([part]))
    rows = scored.rows["math_shepherd"]
    assert [row["scorer"] for row in rows] == ["math_shepherd"] * 2
    assert [len(row["step_scores"]) for row in rows] == [len(row["step_spans"]) for row in rows] == [2, 2]
    assert rows[0]["response"] == ROLLOUTS[0].response
    assert (scored.part, scored.left_out, dict(scored.counts)) == (4, [1], {"excluded: empty response": 1})
    [reading] = scored.readings.values()
    assert sum(passed) == reading.tokens == scored.sequence_tokens > 0


def test_rows_of_a_scorer_of_whole_responses_have_one_score(whole):
    job = ScoringJob(scorer=whole.load(), names={"sky": ""}, options=ScoringOptions())
    [scored] = list(job.worker()([Part(number=0, rollouts=(ROLLOUTS[0],))]))
    [row] = scored.rows["sky"]
    assert row["scorer"] == "sky"
    assert isinstance(row["score"], float)
    assert "step_scores" not in row
    assert "step_spans" not in row


def test_a_job_with_a_source_can_be_sent_to_another_process(source):
    job = pickle.loads(pickle.dumps(ScoringJob(scorer=source, names=SHEPHERD, options=ScoringOptions())))
    [scored] = list(job.worker()([Part(number=0, rollouts=(ROLLOUTS[1],))]))
    assert len(scored.rows["math_shepherd"]) == 1


def test_a_scorer_of_another_kind_is_asked_for_no_rewards(source):
    for options in (ScoringOptions(rewards=("with-reference",)), ScoringOptions(tokens=True)):
        job = ScoringJob(scorer=source.load(), names=SHEPHERD, options=options)
        with pytest.raises(ConfigError, match="is for log-ratios; math_shepherd gives one kind of score"):
            list(job.worker()([Part(number=0, rollouts=(ROLLOUTS[0],))]))


def test_a_splitter_for_a_scorer_of_whole_responses_is_refused(whole):
    job = ScoringJob(scorer=whole.load(), names={"sky": ""}, options=ScoringOptions(splitter="lines"))
    with pytest.raises(ConfigError, match="skywork_reward: scores whole responses"):
        list(job.worker()([Part(number=0, rollouts=(ROLLOUTS[0],))]))
