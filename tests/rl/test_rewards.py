"""Reward functions as TRL, verl and OpenRLHF call them, and rewards of tokens: all of them those of scoring."""

import importlib.util
import inspect
from pathlib import Path

import pytest
import torch

import freeprm.rl.verl
from freeprm.errors import ConfigError, DataError
from freeprm.models.encoding import encode
from freeprm.models.prompts import render_prompt
from freeprm.rl import openrlhf, trl, verl
from freeprm.rl.rewards import loaded, scalar, token_rewards
from freeprm.scorers.base import rollouts_of
from freeprm.scorers.implicit import ImplicitPRM
from held import Held
from tiny import LLAMA3, save, tokenizer

ASKED = "the sum of 3 and 4?"
SAID = ["Step 1: we add.\nStep 2: so 7", "it is 8"]


@pytest.fixture(scope="module")
def prm(template_prm: Path) -> ImplicitPRM:
    return ImplicitPRM.from_pretrained(template_prm)


@pytest.fixture(scope="module")
def offline(prm: ImplicitPRM):
    return prm.score(ASKED, SAID)


def near(values):
    return pytest.approx(values, abs=1e-5)


@pytest.mark.parametrize("conversational", [True, False])
def test_trl_gets_a_reward_a_completion(prm, offline, conversational: bool):
    made = tokenizer(template=LLAMA3)
    prompts = [[{"role": "user", "content": ASKED}] if conversational else render_prompt(made, ASKED)] * 2
    completions = [[{"role": "assistant", "content": text}] if conversational else text for text in SAID]
    ids = [item.ids[item.n_prompt :].tolist() for item in encode(made, rollouts_of(ASKED, SAID))]
    for name, expected in {
        "outcome": [one.reward for one in offline],
        "min": [min(one.step_rewards) for one in offline],
        "p_correct": [one.p_correct[-1] for one in offline],
    }.items():
        function = trl.reward_function(prm, reward=name)
        assert function.__name__ == f"freeprm_{name}"
        found = function(prompts=prompts, completions=completions, completion_ids=ids, trainer_state=None, answer=["7"])
        assert found == near(expected)
    cut = trl.reward_function(prm)(prompts=prompts, completions=completions, completion_ids=[one[:-1] for one in ids])
    expected = [one.reward for one in prm.score(ASKED, SAID, finished=False)]
    assert cut == near(expected)


def test_trl_skips_what_has_no_reward(prm):
    found = trl.reward_function(prm)(prompts=[ASKED] * 3, completions=["a", "", "b " * 200])
    assert found[0] is not None
    assert found[1:] == [None, None]


def test_a_scorer_of_whole_responses_is_a_reward_function_too():
    assert trl.reward_function(Held(), reward="min")(prompts=[ASKED], completions=["abc"]) == [3.0]
    with pytest.raises(ConfigError, match="'outcome': is of log-ratios"):
        trl.reward_function(Held())(prompts=[ASKED], completions=["abc"])
    with pytest.raises(ConfigError, match="state no probability"):
        trl.reward_function(Held(), reward="p_correct")(prompts=[ASKED], completions=["abc"])


def test_verl_finds_its_function_in_the_file_and_gets_a_score(template_prm, offline):
    spec = importlib.util.spec_from_file_location("custom_module", inspect.getfile(freeprm.rl.verl))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    row = {"data_source": "gsm8k", "ground_truth": "7", "extra_info": {"question": ASKED, "index": 3}}
    for text, expected in zip(SAID, offline, strict=True):
        found = module.compute_score(solution_str=text, prm=str(template_prm), **row)
        assert found == near({"score": expected.reward, "freeprm_missing": 0.0})
    turns = {"question": [{"role": "user", "content": ASKED}]}
    found = verl.compute_score("gsm8k", SAID[0], "7", turns, prm=str(template_prm), reward="min")
    assert found["score"] == near(min(offline[0].step_rewards))
    missing = verl.compute_score("gsm8k", "", "7", turns, prm=str(template_prm), missing=-1.0)
    assert missing == {"score": -1.0, "freeprm_missing": 1.0}
    with pytest.raises(DataError, match="has no 'question'"):
        verl.compute_score("gsm8k", "a", "7", {"index": 3}, prm=str(template_prm))
    with pytest.raises(ConfigError, match="prm: is missing"):
        verl.compute_score("gsm8k", "a", "7", turns)
    assert loaded(str(template_prm)) is loaded(str(template_prm))


