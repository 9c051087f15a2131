"""A section of reasoning before the answer: scored with it, left out, or cut apart; in scoring as in training."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from freeprm.core.steps import answer_start
from freeprm.errors import ConfigError, DataError
from freeprm.models.encoding import answers, encode
from freeprm.scorers.base import ScoringOptions, rollouts_of
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.scorers.valued import Valued
from freeprm.settings import TrainSettings
from freeprm.stages.scoring import score
from freeprm.stages.training import train
from freeprm.training.examples import GroupPreparer
from freeprm.training.setup import set_up_training
from freeprm.types import group_rollouts
from tiny import LLAMA3, save

ASKED = "3 and 4?"
SAID = "<think>\nit is 7\n\nyes\n</think>\n\nStep 1: we add.\nStep 2: so 7"
UNENDED = "<think> we add 3 and"
PLAIN = "Step 1: so 8"


@pytest.fixture(scope="module")
def prm(template_prm: Path) -> ImplicitPRM:
    return ImplicitPRM.from_pretrained(template_prm)


def test_what_is_excluded_is_read_and_not_rewarded(prm: ImplicitPRM):
    whole = prm.score(ASKED, [SAID])[0]
    found, counts = prm.score_rollouts(rollouts_of(ASKED, [SAID]), ScoringOptions(reasoning="exclude", tokens=True))
    start = answer_start(SAID)
    assert start is not None
    of_answer = [r for r, span in zip(whole.token_rewards, whole.tokens, strict=True) if span.stop > start]
    assert 0 < len(of_answer) < len(whole.token_rewards)
    assert found[0].columns["token_rewards"] == pytest.approx(of_answer, abs=1e-5)
    assert found[0].reward == pytest.approx(sum(of_answer), abs=1e-5)
    assert sum(found[0].step_scores or ()) == pytest.approx(found[0].reward, abs=1e-5)
    assert [SAID[span.start : span.stop] for span in found[0].steps] == ["Step 1: we add.\n", "Step 2: so 7"]
    assert not counts


def test_what_is_apart_has_the_rewards_of_the_whole(prm: ImplicitPRM):
    whole = prm.score(ASKED, [SAID], splitter="blank_lines")[0]
    rollouts = rollouts_of(ASKED, [SAID])
    found, _ = prm.score_rollouts(rollouts, ScoringOptions(reasoning="apart", splitter="blank_lines"))
    assert found[0].reward == pytest.approx(whole.reward, abs=1e-5)
    texts = [SAID[span.start : span.stop] for span in found[0].steps]
    assert texts == ["<think>\nit is 7\n\n", "yes\n</think>\n\n", "Step 1: we add.\nStep 2: so 7"]
    assert found[0].step_scores == pytest.approx(whole.step_rewards, abs=1e-5)  # a blank line stands there too


def test_given_steps_before_the_answer_are_left_out(prm: ImplicitPRM):
    steps = ["<think>\nit is 7", "yes\n</think>\n\nStep 1: we add.", "Step 2: so 7"]
    rollouts = [replace(one, extra={"steps": steps}) for one in rollouts_of(ASKED, [SAID])]
    found, _ = prm.score_rollouts(rollouts, ScoringOptions(reasoning="exclude"))
    assert [SAID[span.start : span.stop] for span in found[0].steps] == ["Step 1: we add.\n", "Step 2: so 7"]


def test_a_response_without_an_answer_is_left_out_and_counted(prm: ImplicitPRM):
    rollouts = rollouts_of(ASKED, [SAID, UNENDED, PLAIN, "<think>a</think>\n"])
    found, counts = prm.score_rollouts(rollouts, ScoringOptions(reasoning="exclude"))
    assert sorted(found) == [0, 2]
    assert counts == {"excluded: reasoning without an answer behind it": 2}
    assert found[2].reward == pytest.approx(prm.score(ASKED, [PLAIN])[0].reward, abs=1e-5)
    own = ImplicitPRM(replace(prm.config, reasoning="exclude"), policy=prm.policy, reference=prm.reference)
    with pytest.raises(DataError, match="response 1: there is no answer behind its reasoning"):
        own.score(ASKED, [SAID, UNENDED])


def test_a_token_of_whitespace_and_a_word_goes_with_the_word(prm: ImplicitPRM):
    said = "a</think> the sum is 7"
    (item,) = encode(prm.tokenizer, rollouts_of(ASKED, [said]))
    found = answers([item], [said])
    (cut,) = found.encoded
    assert found.counts == Counter()
    assert cut.ids.tolist() == item.ids.tolist()
    assert cut.n_reasoning == cut.n_prompt - item.n_prompt > 0
    assert cut.spans[0].start == said.index("the")
    assert item.offsets[cut.n_reasoning][0] <= cut.spans[0].start < item.offsets[cut.n_reasoning][1]


def test_a_model_is_scored_as_it_was_trained(tmp_path: Path, prm: ImplicitPRM):
    model = save(tmp_path / "model", template=LLAMA3)
    rollouts = [
        replace(one, problem_id=f"p{problem}", sample_idx=index, correct=right)
        for problem in range(3)
        for index, (one, right) in enumerate(
            zip(rollouts_of(f"{problem} and 4?", [SAID, UNENDED, PLAIN, SAID + "!"]), (True, False, False, True),
                strict=True)
        )
    ]  # fmt: skip
    for how in ({"objective": "ce"}, {"objective": "ce", "parameterisation": "linear"}):
        folder = tmp_path / how.get("parameterisation", "log_ratio")
        trainer = {"use_cpu": True, "max_steps": 2, "learning_rate": 1e-3, "per_device_train_batch_size": 3}
        made = train(rollouts, model=str(model), reasoning="exclude", out=folder, trainer=trainer, **how)
        assert made.counts["excluded: reasoning without an answer behind it"] == 3
        assert made.counts["right responses"] == 6
        scored = score(rollouts, prm=str(folder), out=tmp_path / f"{folder.name}-scores")
        assert scored.counts["excluded: reasoning without an answer behind it"] == 3
        whole = score(rollouts, prm=str(folder), reasoning="include", out=tmp_path / f"{folder.name}-whole")
        assert whole.counts["scored"] == 12


def test_training_takes_the_answers_tokens_and_the_references_numbers_of_them(tmp_path: Path):
    model = save(tmp_path / "model", template=LLAMA3)
    rollouts = [
        replace(one, sample_idx=index, correct=right)
        for index, (one, right) in enumerate(zip(rollouts_of(ASKED, [SAID, PLAIN]), (True, False), strict=True))
    ]
    made = {}
    for reasoning in ("include", "exclude"):
        setup = set_up_training(TrainSettings(model=str(model), reasoning=reasoning))
        made[reasoning] = GroupPreparer(setup, tmp_path / "cache").examples(group_rollouts(rollouts))[0]
    whole, answer = made["include"], made["exclude"]
    n = answer.encoded[0].n_response
    assert n < whole.encoded[0].n_response
    assert answer.encoded[0].ids.tolist() == whole.encoded[0].ids.tolist()
    np.testing.assert_allclose(answer.ref_logps[0], whole.ref_logps[0][-n:], atol=1e-5)
    np.testing.assert_allclose(answer.ref_logps[1], whole.ref_logps[1], atol=1e-5)


def test_what_takes_responses_as_they_are_says_so(prm: ImplicitPRM):
    from held import Held

    with pytest.raises(ConfigError, match=r"reasoning: .* takes responses as they are"):
        Held().about.check(ScoringOptions(reasoning="exclude"))
    assert prm.about.reasoning == "include"
    assert Valued.__doc__


def test_a_search_is_not_led_by_what_leaves_reasoning_out(prm: ImplicitPRM):
    from freeprm.settings import SearchSettings
    from freeprm.stages.base import loaded_prm

    own = ImplicitPRM(replace(prm.config, reasoning="apart"), policy=prm.policy, reference=prm.reference)
    with pytest.raises(ConfigError, match="takes reasoning apart"):
        loaded_prm(SearchSettings(prm=own), device=None, dtype=None)
