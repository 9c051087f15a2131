"""Trained models of values as scorers: read where they were trained, refused where they are something else."""

import json
import pickle
import shutil
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

import tiny
from freeprm.errors import ConfigError, DataError, ModelError, RewardMismatchError, SpanError
from freeprm.models.encoding import encode
from freeprm.models.loading import LoadOptions, weights_hash
from freeprm.models.reward_config import Reference, RewardConfig, save_reward_config
from freeprm.models.values import score_values
from freeprm.scorers._job import Part, ScoringJob
from freeprm.scorers._usage import Usage
from freeprm.scorers.base import ScorerSource, ScoringOptions
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.scorers.valued import Valued
from freeprm.training.steps import StepReader, in_tokens
from freeprm.types import Rollout
from rounding import near

CPU = LoadOptions(device="cpu")
ROLLOUTS = tiny.rollouts(2)
PARTS = {
    "linear steps": {"parameterisation": "linear", "read_at": "steps"},
    "linear response": {"parameterisation": "linear", "read_at": "response"},
    "tokens steps": {"parameterisation": "tokens", "read_at": "steps", "judgement": ("+", "-")},
}


def config(name: str) -> RewardConfig:
    return RewardConfig(beta=1.0, base="b", reference=None, objective="ce", splitter="lines", **PARTS[name])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders as training writes them."""

    def made(name: str) -> Path:
        folder = tmp_path_factory.mktemp("valued")
        if name.startswith("linear"):
            base = tiny.save(tmp_path_factory.mktemp("base"))
            model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
            with torch.no_grad():
                model.score.weight.normal_(generator=torch.Generator().manual_seed(1))
            model.save_pretrained(folder)
            tiny.tokenizer().save_pretrained(folder)
        else:
            tiny.save(folder)
        save_reward_config(config(name), folder)
        return folder

    return {name: made(name) for name in PARTS}


@pytest.fixture(scope="module")
def log_ratio(tmp_path_factory) -> Path:
    """A folder of an implicit process reward model."""
    folder = tiny.save(tmp_path_factory.mktemp("implicit"))
    reference = Reference(source=str(folder), weights_sha256=weights_hash(folder))
    save_reward_config(RewardConfig(beta=1.0, base="b", reference=reference, objective="ce"), folder)
    return folder


def plainly(folder: Path, rollout: Rollout, stop: int) -> float:
    """The pooled logit of transformers after the tokens that begin before this character."""
    [item] = encode(tiny.tokenizer(), [rollout])
    n_tokens = item.n_prompt + sum(span.start < stop for span in item.spans)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor(item.ids[:n_tokens].tolist())[None]).logits.item()


def test_steps_have_the_value_at_their_last_token(folders):
    folder = folders["linear steps"]
    scorer = Valued.load(ScorerSource(source=str(folder), options=CPU))
    rollouts = [replace(rollout, truncated=True) for rollout in ROLLOUTS]  # so that a step ends with its own characters
    scores, counts = scorer.score_rollouts(rollouts)
    assert counts == {}
    assert [scorer.about.name, scorer.about.splitter] == ["linear steps", "lines"]
    for rollout, item in zip(rollouts, scores.values(), strict=True):
        assert item.score is None
        assert [span.stop for span in item.steps][-1] == len(rollout.response)
        expected = [plainly(folder, rollout, span.stop) for span in item.steps]
        assert item.step_scores == near(expected)


def test_the_last_step_is_read_at_the_end_of_turn(folders):
    scorer = Valued.load(ScorerSource(source=str(folders["linear steps"]), options=CPU))
    finished = scorer.score_rollouts(ROLLOUTS[:1])[0][0]
    [item] = encode(tiny.tokenizer(), ROLLOUTS[:1])
    assert item.ids[-1] == tiny.tokenizer().eos_token_id
    [last] = score_values(scorer.backbone.model, [item], [np.array([item.n_response - 1])])
    assert finished.step_scores[-1] == near(last.item())


def test_responses_have_the_value_at_their_last_token(folders):
    folder = folders["linear response"]
    scorer = Valued.load(ScorerSource(source=str(folder), options=CPU))
    scores, _ = scorer.score_rollouts(ROLLOUTS)
    assert scorer.about.splitter is None
    for rollout, item in zip(ROLLOUTS, scores.values(), strict=True):
        assert (item.steps, item.step_scores) == ((), None)
        assert item.score == near(plainly(folder, rollout, len(rollout.response) + 1))


def test_a_row_s_own_steps_are_read_and_wrong_ones_name_the_response(folders):
    scorer = Valued.load(ScorerSource(source=str(folders["tokens steps"]), options=CPU))
    response = ROLLOUTS[0].response
    own = replace(ROLLOUTS[0], extra={"steps": [response[:9], response[9:]]})
    scores, _ = scorer.score_rollouts([own])
    assert [span.stop for span in scores[0].steps] == [9, len(response)]
    with pytest.raises(SpanError, match="problem 'p0', sample 0: step 0"):
        scorer.score_rollouts([replace(own, extra={"steps": ["something else"]})])


@pytest.mark.parametrize("steps", [None, [9], [4, 20]], ids=["cut by the splitter", "two given", "three given"])
def test_values_are_read_where_they_are_trained(steps, folders):
    scorer = Valued.load(ScorerSource(source=str(folders["tokens steps"]), options=CPU))
    for rollout in ROLLOUTS:
        if steps:
            cuts = [0, *steps, len(rollout.response)]
            given = [rollout.response[start:stop] for start, stop in pairwise(cuts)]
            rollout = replace(rollout, extra={"steps": given})
        [item] = encode(tiny.tokenizer(), [rollout])
        text_steps = StepReader(splitter="lines", labels=None).in_text(rollout)
        trained_at = in_tokens(text_steps, item, rollout.response, Counter()).ends
        [trained] = score_values(scorer.backbone.model, [item], [trained_at])
        assert scorer.score_rollouts([rollout])[0][0].step_scores == near(trained.tolist())


def test_every_token_may_be_a_step(folders):
    scorer = Valued.load(ScorerSource(source=str(folders["linear steps"]), options=CPU))
    scores, _ = scorer.score_rollouts(ROLLOUTS[:1], ScoringOptions(splitter="tokens"))
    [item] = encode(tiny.tokenizer(), ROLLOUTS[:1])
    assert len(scores[0].step_scores) == item.n_response
    by_step, _ = scorer.score_rollouts(ROLLOUTS[:1])
    assert scores[0].step_scores[-1] == near(by_step[0].step_scores[-1])


def test_what_cannot_be_scored_is_counted(folders):
    scorer = Valued.load(ScorerSource(source=str(folders["linear steps"]), options=CPU))
    long = replace(ROLLOUTS[1], response="yes it is. " * tiny.CONTEXT)
    scores, counts = scorer.score_rollouts([replace(ROLLOUTS[0], response=""), ROLLOUTS[0], long])
    assert list(scores) == [1]
    assert counts == {"excluded: empty response": 1, "excluded: longer than the context": 1}
    with pytest.raises(DataError, match="problem 'p0', sample 1"):
        scorer.score_rollouts([long], ScoringOptions(too_long="error"))
    cut, counts = scorer.score_rollouts([long], ScoringOptions(too_long="truncate"))
    assert counts == {"truncated to the context": 1}
    assert cut[0].n_tokens == tiny.CONTEXT
    assert cut[0].steps[-1].stop < len(long.response)


def test_progress_is_told_in_tokens_that_were_read(folders):
    told: list[int] = []
    Valued.load(ScorerSource(source=str(folders["linear steps"]), options=CPU)).score_rollouts(
        ROLLOUTS, ScoringOptions(token_budget=1), usage=Usage(told.append)
    )
    assert sum(told) == sum(len(item.ids) for item in encode(tiny.tokenizer(), ROLLOUTS))


@pytest.mark.parametrize("name", PARTS)
def test_what_is_said_without_loading_is_what_the_loaded_model_says(name, folders):
    source = ScorerSource(scorer="valued", source=str(folders[name]), options=CPU)
    scorer = source.load()
    assert isinstance(scorer, Valued)
    assert (source.describe().name, source.describe().splitter) == (scorer.about.name, scorer.about.splitter)
    said, known = source.describe().identity(), scorer.identity()
    assert {**said, "dtype": None} == {**known, "dtype": None}
    assert known["parameterisation"] == name.split()[0]
    # The output head, 32 x 300 weights, of which none or two rows are read.
    assert source.shape().n_parameters - scorer.shape().n_parameters == 32 * 300


def test_rows_are_those_of_any_scorer(folders):
    for name in PARTS:
        source = ScorerSource(scorer="valued", source=str(folders[name]), options=CPU)
        job = pickle.loads(pickle.dumps(ScoringJob(scorer=source, names={name: ""}, options=ScoringOptions())))
        [scored] = list(job.worker()([Part(number=0, rollouts=tuple(ROLLOUTS))]))
        rows = scored.rows[name]
        assert {row["scorer"] for row in rows} == {name}
        assert {row["score_kind"] for row in rows} == {source.describe().kind}
        if name.endswith("steps"):
            assert all(len(row["step_scores"]) == len(row["step_spans"]) for row in rows)
        else:
            assert all(isinstance(row["score"], float) and "step_scores" not in row for row in rows)


@pytest.mark.parametrize(
    ("objective", "kind"), [("ce", "log_odds"), ("step_ce", "log_odds"), ("osv", "log_odds"), ("dpo", "unbounded")]
)
def test_values_are_log_odds_where_a_cross_entropy_made_them_so(folders, objective, kind, tmp_path):
    shutil.copytree(folders["linear response"], tmp_path / "model")
    save_reward_config(replace(config("linear response"), objective=objective), tmp_path / "model")
    assert ScorerSource(source=str(tmp_path / "model")).describe().kind == kind


def test_an_implicit_model_is_refused_with_what_to_do(log_ratio):
    for opened in (
        lambda: Valued.load(ScorerSource(source=str(log_ratio))),
        lambda: Valued.describe(ScorerSource(source=str(log_ratio))),
    ):
        with pytest.raises(ModelError, match=r"implicit process reward model.*`freeprm score --prm "):
            opened()


@pytest.mark.parametrize("name", PARTS)
def test_as_an_implicit_model_it_is_refused_with_what_to_do(name, folders):
    folder = str(folders[name])
    opened = [
        lambda: ImplicitPRM.from_pretrained(folder), lambda: ScorerSource(source=folder, scorer="implicit").load(),
        lambda: ScorerSource(source=folder, scorer="implicit").describe(),
    ]  # fmt: skip
    for one in opened:
        with pytest.raises(ModelError, match=rf"gives values \({name.split()[0]}, read at .*`freeprm score --prm "):
            one()


def test_a_language_model_is_refused(tmp_path):
    plain = tiny.save(tmp_path / "plain")
    with pytest.raises(ModelError, match=r"no reward.json.*Expected a folder that `freeprm train` wrote"):
        Valued.load(ScorerSource(source=str(plain)))
    with pytest.raises(ModelError, match=r"no reward.json"):
        ScorerSource(scorer="valued", source=str(plain)).load()
    save_reward_config(config("linear steps"), plain)  # it says that it has a head, which it has not
    with pytest.raises(ModelError, match=r"a LlamaForCausalLM without the head that values are read by"):
        Valued.load(ScorerSource(source=str(plain), options=CPU))


def test_a_judgement_that_splits_is_refused(tmp_path):
    folder = tiny.save(tmp_path)
    save_reward_config(replace(config("tokens steps"), judgement=("good", "-")), folder)
    with pytest.raises(ModelError, match="'good' splits into"):
        Valued.load(ScorerSource(source=str(folder), options=CPU))


def test_another_chat_template_than_in_training_is_refused(folders, tmp_path):
    folder = tiny.save(tmp_path, template=tiny.LLAMA3)
    save_reward_config(config("tokens steps"), folder)
    with pytest.raises(
        RewardMismatchError, match=r"the chat template is not the one .*; restore the tokenizer's files$"
    ):
        Valued.load(ScorerSource(source=str(folder), options=CPU))


def test_a_reference_is_refused(folders):
    with pytest.raises(ConfigError, match="reference: is for log-ratios; this model gives values; leave it out"):
        ScorerSource(scorer="valued", source=str(folders["linear steps"]), reference="b").load()


def test_a_reward_configuration_of_a_newer_kind_is_refused(folders, tmp_path):
    folder = tiny.save(tmp_path)
    save_reward_config(config("tokens steps"), folder)
    file = folder / "reward.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "parameterisation": "quantiles"}))
    with pytest.raises(ModelError, match=r"reward\.json: parameterisation 'quantiles': expected one of linear, tokens"):
        Valued.load(ScorerSource(source=str(folder)))