def test_openrlhf_gets_tensors_for_its_decoded_sequences(prm, offline):
    head = render_prompt(tokenizer(template=LLAMA3), ASKED)
    found = openrlhf.reward_function(prm)(
        [head + text + "<|eot_id|>" for text in SAID], [head] * 2, ["7"] * 2, extra=None
    )
    assert found["rewards"].tolist() == near([one.reward for one in offline])
    assert found["scores"].tolist() == near([one.p_correct[-1] for one in offline])
    assert found["extra_logs"]["freeprm_missing"].tolist() == [0.0, 0.0]


def test_rewards_of_drawn_tokens_are_those_of_their_text_and_sum_to_the_outcome(prm, offline):
    items = encode(prm.tokenizer, rollouts_of(ASKED, SAID))
    prompts = [item.ids[: item.n_prompt].tolist() for item in items]
    completions = [item.ids[item.n_prompt :].tolist() for item in items]
    found = token_rewards(prm, [*prompts, prompts[0]], [*completions, []])
    for one, expected in zip(found, offline, strict=False):
        assert one.tolist() == near(expected.token_rewards)
        assert float(one.sum()) == near(expected.reward)
    assert found[2].shape == (0,)
    # Two tokens whose text would be read as one: the reward is of what was drawn.
    split = prm.tokenizer.encode("t", add_special_tokens=False) + prm.tokenizer.encode("h", add_special_tokens=False)
    (one,) = token_rewards(prm, prompts[:1], [split])
    assert one.shape == (2,)


def test_an_untrained_policy_earns_exactly_0_a_token(prm):
    untrained = ImplicitPRM.untrained(prm.policy)
    (one,) = token_rewards(untrained, [[3, 4]], [[5, 6, 7]])
    assert one.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("prompts", "completions", "reward", "told"),
    [
        ([[1]], [[1], [2]], "with-reference", "1 prompts and 2 completions"),
        ([[]], [[1]], "with-reference", "response 0: an empty prompt"),
        ([[1]], [[1]], "with", "reward 'with'"),
    ],
)
def test_tokens_without_a_reward_are_named(prm, prompts, completions, reward: str, told: str):
    with pytest.raises((DataError, ConfigError), match=told):
        token_rewards(prm, prompts, completions, reward=reward)


def test_an_unknown_number_is_refused_before_anything_is_loaded():
    for make in (trl.reward_function, openrlhf.reward_function):
        with pytest.raises(ConfigError, match="Did you mean 'min'"):
            make("no/such/folder", reward="minn")
    with pytest.raises(ConfigError, match="expected one of outcome, p_correct, min"):
        scalar("step")


@pytest.mark.slow
def test_trls_own_trainer_learns_by_it(prm, tmp_path: Path):
    from trl import GRPOConfig, GRPOTrainer

    from datasets import Dataset

    seen: list[list[float | None]] = []
    function = trl.reward_function(prm)

    def reward(**given: object) -> list[float | None]:
        seen.append(function(**given))  # type: ignore[arg-type]
        return seen[-1]

    trainer = GRPOTrainer(
        model=str(save(tmp_path / "policy", template=LLAMA3)),
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(tmp_path / "out"), per_device_train_batch_size=4, num_generations=4, max_steps=2,
            max_completion_length=12, use_cpu=True, report_to=[], learning_rate=1e-3, logging_steps=1,
        ),
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": ASKED}]}] * 4),
        processing_class=tokenizer(template=LLAMA3, pad="</s>"),
    )  # fmt: skip
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.train()
    assert len(seen) == 2
    assert all(value is not None for batch in seen for value in batch)
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    logged = next(row["reward"] for row in trainer.state.log_history if "reward" in row)
    assert logged == pytest.approx(sum(value or 0.0 for value in seen[0]) / 4, abs=1e-4)
